# SPDX-License-Identifier: Apache-2.0
"""Float models become int8 .tflite files: Keras and SavedModels by TensorFlow, float .tflite by AI Edge Quantizer.

Both are heavy and optional (``pip install 'lora-mcu[quantize]'``), and imported only here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import DataError, Error, ModelError, ToolError
from lora_mcu.importer import flatbuffer

Floats = NDArray[np.float32]
Progress = Callable[[int], None]
COMPARED = 200  # samples at most that both models are run on


@dataclass(frozen=True)
class Quantized:
    """The int8 ``.tflite`` and how far its outputs are from the float model's on ``samples`` of the calibration data.

    ``sqnr_db``: power of the float outputs over that of the difference. ``same_class``: share of samples with the same
    largest output; None where there is one output.
    """

    content: bytes
    samples: int
    sqnr_db: float
    same_class: float | None


def quantize(model: str | Path, x: NDArray[Any], progress: Progress | None = None) -> Quantized:
    """Quantize ``model`` to int8 weights, activations, input and output; ``x`` [N, *sample] calibrates the ranges.

    ``model``: a float .tflite, a .keras or .h5 file, or a SavedModel's folder, with one input, in the units of ``x``.
    ``progress`` is called with the number of samples done. Raises ModelError, DataError, or ToolError where an extra is
    missing; each in one line.
    """
    path, done = Path(model), progress or (lambda count: None)
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder")
    if not np.isfinite(np.asarray(x, np.float32)).all():
        raise DataError("x holds values that are not finite: nothing can be calibrated on them")
    try:
        with _quiet():
            float_model, content = (_from_tflite if path.suffix == ".tflite" else _from_keras)(path, x, done)
            return _compared(float_model, content, np.asarray(x[:COMPARED], np.float32))
    except Error as error:
        raise type(error)(f"{path.name}: {error}") from None


def _from_tflite(path: Path, x: NDArray[Any], done: Progress) -> tuple[bytes, bytes]:
    content = path.read_bytes()
    try:
        raw = flatbuffer.read(content)
    except ModelError:
        raise
    except Exception as error:  # as importer.loads: broken offsets raise whatever struct and NumPy raise
        raise ModelError(f"the file is truncated or damaged ({type(error).__name__}); convert it again") from None
    floats = [raw.tensors[i].dtype == "float32" for op in raw.ops for i in op.outputs]
    narrow = [t.name for t in raw.tensors if t.data is not None and t.dtype == "int8" and t.quantized]
    if narrow and any(raw.tensors[i].dtype == "int8" for op in raw.ops for i in op.outputs):
        raise ModelError("its operators compute in int8 already: `lora-mcu compile` takes it as it is")
    if narrow or not any(floats):
        raise ModelError(
            "this is no float model: its weights are rounded already. Quantize the .keras file or the SavedModel that "
            "it was converted from, or convert that without converter.optimizations first"
        )
    if len(raw.inputs) != 1:
        raise ModelError(f"it has {len(raw.inputs)} inputs; export the model with one input")
    samples = _samples(x, raw.tensors[raw.inputs[0]].shape)
    return content, _with_edge_quantizer(content, samples, done)


def _with_edge_quantizer(content: bytes, samples: Floats, done: Progress) -> bytes:
    try:
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise _missing(error) from None
    try:
        signatures = Interpreter(model_content=content).get_signature_list()
        key, name = next(((k, s["inputs"][0]) for k, s in signatures.items()), (None, ""))
        if key is None:
            raise ModelError("the file has no signature: convert the model again with TensorFlow 2.5 or newer")
        work = quantizer.Quantizer(bytearray(content), recipe.static_wi8_ai8())
        ranges = work.calibrate({key: _Counted([{name: sample} for sample in samples], done)})
        return bytes(work.quantize(ranges).quantized_model)
    except Error:
        raise
    except Exception as error:  # whatever the library raises at a model that it does not take
        raise ModelError(f"AI Edge Quantizer cannot quantize it: {_first_line(error)}") from None


def _from_keras(path: Path, x: NDArray[Any], done: Progress) -> tuple[bytes, bytes]:
    if not path.is_dir() and path.suffix not in (".keras", ".h5"):
        raise ModelError("give a float .tflite, a .keras or .h5 file, or the folder of a SavedModel")
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise ModelError("the folder holds no saved_model.pb: write one with model.export(folder)")
    try:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf
    except ImportError as error:
        raise _missing(error) from None
    tf.get_logger().setLevel("ERROR")
    try:
        frozen, shape = _frozen(tf, path)
        samples = _samples(x, shape)
        float_model = bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _Counted([[sample] for sample in samples], done)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return float_model, bytes(converter.convert())
    except Error:
        raise
    except Exception as error:  # TensorFlow raises many kinds
        raise ModelError(f"TensorFlow cannot convert it: {_first_line(error)}") from None


def _frozen(tf: Any, path: Path) -> tuple[Any, tuple[int, ...]]:
    """The model as a function of one sample [1, *sample] with its weights as constants, and the input's shape."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if path.is_dir():
        loaded = tf.saved_model.load(str(path))
        if not loaded.signatures:
            raise ModelError("the SavedModel has no signature: write it with model.export(folder)")
        signature = loaded.signatures.get("serving_default") or next(iter(loaded.signatures.values()))
        specs = signature.structured_input_signature[1]
        shapes = [spec.shape for spec in specs.values()]
        keyword = next(iter(specs), "")
        function = tf.function(lambda x: signature(**{keyword: x}))
    else:
        model = tf.keras.models.load_model(path, compile=False)
        shapes = [tensor.shape for tensor in model.inputs]
        function = tf.function(lambda x: model(x, training=False))
    if len(shapes) != 1:
        raise ModelError(f"it has {len(shapes)} inputs; export the model with one input")
    shape = (1, *(-1 if d is None else int(d) for d in tuple(shapes[0])[1:]))
    if -1 in shape:
        raise ModelError(f"its input has open dimensions {list(shape)}: build it with fixed ones")
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    return convert_variables_to_constants_v2(concrete), shape


def _samples(x: NDArray[Any], shape: tuple[int, ...]) -> Floats:
    """[N, 1, *sample] float32; the input's first dimension is the batch."""
    sample = tuple(shape[1:])
    if x.shape[1:] != sample and x[0].size != np.prod(sample):
        raise DataError(f"x has samples of shape {list(x.shape[1:])}, the model takes {list(sample)}")
    return np.ascontiguousarray(x, np.float32).reshape(len(x), 1, *sample)


class _Counted(list[Any]):
    """A list that tells how far it was read."""

    def __init__(self, values: list[Any], done: Progress) -> None:
        super().__init__(values)
        self._done = done

    def __iter__(self) -> Iterator[Any]:
        for count, value in enumerate(super().__iter__(), 1):
            yield value
            self._done(count)


def _compared(float_model: bytes, content: bytes, x: Floats) -> Quantized:
    """Run both with the interpreter that is there."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter
    exact, rough = (_outputs(Interpreter(model_content=m), x) for m in (float_model, content))
    noise = float(np.square(exact - rough).sum())
    sqnr = 10 * np.log10(float(np.square(exact).sum()) / noise) if noise and exact.any() else float("inf")
    one = exact.shape[-1] == 1
    same = None if one else float((exact.argmax(-1) == rough.argmax(-1)).mean())
    return Quantized(content, len(x), float(sqnr), same)


def _outputs(interpreter: Any, x: Floats) -> NDArray[np.float64]:
    """First outputs [N, -1] in real units."""
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    results = []
    for sample in x:
        value = sample.reshape(entry["shape"])
        scale, zero = entry["quantization"]
        if scale:
            value = np.clip(np.rint(value / scale) + zero, -128, 127).astype(entry["dtype"])
        interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        y = interpreter.get_tensor(end["index"]).astype(np.float64).ravel()
        scale, zero = end["quantization"]
        results.append((y - zero) * scale if scale else y)
    return np.stack(results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of the libraries' chatter, from Python or from file descriptors 1 and 2, while this lasts."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _missing(error: ImportError) -> ToolError:
    return ToolError(f"quantizing needs {error.name or 'TensorFlow'}: pip install 'lora-mcu[quantize]'")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]

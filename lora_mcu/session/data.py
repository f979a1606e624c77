# SPDX-License-Identifier: Apache-2.0
"""Samples and labels as bytes for the runtime: every check of shape, dtype, range and finiteness is here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_mcu.errors import DataError
from lora_mcu.info import ModelInfo, TensorInfo

Array = NDArray[Any]


def encode_samples(info: ModelInfo, x: ArrayLike) -> list[bytes]:
    """Return each of ``x [N, *sample]`` as the bytes of the model's input tensor.

    The dtype is the model's own; for an int8 or uint8 input float32 is quantized with the input's scale (round half
    away from zero, clip); an int32 input takes integers of any dtype. Raises DataError for another dtype or shape, for
    values that are not finite, and for indices outside the table of an embedding.
    """
    batch = _batch("x", np.asarray(x), info.input.shape)
    batch = _to_input(info.input, batch)
    if info.index_rows and info.input.dtype != "int8":
        _check_indices(batch, info.index_rows)
    return [sample.tobytes() for sample in batch]


def encode_labelled(info: ModelInfo, x: ArrayLike) -> list[bytes]:
    """Return each of ``x`` as the bytes of what one label belongs to.

    That is a sample as in :func:`encode_samples`; of a streaming model a sequence of frames, ``x [N, T, *sample]``, one
    frame after another. Raises DataError as that does.
    """
    if not info.streaming:
        return encode_samples(info, x)
    array = np.asarray(x)
    if not is_sequences(info, array):
        wanted = "[N, T" + "".join(f", {n}" for n in info.input.shape) + "]"
        raise DataError(
            f"x has shape {_shape(array.shape)}; a labelled sample of a streaming model is a sequence of T frames, "
            f"{wanted}, whose last one has the label (x[:, None] makes sequences of one frame)"
        )
    frames = encode_samples(info, array.reshape(-1, *info.input.shape))
    length = array.shape[1]
    return [b"".join(frames[i : i + length]) for i in range(0, len(frames), length)]


def is_sequences(info: ModelInfo, x: Array) -> bool:
    """Whether ``x`` is ``[N, T, *sample]`` with at least one frame, for a streaming model."""
    shape = info.input.shape
    return info.streaming and x.ndim == len(shape) + 2 and x.shape[2:] == shape and x.shape[1] > 0


def encode_sample(info: ModelInfo, x: ArrayLike) -> bytes:
    """Return one sample, given as ``[*sample]`` or ``[1, *sample]``, as bytes; rules as :func:`encode_samples`."""
    array = np.asarray(x)
    if array.shape == info.input.shape:
        array = array[np.newaxis]
    samples = encode_samples(info, array)
    if len(samples) != 1:
        raise DataError(f"x holds {len(samples)} samples; exactly one is taken here")
    return samples[0]


def encode_labels(info: ModelInfo, labels: ArrayLike) -> list[bytes]:
    """Return each label as the runtime takes it: a u32 class index, or ``logit_count`` float32 in real units.

    Cross entropy: integers ``[N]`` from 0 to ``classes - 1``. Mean squared error: targets ``[N, *output]`` in the
    output's dtype (dequantized with the output's scale) or float32, finite. Raises DataError for anything else.
    """
    array = np.asarray(labels)
    if info.loss == "cross_entropy":
        return [int(label).to_bytes(4, "little") for label in _classes(info, array)]
    return [target.tobytes() for target in _targets(info.output, array)]


def encode_label(info: ModelInfo, label: ArrayLike) -> bytes:
    """Return one sample's label: an integer, or a target ``[*output]``; a leading axis of 1 will do too."""
    array = np.asarray(label)
    if array.shape == (() if info.loss == "cross_entropy" else info.output.shape):
        array = array[np.newaxis]
    encoded = encode_labels(info, array)
    if len(encoded) != 1:
        raise DataError(f"labels holds {len(encoded)} labels; exactly one is taken here")
    return encoded[0]


def decode_output(info: ModelInfo, raw: bytes) -> Array:
    """Return the bytes of one output tensor as an array ``[*output]`` in the model's own dtype."""
    return np.frombuffer(raw, dtype=np.dtype(info.output.dtype).newbyteorder("<")).reshape(info.output.shape)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(n) for n in shape) + "]"


def _batch(name: str, array: Array, sample: tuple[int, ...]) -> Array:
    """Return ``array`` in native byte order if it is [N, *sample]; say what is wrong otherwise."""
    if array.ndim == len(sample) + 1 and array.shape[1:] == sample:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    way_out = f"give one sample as {name}[None]" if array.shape == sample else f"reshape it to {_shape((-1, *sample))}"
    wanted = "[N" + "".join(f", {n}" for n in sample) + "]"
    raise DataError(f"{name} has shape {_shape(array.shape)}; the model takes {wanted}: {way_out}")


def _finite(name: str, batch: Array) -> None:
    bad = ~np.isfinite(batch.reshape(len(batch), -1)).all(axis=1) if batch.size else np.zeros(0, bool)
    if bad.any():
        index = int(np.argmax(bad))
        raise DataError(
            f"{name} of sample {index} holds NaN or infinity ({int(bad.sum())} such samples): drop or mend it"
        )


def _check_indices(batch: Array, rows: int) -> None:
    outside = ((batch < 0) | (batch >= rows)).reshape(len(batch), -1)
    if outside.any():
        index = int(np.argmax(outside.any(axis=1)))
        value = batch[index].ravel()[int(np.argmax(outside[index]))]
        raise DataError(
            f"index {value} in sample {index} is not in 0..{rows - 1}: the model's embedding has {rows} rows; map "
            "unknown tokens to one of them"
        )


def _to_input(tensor: TensorInfo, batch: Array) -> Array:
    if batch.dtype == np.dtype(tensor.dtype):
        if tensor.dtype == "float32":
            _finite("x", batch)
        return batch
    if tensor.dtype == "int32" and batch.dtype.kind in "iu":
        wide = batch.astype(np.int64)
        if (np.abs(wide) < 2**31).all():
            return wide.astype(np.int32)
        raise DataError("x holds integers that int32 does not hold")
    if batch.dtype != np.float32 or tensor.dtype == "int32":
        takes = tensor.dtype if tensor.dtype in ("float32", "int32") else f"{tensor.dtype} or float32"
        raise DataError(
            f"x is {batch.dtype}, the model takes {takes}: convert it, e.g. x.astype(np.float32) if x is in real units"
        )
    _finite("x", batch)
    return quantize(tensor, batch)


def quantize(tensor: TensorInfo, real: Array) -> Array:
    """Return finite float32 in the tensor's dtype: round(real / scale) + zero_point, half away from zero, clipped."""
    limits = np.iinfo(tensor.dtype)
    with np.errstate(over="ignore"):
        steps = np.asarray(real, np.float32) / np.float32(tensor.scale or 1.0)
    whole = np.trunc(np.clip(steps, -65536, 65536))
    rest = steps - whole
    whole = whole + (rest >= 0.5) - (rest <= -0.5)
    return np.asarray(np.clip(whole + tensor.zero_point, limits.min, limits.max).astype(tensor.dtype))


def _classes(info: ModelInfo, array: Array) -> NDArray[np.integer]:
    if array.dtype.kind not in "iu":
        raise DataError(
            f"labels are {array.dtype}, class labels are integers: convert them, e.g. labels.astype(np.int64)"
        )
    if array.ndim != 1:
        raise DataError(f"labels have shape {_shape(array.shape)}; the model takes [N], one class index a sample")
    bad = (array < 0) | (array >= info.classes)
    if bad.any():
        index = int(np.argmax(bad))
        raise DataError(
            f"label {int(array[index])} of sample {index} is not in 0..{info.classes - 1}: the model has"
            f" {info.logit_count} outputs and LoRA adds no classes; reserve outputs when you train the base model"
        )
    return array


def _targets(tensor: TensorInfo, array: Array) -> NDArray[np.float32]:
    batch = _batch("labels", array, tensor.shape)
    if batch.dtype == np.float32:
        _finite("labels", batch)
        return np.ascontiguousarray(batch, "<f4")
    if batch.dtype != np.dtype(tensor.dtype):
        raise DataError(
            f"labels are {batch.dtype}, targets of this model are {tensor.dtype} or float32: convert them, e.g."
            " labels.astype(np.float32) if they are in real units"
        )
    steps = batch.astype(np.int32) - tensor.zero_point
    return np.asarray(steps.astype("<f4") * np.float32(tensor.scale or 1.0), "<f4")

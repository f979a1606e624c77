# SPDX-License-Identifier: Apache-2.0
"""LiteRT's interpreter with reference kernels: what the base must equal, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

Array = NDArray[Any]
_OPTIMIZED = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class Oracle:
    """One .tflite model. Samples have the twin's shapes: without a leading 1.

    ``optimized``: LiteRT's other kernels, for an operator whose reference kernel is wrong.
    """

    def __init__(self, model: bytes | Path, keep_all: bool = False, optimized: bool = False, output: int = 0) -> None:
        content = model.read_bytes() if isinstance(model, Path) else model
        self._interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=_OPTIMIZED if optimized else OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=keep_all,
        )
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[output]

    def infer(self, x: Array) -> Array:
        """Outputs of a batch [N, *sample]."""
        return np.stack([self._run(sample) for sample in x])

    def _run(self, sample: Array) -> Array:
        self._interpreter.set_tensor(self._input["index"], sample.reshape(self._input["shape"]))
        self._interpreter.invoke()
        y = self._interpreter.get_tensor(self._output["index"])
        return y[0] if y.ndim > 1 and y.shape[0] == 1 else y

    def tensors(self, sample: Array) -> dict[int, Array]:
        """Every tensor of one run by id (``keep_all`` must be set)."""
        self._run(sample)
        found = {}
        for detail in self._interpreter.get_tensor_details():
            try:
                found[detail["index"]] = self._interpreter.get_tensor(detail["index"])
            except ValueError:  # folded shape arithmetic leaves tensors without data
                continue
        return found


def differing(a: Array, b: Array) -> int:
    """Number of bytes in which two arrays of one shape and dtype differ."""
    assert a.shape == b.shape and a.dtype == b.dtype, f"{a.shape} {a.dtype} against {b.shape} {b.dtype}"
    return int((np.frombuffer(a.tobytes(), np.uint8) != np.frombuffer(b.tobytes(), np.uint8)).sum())

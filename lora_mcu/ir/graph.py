# SPDX-License-Identifier: Apache-2.0
"""Graph: typed tensors and operators, a verifier and a readable dump (``lora-mcu inspect --ir``)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ModelError
from lora_mcu.ir.ops import Activation, Conv2D, Dense, Op

DTYPE_BYTES = {"int8": 1, "uint8": 1, "int32": 4, "int64": 8, "float32": 4, "bool": 1, "int16": 2}


@dataclass
class Tensor:
    """``scale`` float32 [0, 1 or channels], ``zero_point`` int64 of the same length, ``axis`` of per-channel scales."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    axis: int = 0
    data: NDArray[np.generic] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def quantized(self) -> bool:
        return len(self.scale) > 0

    @property
    def s(self) -> np.float32:
        """Per-tensor scale."""
        return np.float32(self.scale[0])

    @property
    def z(self) -> int:
        """Per-tensor zero point."""
        return int(self.zero_point[0])

    def same_quantization(self, other: Tensor) -> bool:
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)

    def clamp(self, activation: Activation) -> tuple[int, int]:
        """int8 bounds of a fused activation: round(bound / scale) in float32, half away from zero, plus zero point."""
        low, high = -128, 127
        if activation.low is not None:
            low = max(low, self.z + _round_away(np.float32(activation.low) / self.s))
        if activation.high is not None:
            high = min(high, self.z + _round_away(np.float32(activation.high) / self.s))
        return low, high


def _round_away(value: np.float32) -> int:
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))


@dataclass
class Graph:
    """A model: ``tensors`` by id, ``ops`` in execution order, one input and one output.

    ``states``: tensors that live from one inference to the next, with their initial values (int8, the tensor's shape).
    """

    name: str
    sha256: str
    tensors: dict[int, Tensor]
    ops: list[Op]
    input: int
    output: int
    states: dict[int, NDArray[np.int8]] = field(default_factory=dict)

    def producer(self, tensor: int) -> Op | None:
        return next((op for op in self.ops if tensor in op.outputs), None)

    def adaptable(self) -> list[Op]:
        """Dense and non-depthwise convolution layers with constant int8 weights, in operator order."""
        return [
            op for op in self.ops
            if isinstance(op, Conv2D | Dense) and not self.tensors[op.weights].zero_point.any()
        ]  # fmt: skip

    def layer_names(self) -> dict[int, str]:
        """Operator index -> layer name: the output tensor's, cut at the first ``;``, other characters ``_``, unique."""
        names: dict[int, str] = {}
        seen: dict[str, int] = {}
        taken: set[str] = set()
        for op in self.adaptable():
            base = re.sub(r"[^A-Za-z0-9_]", "_", self.tensors[op.output].name.split(";")[0]) or "layer"
            name, count = base, seen.get(base, 1)
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            seen[base] = count
            taken.add(name)
            names[op.index] = name
        return names

    def verify(self) -> None:
        """Raise ModelError unless every tensor is made before it is used, once, and every operator's check holds."""
        ready = {self.input, *self.states} | {i for i, t in self.tensors.items() if t.data is not None}
        made: set[int] = set()
        for op in self.ops:
            for i in op.inputs:
                op.require(
                    self,
                    i in ready,
                    f"tensor {self.tensors[i].name!r} is neither constant nor made by an operator before",
                )
            for i in op.outputs:
                free = i not in made and i != self.input and self.tensors[i].data is None
                op.require(self, free or i in self.states, f"tensor {i} is written twice")
                made.add(i)
            op.check(self)
            ready.update(op.outputs)
        if self.output not in made:
            raise ModelError(f"the output {self.tensors[self.output].name!r} does not depend on the input")

    def dump(self) -> str:
        """Readable text, one line a tensor edge and one a operator."""
        lines = [f"graph {self.name} sha256={self.sha256[:16]}"]
        lines.append(f"  input  {self._edge(self.input)}")
        lines += [f"  state  {self._edge(i)} {self.tensors[i].name!r} = {_values(v)}" for i, v in self.states.items()]
        for op in self.ops:
            inputs = ", ".join(self._edge(i) for i in op.inputs)
            lines.append(f"  {op.index:3d} {op.KIND:<18} {self._edge(op.output)} = ({inputs}){_attributes(op)}")
        lines.append(f"  output {self._edge(self.output)}")
        return "\n".join(lines) + "\n"

    def _edge(self, i: int) -> str:
        t = self.tensors[i]
        shape = "x".join(map(str, t.shape)) or "scalar"
        quant = ""
        if len(t.scale) == 1:
            quant = f" s={t.s:.6g} z={t.z}"
        elif t.quantized:
            quant = f" s[{len(t.scale)}] axis={t.axis}"
        return f"%{i}:{t.dtype}[{shape}]{quant}{' const' if t.data is not None else ''}"


def _values(initial: NDArray[np.int8]) -> str:
    found = np.unique(initial)
    return f"all {found[0]}" if len(found) == 1 else f"{len(found)} values from {found[0]} to {found[-1]}"


def _attributes(op: Op) -> str:
    shown = {k: v for k, v in vars(op).items() if k not in ("index", "inputs", "outputs")}
    parts = [f"{k}={v.name if isinstance(v, Activation) else v}" for k, v in shown.items()]
    return f" {{{', '.join(parts)}}}" if parts else ""

# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes: sum, maximum, and the mean where its axes are no neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op
from lora_mcu.ir.shape import strides_of

REDUCE_DIMS = 3  # of lmcu_reduce_t, kept and reduced each
MAX_COUNT = 1 << 17  # sums of so many int8 values are exact in float32

Dims = list[tuple[int, int]]  # (size, stride in elements)


@dataclass
class Reduction(Op):
    axes: tuple[int, ...] = ()

    def layout(self, graph: Graph) -> tuple[Dims, Dims]:
        """The input's kept and reduced dimensions; sizes of 1 left out, neighbours of one kind merged."""
        shape = graph.tensors[self.inputs[0]].shape
        kept: Dims = []
        reduced: Dims = []
        previous: Dims | None = None
        for axis, (size, stride) in enumerate(zip(shape, strides_of(shape), strict=True)):
            if size == 1:
                continue
            into = reduced if axis in self.axes else kept
            if into is previous:
                into[-1] = (into[-1][0] * size, stride)
            else:
                into.append((size, stride))
            previous = into
        return kept, reduced

    def count(self, graph: Graph) -> int:
        """Elements an output element is made of."""
        return math.prod(size for size, _ in self.layout(graph)[1])

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, all(0 <= a < len(x.shape) for a in self.axes), "its axes are out of range")
        kept, reduced = self.layout(graph)
        self.require(graph, max(len(kept), len(reduced)) <= REDUCE_DIMS,
                     f"its axes {list(self.axes)} alternate more than {REDUCE_DIMS} times")  # fmt: skip
        self.require(graph, y.elements == math.prod(size for size, _ in kept), "its output has the wrong size")
        self.require(graph, self.count(graph) <= MAX_COUNT, f"it reduces more than {MAX_COUNT} elements to one")


@dataclass
class ReduceSum(Reduction):
    KIND: ClassVar[str] = "SUM"


@dataclass
class ReduceMean(Reduction):
    """The mean of axes that are no neighbours; ``ir.Mean`` is the fast one."""

    KIND: ClassVar[str] = "MEAN"


@dataclass
class ReduceMax(Reduction):
    KIND: ClassVar[str] = "REDUCE_MAX"

    def saved(self, adapted: bool) -> list[int]:
        return self.inputs[:1]

    def check(self, graph: Graph) -> None:
        super().check(graph)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.same_quantization(y), "input and output are quantized differently")

# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing: four neighbours of each output position, weighted in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op

ONE = 1024  # the weights of two neighbours sum to it
MAX_NEIGHBOUR = 32767  # the tables are int16

Neighbours = tuple[int, int, int]  # first, second, weight of the second


@dataclass
class ResizeBilinear(Op):
    """One entry of ``rows`` and ``columns`` for each row and column of the output [1, H, W, C]."""

    KIND: ClassVar[str] = "RESIZE_BILINEAR"
    rows: tuple[Neighbours, ...] = ()
    columns: tuple[Neighbours, ...] = ()

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        shapes = f"{list(x.shape)} -> {list(y.shape)}"
        self.require(graph, len(x.shape) == len(y.shape) == 4 and x.shape[0] == y.shape[0] == 1
                     and x.shape[3] == y.shape[3] and y.shape[1:3] == (len(self.rows), len(self.columns)),
                     f"shapes {shapes} are not [1, H, W, C] of as many channels")  # fmt: skip
        for size, table in zip(x.shape[1:3], (self.rows, self.columns), strict=True):
            for first, second, weight in table:
                self.require(graph, 0 <= first <= second < size <= MAX_NEIGHBOUR and -ONE < weight < ONE,
                             f"{shapes}: the oracle's rounded scale leaves the input")  # fmt: skip
        self.require(graph, x.same_quantization(y), "input and output are quantized differently")

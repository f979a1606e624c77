# SPDX-License-Identifier: Apache-2.0
"""Rows of a constant table by the model's input: an embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op

MAX_ROWS = 1 << 24  # float32 indices stay exact


@dataclass
class Embedding(Op):
    """y[i] = table[row(x[i])]: table int8 [rows, ...], x int32, float32 (truncated) or int8.

    ``wraps``: rows is added to a negative index first. ``dequantized``: an int8 index counts as fl(s * (q - z)),
    truncated, otherwise as q. An index outside the table takes its nearest row (LiteRT stops with an error).
    """

    KIND: ClassVar[str] = "GATHER"
    wraps: bool = False
    dequantized: bool = False

    def data_inputs(self) -> list[int]:
        return []

    def saved(self, adapted: bool) -> list[int]:
        return []

    def rows(self, graph: Graph) -> int:
        return graph.tensors[self.inputs[1]].shape[0]

    def width(self, graph: Graph) -> int:
        return math.prod(graph.tensors[self.inputs[1]].shape[1:])

    def check(self, graph: Graph) -> None:
        x, table, y = (graph.tensors[i] for i in (*self.inputs, self.output))
        self.require_int8(graph, self.inputs[1], self.output)
        self.require(graph, len(table.scale) == 1 and table.same_quantization(y),
                     f"table {table.name!r} and output are quantized differently; LiteRT copies bytes")  # fmt: skip
        self.require(graph, x.elements * self.width(graph) == y.elements,
                     f"{x.elements} indices into {list(table.shape)} do not make {list(y.shape)}")  # fmt: skip
        self.require(graph, 1 <= self.rows(graph) <= MAX_ROWS, f"the table has more than {MAX_ROWS} rows")
        self.require(graph, not self.dequantized or len(x.scale) == 1, f"its indices {x.name!r} have no one scale")

    def rows_of_int8(self, graph: Graph) -> NDArray[np.int32]:
        """[256]: the row that each int8 index takes."""
        x, q = graph.tensors[self.inputs[0]], np.arange(-128, 128, dtype=np.int64)
        value = (x.s * (q - x.z).astype(np.float32)).astype(np.float32) if self.dequantized else q
        return self.rows_of(graph, np.trunc(value))

    def rows_of(self, graph: Graph, index: NDArray[Any]) -> NDArray[np.int32]:
        """The row of each truncated index."""
        rows = self.rows(graph)
        i = np.where(np.isnan(index), 0, np.clip(index, -(2.0**31), 2.0**31 - 1)).astype(np.int64)
        i = np.where((i < 0) & self.wraps, i + rows, i)
        return np.clip(i, 0, rows - 1).astype(np.int32)

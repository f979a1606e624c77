# SPDX-License-Identifier: Apache-2.0
"""Products of two activations: BATCH_MATMUL, and FULLY_CONNECTED whose weights are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_mcu.ir.ops import Activation, Op

if TYPE_CHECKING:
    from lora_mcu.ir.graph import Graph

MAX_DEPTH = 33_000  # (2^31 - 1) / 255^2: sums of so many products stay inside int32
BATCH_RANK = 3  # the oracle's kernel takes five dimensions


@dataclass(frozen=True)
class Geometry:
    """y[n][i][j] = sum over k of a[n][i][k] * b[n][j][k]: sizes, and the steps between elements of a and b.

    ``batch`` are the sizes of three batch dimensions; ``a_batch`` and ``b_batch`` their steps, 0 where broadcast.
    """

    batch: tuple[int, int, int]
    rows: int
    columns: int
    depth: int
    a_batch: tuple[int, int, int]
    b_batch: tuple[int, int, int]
    a_row: int
    a_depth: int
    b_column: int
    b_depth: int


@dataclass
class Matmul(Op):
    """inputs = [a, b]: a [..., M, K] or, with ``adj_x``, [..., K, M]; b [..., K, N] or, with ``adj_y``, [..., N, K]."""

    KIND: ClassVar[str] = "BATCH_MATMUL"
    adj_x: bool = False
    adj_y: bool = False

    def data_inputs(self) -> list[int]:
        return self.inputs[:2]

    def saved(self, adapted: bool) -> list[int]:
        return [*self.inputs[:2], self.output]

    def macs(self, graph: Graph) -> int:
        g = self.geometry(graph)
        return math.prod(g.batch) * g.rows * g.columns * g.depth

    def shapes(self, graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of a and b as the product sees them, filled with ones in front to five dimensions."""
        a, b = (graph.tensors[i].shape for i in self.inputs[:2])
        rank = BATCH_RANK + 2
        return (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b

    def geometry(self, graph: Graph) -> Geometry:
        a, b = self.shapes(graph)
        depth, rows = (a[3], a[4]) if self.adj_x else (a[4], a[3])
        columns = b[3] if self.adj_y else b[4]
        sizes = tuple(max(m, n) for m, n in zip(a[:3], b[:3], strict=True))
        return Geometry(
            (sizes[0], sizes[1], sizes[2]), rows, columns, depth, _steps(a), _steps(b),
            *((1, rows) if self.adj_x else (depth, 1)), *((depth, 1) if self.adj_y else (1, columns)),
        )  # fmt: skip

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, *self.inputs[:2], self.output)
        ta, tb, ty = (graph.tensors[i] for i in (*self.inputs[:2], self.output))
        for tensor in (ta, tb, ty):
            one = f"tensor {tensor.name!r} has {len(tensor.scale)} scales; only one is supported here"
            self.require(graph, len(tensor.scale) == 1, one)
        fit = f"shapes {list(ta.shape)} and {list(tb.shape)} do not fit"
        self.require(graph, all(2 <= len(t.shape) <= BATCH_RANK + 2 for t in (ta, tb)), f"{fit}: 2 to 5 dimensions")
        a, b = self.shapes(graph)
        broadcast = all(m == n or 1 in (m, n) for m, n in zip(a[:3], b[:3], strict=True))
        self.require(graph, broadcast and (a[3] if self.adj_x else a[4]) == (b[4] if self.adj_y else b[3]), fit)
        g = self.geometry(graph)
        self.require(graph, g.depth <= MAX_DEPTH, f"sums of {g.depth} products may overflow; at most {MAX_DEPTH}")
        self.require(graph, ty.elements == math.prod(g.batch) * g.rows * g.columns, "its output has the wrong size")


def _steps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Elements between neighbours along the first three of five dimensions; 0 where there is only one."""
    steps = [0 if shape[i] == 1 else math.prod(shape[i + 1 :]) for i in range(BATCH_RANK)]
    return steps[0], steps[1], steps[2]


@dataclass
class ActivationDense(Matmul):
    """inputs = [x, weights] or [x, weights, bias]: x of P * K elements, weights [N, K] computed."""

    KIND: ClassVar[str] = "FULLY_CONNECTED"
    adj_y: bool = True
    activation: Activation = Activation.NONE

    @property
    def bias(self) -> int | None:
        return self.inputs[2] if len(self.inputs) > 2 else None

    def shapes(self, graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
        x, w = (graph.tensors[i] for i in self.inputs[:2])
        return (1, 1, 1, x.elements // w.shape[-1], w.shape[-1]), (1, 1, 1, *w.shape)

    def check(self, graph: Graph) -> None:
        x, w = (graph.tensors[i] for i in self.inputs[:2])
        self.require(graph, len(w.shape) == 2 and x.elements % w.shape[-1] == 0,
                     f"input {list(x.shape)} and weights {list(w.shape)} do not fit; [N, K] is needed")  # fmt: skip
        if self.bias is not None:
            bias = graph.tensors[self.bias]
            self.require(graph, bias.dtype == "int32" and bias.data is not None and bias.data.size == w.shape[0],
                         f"bias {bias.name!r} must be {w.shape[0]} constant int32 values")  # fmt: skip
        super().check(graph)

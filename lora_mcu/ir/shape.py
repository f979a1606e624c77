# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements: concatenation, slices, splits, permutations, gathers by constant indices.

Copies are described by pieces (one strided block each), gathers by one index table a dimension; both pass gradients
back to where each element came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op

MAX_DIMS = 5  # of lmcu_copy_t
TAKE_DIMS = 4  # of lmcu_take_t
MAX_INDEX = 65536  # its tables are uint16
MAX_NEIGHBOUR = 32767  # likewise int16


@dataclass(frozen=True)
class Piece:
    """y[y_start + i . y_strides] = x[x_start + i . x_strides] for all i in ``dims``; everything counts elements.

    ``dims`` holds at least one dimension, none of size 1 unless it is the only one, and no two that could be one.
    """

    x: int
    y: int
    dims: tuple[int, ...]
    x_start: int
    x_strides: tuple[int, ...]
    y_start: int
    y_strides: tuple[int, ...]

    @property
    def is_run(self) -> bool:
        """One contiguous run on both sides, from the start."""
        return len(self.dims) == 1 and (self.x_start, self.y_start, *self.x_strides, *self.y_strides) == (0, 0, 1, 1)


def piece(
    x: int, y: int, dims: Sequence[int], x_start: int, x_strides: Sequence[int], y_start: int, y_strides: Sequence[int]
) -> Piece:
    """A Piece in its shortest form: sizes of 1 left out, neighbours that step as one merged."""
    merged: list[tuple[int, int, int]] = []
    for d, a, b in zip(dims, x_strides, y_strides, strict=True):
        if d == 1:
            continue
        if merged and merged[-1][1:] == (a * d, b * d):
            merged[-1] = (merged[-1][0] * d, a, b)
        else:
            merged.append((d, a, b))
    sizes, from_x, to_y = zip(*(merged or [(1, 1, 1)]), strict=True)
    return Piece(x, y, sizes, x_start, from_x, y_start, to_y)


def strides_of(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


@dataclass
class Copy(Op):
    """Base of the strided copies: every element of every output comes from exactly one element of one input."""

    def pieces(self, graph: Graph) -> list[Piece]:
        """The blocks that make the outputs."""
        raise NotImplementedError(self.KIND)

    def data_inputs(self) -> list[int]:
        return self.inputs

    def saved(self, adapted: bool) -> list[int]:
        return []

    def _check_copy(self, graph: Graph) -> None:
        self.require_int8(graph, *self.inputs, *self.outputs)
        y = graph.tensors[self.output]
        for i in (*self.inputs, *self.outputs):
            t = graph.tensors[i]
            self.require(graph, t.same_quantization(y) and len(t.scale) == 1,
                         f"tensors {t.name!r} and {y.name!r} are quantized differently; LiteRT copies no int8 between "
                         "scales: convert again with a current converter, which gives them one scale")  # fmt: skip
        for p in self.pieces(graph):
            self.require(graph, len(p.dims) <= MAX_DIMS, f"it moves {len(p.dims)} dimensions; at most {MAX_DIMS}")


@dataclass
class Concat(Copy):
    """Inputs side by side along ``axis`` of the output; input i covers ``sizes[i]`` of it."""

    KIND: ClassVar[str] = "CONCATENATION"
    axis: int = 0
    sizes: tuple[int, ...] = ()

    def _blocks(self, graph: Graph) -> tuple[int, int, int]:
        """The output as [outer, length, inner] around the axis."""
        shape = graph.tensors[self.output].shape
        return math.prod(shape[: self.axis]), shape[self.axis], math.prod(shape[self.axis + 1 :])

    def check(self, graph: Graph) -> None:
        y = graph.tensors[self.output]
        self.require(graph, 0 <= self.axis < len(y.shape), f"axis {self.axis} is out of range for {list(y.shape)}")
        outer, length, inner = self._blocks(graph)
        fits = len(self.sizes) == len(self.inputs) > 0 and sum(self.sizes) == length
        for i, size in zip(self.inputs, self.sizes, strict=False):
            fits = fits and graph.tensors[i].elements == outer * size * inner
        self.require(graph, fits, "its inputs do not fill its output")
        self._check_copy(graph)

    def pieces(self, graph: Graph) -> list[Piece]:
        outer, length, inner = self._blocks(graph)
        found, at = [], 0
        for i, size in zip(self.inputs, self.sizes, strict=True):
            run = size * inner
            found.append(piece(i, self.output, (outer, run), 0, (run, 1), at * inner, (length * inner, 1)))
            at += size
        return found


@dataclass
class Pack(Concat):
    """Inputs stacked along a new axis."""

    KIND: ClassVar[str] = "PACK"


@dataclass
class Partition(Copy):
    """The input cut along ``axis``; output i takes ``sizes[i]`` of it."""

    KIND: ClassVar[str] = "SPLIT"
    axis: int = 0
    sizes: tuple[int, ...] = ()

    def _blocks(self, graph: Graph) -> tuple[int, int, int]:
        shape = graph.tensors[self.inputs[0]].shape
        return math.prod(shape[: self.axis]), shape[self.axis], math.prod(shape[self.axis + 1 :])

    def check(self, graph: Graph) -> None:
        x = graph.tensors[self.inputs[0]]
        self.require(graph, 0 <= self.axis < len(x.shape), f"axis {self.axis} is out of range for {list(x.shape)}")
        outer, length, inner = self._blocks(graph)
        fits = len(self.sizes) == len(self.outputs) > 0 and sum(self.sizes) == length
        for i, size in zip(self.outputs, self.sizes, strict=False):
            fits = fits and graph.tensors[i].elements == outer * size * inner
        self.require(graph, fits, "its outputs do not use up its input")
        self._check_copy(graph)

    def pieces(self, graph: Graph) -> list[Piece]:
        outer, length, inner = self._blocks(graph)
        found, at = [], 0
        for i, size in zip(self.outputs, self.sizes, strict=True):
            run = size * inner
            found.append(piece(self.inputs[0], i, (outer, run), at * inner, (length * inner, 1), 0, (run, 1)))
            at += size
        return found


@dataclass
class Unpack(Partition):
    """The input cut into slices of 1 along ``axis``, which the outputs do not have."""

    KIND: ClassVar[str] = "UNPACK"


@dataclass
class Slice(Copy):
    """y[i] = x[start + i * step], ``size`` elements along each dimension of x (the output may have fewer of size 1)."""

    KIND: ClassVar[str] = "SLICE"
    start: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    size: tuple[int, ...] = ()

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        same_rank = len(x.shape) == len(self.start) == len(self.step) == len(self.size)
        self.require(graph, same_rank and math.prod(self.size) == y.elements,
                     f"its output {list(y.shape)} does not hold the slice {list(self.size)}")  # fmt: skip
        for d, start, step, size in zip(x.shape, self.start, self.step, self.size, strict=True):
            ends = (start, start + (size - 1) * step)
            self.require(graph, size >= 1 and min(ends) >= 0 and max(ends) < d,
                         f"the slice leaves its input {list(x.shape)}")  # fmt: skip
        self._check_copy(graph)

    def pieces(self, graph: Graph) -> list[Piece]:
        strides = strides_of(graph.tensors[self.inputs[0]].shape)
        start = sum(a * b for a, b in zip(self.start, strides, strict=True))
        stepped = [a * b for a, b in zip(self.step, strides, strict=True)]
        return [piece(self.inputs[0], self.output, self.size, start, stepped, 0, strides_of(self.size))]


@dataclass
class StridedSlice(Slice):
    KIND: ClassVar[str] = "STRIDED_SLICE"


@dataclass
class Transpose(Copy):
    """x seen as ``dims``, its dimensions in the order ``perm``."""

    KIND: ClassVar[str] = "TRANSPOSE"
    dims: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, sorted(self.perm) == list(range(len(self.dims))),
                     f"{list(self.perm)} is no permutation of {len(self.dims)} dimensions")  # fmt: skip
        self.require(graph, min(self.dims, default=1) >= 1 and x.elements == y.elements == math.prod(self.dims),
                     f"{list(x.shape)} does not become {list(y.shape)}")  # fmt: skip
        self._check_copy(graph)

    def pieces(self, graph: Graph) -> list[Piece]:
        strides, dims = strides_of(self.dims), [self.dims[p] for p in self.perm]
        return [piece(self.inputs[0], self.output, dims, 0, [strides[p] for p in self.perm], 0, strides_of(dims))]


@dataclass
class DepthToSpace(Transpose):
    KIND: ClassVar[str] = "DEPTH_TO_SPACE"


@dataclass
class SpaceToDepth(Transpose):
    KIND: ClassVar[str] = "SPACE_TO_DEPTH"


@dataclass
class Take(Op):
    """y[i] = x[table[0][i0], table[1][i1], ...]: x and y seen with up to 4 dimensions, one table a dimension (None: all
    of it, in order)."""

    KIND: ClassVar[str] = "GATHER"
    dims: tuple[int, ...] = ()
    tables: tuple[tuple[int, ...] | None, ...] = ()

    def sizes(self) -> list[int]:
        """The output's dimensions."""
        return [d if table is None else len(table) for d, table in zip(self.dims, self.tables, strict=True)]

    def saved(self, adapted: bool) -> list[int]:
        return []

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, len(self.dims) == len(self.tables) <= TAKE_DIMS,
                     f"it takes from {len(self.dims)} dimensions; at most {TAKE_DIMS}")  # fmt: skip
        for d, table in zip(self.dims, self.tables, strict=True):
            self.require(graph, table is None or (len(table) > 0 and min(table) >= 0 and max(table) < d <= MAX_INDEX),
                         f"its indices leave the input {list(x.shape)}")  # fmt: skip
        self.require(graph, x.elements == math.prod(self.dims) and y.elements == math.prod(self.sizes()),
                     f"{list(x.shape)} does not become {list(y.shape)}")  # fmt: skip
        self.require(graph, x.same_quantization(y), "input and output are quantized differently")


@dataclass
class ResizeNearest(Take):
    KIND: ClassVar[str] = "RESIZE_NEAREST_NEIGHBOR"


@dataclass
class Tile(Take):
    KIND: ClassVar[str] = "TILE"


@dataclass
class MirrorPad(Take):
    KIND: ClassVar[str] = "MIRROR_PAD"

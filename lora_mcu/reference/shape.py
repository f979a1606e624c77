# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements, in NumPy's own words; backward goes the same way round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Concat, Embedding, Graph, Partition, Slice, Take, Transpose
from lora_mcu.ir.shape import Copy
from lora_mcu.reference.ordered import Array

Floats = NDArray[np.float32]


def forward(op: Copy | Take, graph: Graph, values: list[Array]) -> list[Array]:
    """The outputs, each with as many elements as its tensor."""
    if isinstance(op, Concat):
        blocks = [v.reshape(_around(op, graph, op.output, size)) for v, size in zip(values, op.sizes, strict=True)]
        return [np.concatenate(blocks, axis=1)]
    (x,) = values
    if isinstance(op, Partition):
        blocks = np.split(x.reshape(_around(op, graph, op.inputs[0])), np.cumsum(op.sizes)[:-1], axis=1)
        return list(blocks)
    return [_view(op)(x)]


def backward(op: Copy | Take, graph: Graph, reached: list[Floats | None], into: list[Floats | None]) -> None:
    """Adds to ``into`` (inputs; None: not wanted) from ``reached`` (outputs; None: the loss does not see it)."""
    if isinstance(op, Concat):
        assert reached[0] is not None
        blocks = np.split(reached[0].reshape(_around(op, graph, op.output)), np.cumsum(op.sizes)[:-1], axis=1)
        for dx, block in zip(into, blocks, strict=True):
            if dx is not None:
                dx += block.reshape(dx.shape)
        return
    (dx,) = into
    if dx is None:
        return
    if isinstance(op, Partition):
        at = 0
        whole = dx.reshape(_around(op, graph, op.inputs[0]))
        for g, size in zip(reached, op.sizes, strict=True):
            if g is not None:
                part = whole[:, at : at + size]
                part += g.reshape(part.shape)
            at += size
        return
    assert reached[0] is not None
    source = _view(op)(np.arange(dx.size).reshape(dx.shape)).ravel()
    np.add.at(dx.reshape(-1), source, reached[0].ravel())  # one addition after the other, in the order of the output


def embedding_forward(op: Embedding, graph: Graph, x: Array, table: Array) -> Array:
    """Rows of the table; an index beyond its ends takes the row there."""
    quantization = graph.tensors[op.inputs[0]]
    found = []
    for v in x.ravel().tolist():
        if op.dequantized:
            v = float(np.float32(quantization.s * np.float32(v - quantization.z)))
        i = 0 if v != v else int(max(-(2.0**31), min(v, 2.0**31 - 1)))
        i += len(table) if i < 0 and op.wraps else 0
        found.append(table[max(0, min(i, len(table) - 1))])
    return np.stack(found)


def _around(op: Concat | Partition, graph: Graph, tensor: int, size: int = -1) -> tuple[int, int, int]:
    """[outer, length, inner] around the axis, of ``tensor`` or of a part of it that is ``size`` long."""
    shape = graph.tensors[tensor].shape
    outer, inner = int(np.prod(shape[: op.axis])), int(np.prod(shape[op.axis + 1 :]))
    return outer, shape[op.axis] if size < 0 else size, inner


def _view(op: Copy | Take) -> Callable[[Array], Array]:
    """The output as NumPy indexes or transposes the input."""
    if isinstance(op, Transpose):
        return lambda x: x.reshape(op.dims).transpose(op.perm)
    if isinstance(op, Take):
        picked = [list(range(d)) if t is None else list(t) for d, t in zip(op.dims, op.tables, strict=True)]
        return lambda x: x.reshape(op.dims)[np.ix_(*picked)]
    assert isinstance(op, Slice)
    spans = zip(op.start, op.step, op.size, strict=True)
    grid = np.ix_(*[[a + i * b for i in range(n)] for a, b, n in spans])
    return lambda x: x[grid]

# SPDX-License-Identifier: Apache-2.0
"""Products of two activations, forward and backward, and the gradient of a softmax inside a model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Activation, ActivationDense, Graph, Matmul, Softmax
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array, ordered_sum

Floats = NDArray[np.float32]


def _views(op: Matmul, graph: Graph, a: Array, b: Array) -> tuple[Array, Array]:
    """Views of five dimensions: a [..., M, K] and b [..., N, K]."""
    shape_a, shape_b = op.shapes(graph)
    a, b = a.reshape(shape_a), b.reshape(shape_b)
    return (a.swapaxes(-1, -2) if op.adj_x else a), (b if op.adj_y else b.swapaxes(-1, -2))


def _centred(op: Matmul, graph: Graph, a: Array, b: Array) -> tuple[Array, Array]:
    left, right = _views(op, graph, a.astype(np.int64), b.astype(np.int64))
    return left - graph.tensors[op.inputs[0]].z, right - graph.tensors[op.inputs[1]].z


def _activation(op: Matmul) -> Activation:
    return op.activation if isinstance(op, ActivationDense) else Activation.NONE


def matmul_forward(op: Matmul, graph: Graph, a: Array, b: Array) -> Array:
    """BATCH_MATMUL: double rounding by fl32(s_a s_b) / s_y; FULLY_CONNECTED: half away from zero, in binary64."""
    ta, tb, ty = (graph.tensors[i] for i in (*op.inputs[:2], op.output))
    left, right = _centred(op, graph, a, b)
    acc = left @ right.swapaxes(-1, -2)
    if isinstance(op, ActivationDense):
        bias = None if op.bias is None else graph.tensors[op.bias].data
        acc = acc + (0 if bias is None else bias.astype(np.int64).ravel())
        value = requant.half_away(acc, requant.output_scales(ta, tb, ty, acc.shape[-1]))
    else:
        value = requant.double_rounding(acc, [float(F32(ta.s * tb.s)) / float(ty.s)] * acc.shape[-1])
    return requant.to_output(value, ty, _activation(op)).reshape(ty.shape)


def matmul_backward(
    op: Matmul, graph: Graph, a: Array, b: Array, y: Array, g: Floats, into: list[Floats | None]
) -> None:
    """``into``: gradients of a and b, in their shapes. da takes its terms over j, db over i, matrix after matrix."""
    ta, tb, ty = (graph.tensors[i] for i in (*op.inputs[:2], op.output))
    left, right = (v.astype(F32) for v in _centred(op, graph, a, b))
    batch = np.broadcast_shapes(left.shape[:3], right.shape[:3])
    g = requant.masked(g, y, ty, _activation(op)).reshape(*batch, left.shape[3], right.shape[3])
    da, db = into
    for target, is_a in ((da, True), (db, False)):
        if target is None:
            continue
        views = _views(op, graph, *((target, b) if is_a else (a, target)))
        out, other = views[0 if is_a else 1], right if is_a else left
        scale = tb.s if is_a else ta.s
        for n in np.ndindex(*batch):
            term = (scale * (g[n] if is_a else g[n].T)).astype(F32)  # [results, summed]
            into_n, other_n = out[_within(out, n)], other[_within(other, n)]
            for j in range(term.shape[1]):
                into_n += term[:, j : j + 1] * other_n[j]


def _within(array: Array, n: tuple[int, ...]) -> tuple[int, ...]:
    """Index of a matrix in an array whose dimensions of size 1 are broadcast."""
    return tuple(0 if size == 1 else i for size, i in zip(array.shape[:3], n, strict=True))


def softmax_backward(op: Softmax, graph: Graph, y: Array, g: Floats, dx: Floats) -> None:
    """dx += (beta p) (g - sum g p), p from the int8 output."""
    ty = graph.tensors[op.output]
    g = requant.masked(g, y, ty, Activation.NONE)
    p = (y.astype(np.int64) + 128).astype(F32) * F32(1 / 256)
    total = ordered_sum(g * p, axis=-1)[..., None]
    dx += (F32(op.beta) * p) * (g - total)

# SPDX-License-Identifier: Apache-2.0
"""Two operands with broadcasting, and tables: forward in integers, backward in real units.

A broadcast operand's gradient is summed in the output's row-major order, onto what the buffer holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Activation, Add, Binary, Graph, Lookup, Maximum, Minimum, Mul, Prelu, Sub, Tensor
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array

Floats = NDArray[np.float32]
ADD_LEFT_SHIFT, SQUARE_LEFT_SHIFT = 20, 7


def _rescaled(values: Array, tensor: Tensor, twice: float, left_shift: int) -> Array:
    shifted = (values.astype(np.int64) - tensor.z) << left_shift
    return requant.multiply(shifted, *requant.quantize_multiplier(float(tensor.s) / twice))


def forward(op: Binary, graph: Graph, a: Array, b: Array) -> Array:
    """y in the output's shape."""
    ta, tb, ty = (graph.tensors[i] for i in (*op.inputs, op.output))
    if isinstance(op, Maximum | Minimum):
        return np.maximum(a, b) if isinstance(op, Maximum) else np.minimum(a, b)
    left, right = a.astype(np.int64) - ta.z, b.astype(np.int64) - tb.z
    if isinstance(op, Mul):
        value = requant.multiply(left * right, *requant.quantize_multiplier(float(ta.s * tb.s / ty.s)))
    elif isinstance(op, Prelu):
        straight = requant.multiply(left, *requant.quantize_multiplier(float(ta.s / ty.s)))
        bent = requant.multiply(left * right, *requant.quantize_multiplier(float(ta.s * tb.s / ty.s)))
        value = np.where(np.broadcast_to(left >= 0, bent.shape), straight, bent)
    else:
        twice = 2.0 * max(float(ta.s), float(tb.s))
        bits = ADD_LEFT_SHIFT if isinstance(op, Add | Sub) else SQUARE_LEFT_SHIFT
        x, z = _rescaled(a, ta, twice, bits), _rescaled(b, tb, twice, bits)
        if isinstance(op, Add | Sub):
            total, real = (x + z if isinstance(op, Add) else x - z), twice / (2.0**bits * float(ty.s))
        else:
            total, real = (x - z) ** 2, twice * twice / (2.0 ** (2 * bits) * float(ty.s))
        value = requant.multiply(total, *requant.quantize_multiplier(real))
    return requant.to_output(value, ty, op.activation)


def _real(values: Array, tensor: Tensor) -> Floats:
    return np.asarray(tensor.s * (values.astype(np.int64) - tensor.z).astype(F32), F32)


def _scatter(terms: Floats, dx: Floats, chosen: Array | None = None) -> None:
    """dx += terms, in row-major order of ``terms`` where an element of dx takes several."""
    index = np.broadcast_to(np.arange(dx.size).reshape(dx.shape), terms.shape).ravel()
    flat = dx.reshape(-1)
    take = np.ones(terms.shape, np.bool_) if chosen is None else chosen
    np.add.at(flat, index[take.ravel()], terms.ravel()[take.ravel()])


def backward(
    op: Binary, graph: Graph, values: tuple[Array, Array, Array], g: Floats, into: list[Floats | None]
) -> None:
    """``values`` are a, b, y; ``into`` the gradients of the data inputs, None where none is wanted."""
    a, b, y = values
    ta, tb, ty = (graph.tensors[i] for i in (*op.inputs, op.output))
    if isinstance(op, Maximum | Minimum):
        left, right = np.broadcast_to(a, g.shape).astype(int), np.broadcast_to(b, g.shape).astype(int)
        first = left >= right if isinstance(op, Maximum) else left <= right
        for dx, taken in zip(into, (first, ~first), strict=True):
            if dx is not None:
                _scatter(g, dx, taken)
        return
    g = requant.masked(g, y, ty, op.activation)
    for dx, terms in zip(into, _terms(op, g, (a, b), (ta, tb)), strict=False):
        if dx is not None:
            _scatter(np.broadcast_to(terms, g.shape).astype(F32), dx)


def _terms(op: Binary, g: Floats, operands: tuple[Array, Array], tensors: tuple[Tensor, Tensor]) -> tuple[Floats, ...]:
    (a, b), (ta, tb) = operands, tensors
    if isinstance(op, Add):
        return g, g
    if isinstance(op, Sub):
        return g, -g
    if isinstance(op, Mul):
        return g * _real(b, tb), g * _real(a, ta)
    if isinstance(op, Prelu):
        return (np.where(a.astype(int) > ta.z, g, g * _real(b, tb)),)
    share = g * (F32(2) * (_real(a, ta) - _real(b, tb)))
    return share, -share


def lookup_forward(op: Lookup, x: Array) -> Array:
    return op.table.values[x.astype(np.int64) + 128]


def lookup_backward(op: Lookup, graph: Graph, x: Array, g: Floats, dx: Floats) -> None:
    """Rails mask; bounds of activations are slopes of 0."""
    at = x.astype(np.int64).ravel() + 128
    y = op.table.values[at]
    g = requant.masked(g.ravel(), y, graph.tensors[op.output], Activation.NONE)
    dx += (g * op.table.slopes[at]).reshape(dx.shape)

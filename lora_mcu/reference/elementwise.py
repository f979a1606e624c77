# SPDX-License-Identifier: Apache-2.0
"""ADD, PAD and the conversions between float32, int8 and uint8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Add, Dequantize, Graph, Pad, Quantize, Requantize
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array, add_in_order

ADD_LEFT_SHIFT = 20


def add_forward(op: Add, graph: Graph, a: Array, b: Array) -> Array:
    """Both inputs times 2^20 over 2 max(s_a, s_b), added, then over s_y."""
    ta, tb, ty = (graph.tensors[i] for i in (*op.inputs, op.output))
    twice = 2.0 * max(float(ta.s), float(tb.s))
    total: Array = np.zeros(ty.shape, np.int64)
    for tensor, values in ((ta, a), (tb, b)):
        shifted = (values.astype(np.int64) - tensor.z) << ADD_LEFT_SHIFT
        total = total + requant.multiply(shifted, *requant.quantize_multiplier(float(tensor.s) / twice)).reshape(
            values.shape if values.size > 1 else (1,)
        )
    out = requant.quantize_multiplier(twice / (2.0**ADD_LEFT_SHIFT * float(ty.s)))
    return requant.to_output(requant.multiply(total, *out), ty, op.activation)


def add_backward(
    op: Add, graph: Graph, y: Array, g: NDArray[np.float32], into: list[NDArray[np.float32] | None]
) -> None:
    """``into``: the inputs' gradients; a single element takes its sum in index order."""
    g = requant.masked(g, y, graph.tensors[op.output], op.activation)
    for dx in into:
        if dx is None:
            continue
        if dx.size == g.size:
            dx += g.reshape(dx.shape)
        else:
            add_in_order(dx.reshape(-1), g.reshape(-1, 1))


def pad_forward(op: Pad, x: Array) -> Array:
    return np.pad(x, list(zip(op.before, op.after, strict=True)), constant_values=op.value)


def pad_backward(op: Pad, g: NDArray[np.float32], dx: NDArray[np.float32]) -> None:
    dx += g[tuple(slice(b, b + d) for b, d in zip(op.before, dx.shape, strict=True))]


def quantize_forward(op: Quantize, graph: Graph, x: Array) -> Array:
    """round(x / scale) in float32, halves away from zero, plus zero point, saturated."""
    ty = graph.tensors[op.output]
    ratio = np.clip(x.astype(F32) / ty.s, F32(-(2.0**20)), F32(2.0**20)).reshape(ty.shape)
    magnitude = np.abs(ratio.astype(np.float64))
    whole = np.floor(magnitude + 0.5)
    return np.asarray(np.clip(np.where(ratio < 0, -whole, whole) + ty.z, -128, 127).astype(np.int8))


def dequantize_forward(op: Dequantize, graph: Graph, x: Array) -> Array:
    tx = graph.tensors[op.inputs[0]]
    return (tx.s * (x.astype(np.int64) - tx.z).astype(F32)).astype(F32).reshape(graph.tensors[op.output].shape)


def requantize_forward(op: Requantize, graph: Graph, x: Array) -> Array:
    tx, ty = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    pair = requant.quantize_multiplier(float(tx.s) / float(ty.s))
    value = requant.multiply(x.astype(np.int64) - tx.z, *pair) + ty.z
    limits = np.iinfo(ty.dtype)
    return np.asarray(np.clip(value, limits.min, limits.max).astype(ty.dtype)).reshape(ty.shape)

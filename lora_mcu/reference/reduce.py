# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes, TRANSPOSE_CONV as the scatter that it is, LOG_SOFTMAX."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Activation, Graph, LogSoftmax, ReduceMax, ReduceMean, ReduceSum, TransposeConv
from lora_mcu.ir.reduce import Reduction
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array, ordered_sum
from lora_mcu.reference.requant import INT32_MAX, divide_by_power, high_mul, multiply, quantize_multiplier
from lora_mcu.reference.softmax import INPUT_BITS, SUM_BITS, _constant, _times_power, exp_negative, reciprocal

Floats = NDArray[np.float32]


def _rows(op: Reduction, x: Array) -> Array:
    """[outputs, count]: the reduced axes last, in their order."""
    kept = [a for a in range(x.ndim) if a not in op.axes]
    moved = np.transpose(x, (*kept, *op.axes))
    return np.asarray(moved.reshape(math.prod(moved.shape[: len(kept)]), -1))


def forward(op: Reduction, graph: Graph, x: Array) -> Array:
    tx, ty = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    rows = _rows(op, x).astype(np.int64)
    if isinstance(op, ReduceMax):
        return np.asarray(rows.max(axis=1).astype(np.int8))
    total, count = rows.sum(axis=1), rows.shape[1]
    if isinstance(op, ReduceSum):
        scale = F32(tx.s / ty.s)
        value = total.astype(F32) * scale + (F32(-tx.z) * scale) * F32(count)
        magnitude = np.floor(np.abs(value.astype(np.float64)) + 0.5)
        return requant.to_output(np.where(value < 0, -magnitude, magnitude).astype(np.int64), ty, Activation.NONE)
    multiplier, shift = quantize_multiplier(float(tx.s) / float(ty.s))
    up = min(count.bit_length() - 1, 32, 31 + shift)
    out = multiply(total - count * tx.z, (multiplier << up) // count, shift - up)
    return requant.to_output(out, ty, Activation.NONE)


def backward(op: Reduction, graph: Graph, x: Array, y: Array, g: Floats, dx: Floats) -> None:
    where = _rows(op, np.arange(x.size).reshape(x.shape))
    flat = dx.reshape(-1)
    if isinstance(op, ReduceMax):
        flat[where[np.arange(len(where)), _rows(op, x).argmax(axis=1)]] += g.ravel()
        return
    g = requant.masked(g, y, graph.tensors[op.output], Activation.NONE)
    share = g.ravel() * (F32(1) / F32(where.shape[1]) if isinstance(op, ReduceMean) else F32(1))
    flat[where] += share[:, None]


def _reached(op: TransposeConv, index: tuple[int, int], out: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """(ky, kx, oy, ox) that an input pixel reaches inside the output."""
    win, found = op.window, []
    for ky in range(win.kernel[0]):
        for kx in range(win.kernel[1]):
            oy, ox = index[0] * win.stride[0] - win.pad_top + ky, index[1] * win.stride[1] - win.pad_left + kx
            if 0 <= oy < out[1] and 0 <= ox < out[2]:
                found.append((ky, kx, oy, ox))
    return found


def transpose_conv_forward(op: TransposeConv, graph: Graph, x: Array) -> Array:
    tx, tw, ty = (graph.tensors[i] for i in (op.inputs[0], op.weights, op.output))
    assert tw.data is not None
    acc, weights = np.zeros(ty.shape, np.int64), tw.data.astype(np.int64)
    if op.bias is not None:
        bias = graph.tensors[op.bias].data
        assert bias is not None
        acc += bias.astype(np.int64).ravel()
    for iy, ix in np.ndindex(x.shape[1], x.shape[2]):
        value = x[0, iy, ix].astype(np.int64) - tx.z
        for ky, kx, oy, ox in _reached(op, (iy, ix), ty.shape):
            acc[0, oy, ox] += weights[:, ky, kx] @ value
    scales = requant.output_scales(tx, tw, ty, ty.shape[3])
    return requant.to_output(requant.double_rounding(acc, scales), ty, op.activation)


def transpose_conv_backward(op: TransposeConv, graph: Graph, y: Array, g: Floats, dx: Floats) -> None:
    """An input pixel meets its outputs in row-major order: taps ascending."""
    tw, ty = graph.tensors[op.weights], graph.tensors[op.output]
    assert tw.data is not None
    scaled = (np.broadcast_to(tw.scale, (ty.shape[3],)) * requant.masked(g, y, ty, op.activation)).astype(F32)
    weights = tw.data.astype(F32)
    for iy, ix in np.ndindex(dx.shape[1], dx.shape[2]):
        for ky, kx, oy, ox in _reached(op, (iy, ix), ty.shape):
            dx[0, iy, ix] += ordered_sum(scaled[0, oy, ox][:, None] * weights[:, ky, kx], axis=0)


def _logarithm(z: Array) -> Array:
    """log(z) with 5 integer bits, z >= 1 with 12: of two splits of z into 2^e r the smaller r, then a quotient in r."""
    fourth = math.sqrt(math.sqrt(2.0))
    leading = 32 - _bits(z)
    half = _constant(math.sqrt(0.5), 0)
    headroom = 31 - _bits(high_mul(z, half))
    r = np.minimum(_times_power(high_mul(z << (leading - 1), half), 1), np.minimum(z << headroom, INT32_MAX))
    unit = 1 << 25
    power = np.maximum((SUM_BITS - leading) * unit + unit // 4, (SUM_BITS - headroom) * unit - unit // 4)
    center = _constant(1 / fourth, 0)
    q = 2 * (r - center)
    square = high_mul(q, q)
    numerator = high_mul(q, r) + high_mul(high_mul(q, square), _constant(11 / 240 * fourth, 0))
    inner = _constant(2 / fourth - fourth, 0) + q + high_mul(square, _constant(fourth / 20, 0))
    denominator = high_mul((r + center + 1) // 2, inner) + high_mul(q, _constant(fourth / 4, 0))
    fraction = high_mul(divide_by_power(numerator, 6), reciprocal(denominator))
    return _times_power(high_mul(power, _constant(math.log(2.0), 0)) + fraction, 1)


def _bits(x: Array) -> Array:
    return np.array([[int(v).bit_length()] for v in x.ravel()])


def log_softmax_forward(op: LogSoftmax, graph: Graph, x: Array) -> Array:
    tx = graph.tensors[op.inputs[0]]
    scaling, left = quantize_multiplier(min(float(tx.s) * 2.0 ** (31 - INPUT_BITS), 2.0**31 - 1))
    least = -math.floor((2**INPUT_BITS - 1) * 2.0 ** (31 - INPUT_BITS) / 2.0**left)
    undo = quantize_multiplier(2.0 ** (31 - left) / scaling)
    values = x.reshape(-1, tx.shape[-1]).astype(np.int64)
    difference = values - values.max(axis=1, keepdims=True)
    counted = difference >= least
    scaled = multiply(np.where(counted, difference, 0), scaling, left)
    powers = np.where(counted, exp_negative(scaled), 0)
    logs = _logarithm(divide_by_power(powers, SUM_BITS).sum(axis=1, keepdims=True))
    limit = np.maximum(least - 1, multiply(logs - 2**31, *undo))
    out = divide_by_power(scaled - logs, 31 - INPUT_BITS - 4) + 127
    return np.where(difference > limit, np.clip(out, -128, 127), -128).astype(np.int8)

# SPDX-License-Identifier: Apache-2.0
"""Average and maximum pooling over the valid part of each window, and MEAN over a run of axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Activation, AveragePool, Graph, MaxPool, Mean
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array
from lora_mcu.reference.weighted import positions, taps


def forward(op: AveragePool | MaxPool, graph: Graph, x: Array) -> Array:
    ty = graph.tensors[op.output]
    y = np.zeros(ty.shape, np.int64)
    for oy, ox in positions(ty.shape):
        values = np.stack([x[0, iy, ix] for _, _, iy, ix in taps(op.window, (oy, ox), x.shape[1:3])]).astype(np.int64)
        if isinstance(op, MaxPool):
            y[0, oy, ox] = values.max(axis=0)
        else:
            total, count = values.sum(axis=0), len(values)
            magnitude = (np.abs(total) + count // 2) // count
            y[0, oy, ox] = np.where(total < 0, -magnitude, magnitude)
    low, high = ty.clamp(op.activation)
    return np.clip(y, low, high).astype(np.int8)


def backward(
    op: AveragePool | MaxPool, graph: Graph, x: Array, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32]
) -> None:
    """A maximum's gradient goes to the first of the largest in row-major order."""
    ty = graph.tensors[op.output]
    g = requant.masked(g, y, ty, op.activation)
    channels = np.arange(ty.shape[3])
    for oy, ox in positions(ty.shape):
        inside = [(iy, ix) for _, _, iy, ix in taps(op.window, (oy, ox), x.shape[1:3])]
        if isinstance(op, AveragePool):
            share = g[0, oy, ox] * (F32(1) / F32(len(inside)))
            for iy, ix in inside:
                dx[0, iy, ix] += share
        else:
            first = np.stack([x[0, iy, ix] for iy, ix in inside]).argmax(axis=0)
            rows, columns = np.array(inside)[first].T
            dx[0, rows, columns, channels] += g[0, oy, ox]


def mean_forward(op: Mean, graph: Graph, x: Array) -> Array:
    """The oracle folds the count into the multiplier: m' = (m << n) / count, n = floor(log2(count)), in integers."""
    tx, ty = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    outer, count, inner = op.split(graph)
    total = x.reshape(outer, count, inner).astype(np.int64).sum(axis=1) - count * tx.z
    multiplier, shift = requant.quantize_multiplier(float(tx.s) / float(ty.s))
    up = min(count.bit_length() - 1, 32, 31 + shift)
    value = requant.multiply(total, (multiplier << up) // count, shift - up)
    return requant.to_output(value, ty, Activation.NONE).reshape(ty.shape)


def mean_backward(op: Mean, graph: Graph, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32]) -> None:
    outer, count, inner = op.split(graph)
    g = requant.masked(g, y, graph.tensors[op.output], Activation.NONE).reshape(outer, 1, inner)
    dx += np.broadcast_to(g * (F32(1) / F32(count)), (outer, count, inner)).reshape(dx.shape)

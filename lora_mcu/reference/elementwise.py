# SPDX-License-Identifier: Apache-2.0
"""PAD and the conversions between float32, int8 and uint8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Dequantize, Graph, Pad, Quantize, Requantize
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array


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


def requantize_backward(
    op: Requantize, graph: Graph, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32]
) -> None:
    """Passes through; a rail of the output's dtype stops what would push further out."""
    limits = np.iinfo(graph.tensors[op.output].dtype)
    stopped = ((y == limits.max) & (g < 0)) | ((y == limits.min) & (g > 0))
    dx += np.where(stopped, F32(0), g).reshape(dx.shape)

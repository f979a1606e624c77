# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing, as a sum over four neighbours of every position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Activation, Graph, ResizeBilinear
from lora_mcu.reference import requant
from lora_mcu.reference.ordered import F32, Array


def _neighbours(op: ResizeBilinear) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """(output row, output column, [(input row, input column, weight of 2^20)]) in row-major order."""
    for oy, (top, bottom, v) in enumerate(op.rows):
        for ox, (left, right, h) in enumerate(op.columns):
            yield oy, ox, [(iy, ix, a * b) for iy, a in ((top, 1024 - v), (bottom, v))
                           for ix, b in ((left, 1024 - h), (right, h))]  # fmt: skip


def forward(op: ResizeBilinear, x: Array) -> Array:
    y = np.zeros((1, len(op.rows), len(op.columns), x.shape[3]), np.int64)
    for oy, ox, found in _neighbours(op):
        y[0, oy, ox] = sum(x[0, iy, ix].astype(np.int64) * weight for iy, ix, weight in found)
    return np.asarray(np.sign(y) * ((np.abs(y) + (1 << 19)) >> 20), np.int8)


def backward(op: ResizeBilinear, graph: Graph, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32]) -> None:
    g = requant.masked(g, y, graph.tensors[op.output], Activation.NONE)
    for oy, ox, found in _neighbours(op):
        for iy, ix, weight in found:
            dx[0, iy, ix] += g[0, oy, ox] * F32(weight / 2**20)

# SPDX-License-Identifier: Apache-2.0
"""Mode i16: tables of block-scaled factors, random words of quantized gradients, integer sums (docs/numerics.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Conv2D, Dense, Depthwise, Graph
from lora_mcu.passes.adapters import Adaptation, AdaptedLayer
from lora_mcu.passes.gradient import BackwardOp

TABLE_HEAD = 4  # int16 elements: the units of A and B, and room up to 8 bytes
MAX_OUTPUTS = 65535  # an output's index is kept in 16 bits
NUMERICS = ("f32", "i16")

Weighted = Conv2D | Dense | Depthwise


def table_elements(layer: AdaptedLayer, rank: int) -> int:
    """int16 elements of a layer's table: head, A [rank, K to a multiple of 4], B [M, rank to a multiple of 2]."""
    size = TABLE_HEAD + rank * _up(layer.k, 4) + layer.m * _up(rank, 2)
    return _up(size, 4)


def table_offset(layer: AdaptedLayer, adaptation: Adaptation) -> int:
    """Where a layer's table begins, in elements."""
    before = adaptation.layers[: adaptation.layers.index(layer)]
    return sum(table_elements(x, adaptation.rank) for x in before)


def tables_elements(adaptation: Adaptation) -> int:
    return sum(table_elements(x, adaptation.rank) for x in adaptation.layers)


def positions(op: Weighted, graph: Graph) -> int:
    """Output positions: rows of a dense layer's batch, pixels of a convolution."""
    y = graph.tensors[op.output]
    return op.batch(graph) if isinstance(op, Dense) else y.elements // y.shape[-1]


@dataclass(frozen=True)
class Randomness:
    """The random words of one sample's backward pass: each layer's first, and how many there are."""

    first: dict[int, int]  # by operator index
    words: int


def randomness(graph: Graph, backward: Sequence[BackwardOp], adaptation: Adaptation, shared: set[int]) -> Randomness:
    """Half a word a gradient (of one position where all share it), then half a word an element of h.

    Raises ModelError for a layer with more outputs than an index of the kernels counts.
    """
    first, words = {}, 0
    for b in backward:
        if not isinstance(b.op, Conv2D | Dense | Depthwise):
            continue
        y = graph.tensors[b.op.output]
        if y.shape[-1] > MAX_OUTPUTS:
            raise b.op.refuse(
                graph, f"has {y.shape[-1]:,} outputs, numerics i16 trains {MAX_OUTPUTS:,}; use numerics f32"
            )
        first[b.op.index] = words
        rows = 1 if b.op.output in shared else positions(b.op, graph)
        words += _up(rows * y.shape[-1], 2) // 2
        if adaptation.of(b.op) is not None:
            words += _up(positions(b.op, graph) * adaptation.rank, 2) // 2
    return Randomness(first, words)


def weight_scales(scales: NDArray[np.float32]) -> tuple[NDArray[np.int16], int]:
    """S int16 and e with s_w[o] ~ S[o] * 2^e, rounded half up, the largest S in 2^14 .. 2^15 - 1."""
    exponent = whole(float(scales.max()))[1]
    rounded = np.floor(np.ldexp(scales.astype(np.float64), -exponent) + 0.5)
    return np.minimum(rounded, 32767).astype(np.int16), exponent


def whole(value: float) -> tuple[int, int]:
    """n and e with value ~ n * 2^e, rounded half up, n in 2^14 .. 2^15 - 1."""
    exponent = math.frexp(value)[1] - 15
    return min(math.floor(math.ldexp(value, -exponent) + 0.5), 32767), exponent


def output_factors(c: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """n int32 and e int8 with c[o] = n[o] * 2^(e[o] - 32) exactly, n in 2^30 .. 2^31 - 1."""
    mantissa, exponent = np.frexp(c.astype(np.float64))
    return np.ldexp(mantissa, 31).astype(np.int32), np.clip(exponent + 1, -128, 127).astype(np.int8)


def backward_bytes(op: Conv2D | Dense, graph: Graph, adaptation: Adaptation) -> int:
    """Scratch beyond patches and W^T g: listed outputs, and where there are several positions the sums of dA and dB."""
    weights = graph.tensors[op.weights]
    m, k = weights.shape[0], weights.elements // weights.shape[0]
    sums = adaptation.of(op) is not None and positions(op, graph) > 1
    return _up(2 * m, 4) + (4 * adaptation.rank * (k + m) if sums else 0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

# SPDX-License-Identifier: Apache-2.0
"""Mode i16: dense, convolution and depthwise layers, their adapters forward and all of them backward, in integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_mcu.random_bits import STREAM_GRADIENT, rand
from lora_mcu.reference.ordered import F32, Array

Floats = NDArray[np.float32]
MOST = 2**31 - 1


def log2_up(value: int) -> int:
    """The smallest n with 2^n >= value."""
    return (value - 1).bit_length()


def sum_bits(terms: int) -> int:
    """Bits, at most 15, of integers that ``terms`` products with patch values (abs <= 255) sum up in int32 of."""
    return min(15, (MOST // (255 * terms) + 1).bit_length() - 1)


def fixed(values: Array, unit: int, bits: int) -> Array:
    """Binary16 ``values`` in units of 2^unit, rounded half away from zero, at most 2^bits - 1."""
    scaled = np.ldexp(np.abs(values.astype(np.float64)), -unit)
    whole = np.minimum(np.floor(scaled + 0.5), 2**bits - 1).astype(np.int64)
    return np.asarray(np.where(np.signbit(values), -whole, whole))


def exponent_of(values: Array) -> int:
    """The exponent field of the largest binary16 magnitude, 1 for subnormals and zero."""
    most = int(np.max(values.view(np.uint16) & 0x7FFF, initial=0))
    return max(1, most >> 10)


def normalized(value: float, bits: int) -> tuple[int, int]:
    """n, e: value ~ n * 2^e, rounded half up, n in 2^(bits - 1) .. 2^bits - 1."""
    exponent = math.frexp(value)[1] - bits
    return min(math.floor(math.ldexp(value, -exponent) + 0.5), 2**bits - 1), exponent


def in_units(sums: Array, exponent: int) -> Floats:
    """Integer sums times 2^exponent, which is limited to normal float32."""
    return np.asarray(sums.astype(F32) * F32(2.0 ** min(max(exponent, -126), 127)), F32)


@dataclass
class Factors:
    """One layer's factors as binary16, ``a`` [r, K] and ``b`` [M, r]; ``da`` and ``db`` are the open batch's sums."""

    a: NDArray[np.float16]
    b: NDArray[np.float16]
    da: Floats
    db: Floats
    gamma: np.float32
    input_scale: np.float32
    c: Floats  # [M] fl32(gamma / s_w[o])

    def __post_init__(self) -> None:
        self.rank, self.k = self.a.shape
        self.a_bits, self.b_bits = sum_bits(self.k), 15 - log2_up(self.rank)
        self.a_unit = exponent_of(self.a) - 14 - self.a_bits
        self.b_unit = exponent_of(self.b) - 14 - self.b_bits
        self.a_whole = fixed(self.a, self.a_unit, self.a_bits)
        self.b_whole = fixed(self.b, self.b_unit, self.b_bits)

    def delta(self, patches: Array) -> Array:
        """The integers [P, M] that the adapter adds to the accumulators."""
        t = patches @ self.a_whole.T
        found = np.zeros((len(patches), len(self.b_whole)), np.int64)
        factors = [normalized(float(min(c, np.finfo(np.float32).max)), 31) for c in self.c]
        for p, row in enumerate(t):
            shift = max(0, int(np.bitwise_or.reduce(row ^ (row >> 63))).bit_length() - 15)
            sums = self.b_whole @ (row >> shift)
            for o, (whole, exponent) in enumerate(factors):
                high = (int(sums[o]) * whole + 2**31) >> 32
                found[p, o] = _steps(high, shift + self.a_unit + self.b_unit + exponent + 32)
        return found


def _steps(high: int, exponent: int) -> int:
    """high * 2^exponent to the nearest integer, halves up; where it grows, within +-2^30."""
    if exponent < 0:
        return (high + 2 ** (-exponent - 1)) >> -exponent if exponent > -31 else 0
    return max(-(2**30), min(2**30, high << min(exponent, 62)))


@dataclass(frozen=True)
class Draw:
    """Where a layer's random bits of one sample come from: word ``first`` on of the stream of gradients."""

    seed: int
    step: int
    first: int

    def halves(self, start: int, count: int) -> Array:
        """16 bits each for the elements start .. start + count; two share a word."""
        index = start + np.arange(count)
        words = rand(self.seed, STREAM_GRADIENT, self.step, (self.first + (index >> 1)).astype(np.uint64) & 0xFFFFFFFF)
        return np.where(index & 1, words >> np.uint32(16), words & np.uint32(0xFFFF)).astype(np.int64)


@dataclass(frozen=True)
class Quantized:
    """g [rows, M] as G * 2^unit, and V * 2^v_unit ~ s_w[o] * g."""

    g: Array
    v: Array
    unit: int
    v_unit: int


def quantize(g: Floats, scales: Floats, terms: int, draw: Draw) -> Quantized | None:
    """Random rounding with the largest exponent's unit; ``terms`` products with weights stay below 2^30.

    None: all zero or subnormal. Values must be finite.
    """
    bits = g.view(np.uint32)
    exponents = (bits >> np.uint32(23)).astype(np.int64) & 255
    top = int(exponents.max())
    if top == 0:
        return None
    unit, extra = top - 141, max(0, log2_up(terms) - 7)
    fraction = np.floor(np.ldexp(np.abs(g.astype(np.float64)), 16 - unit)) * (exponents > 0)
    magnitude = (fraction.astype(np.int64) + draw.halves(0, g.size).reshape(g.shape) * (exponents > 0)) >> 16
    magnitude = np.where(top - exponents > 31, 0, np.minimum(magnitude, 32767))
    whole = np.where(np.signbit(g), -magnitude, magnitude)
    _, exponent = normalized(float(scales.max()), 15)
    s = np.minimum(np.floor(np.ldexp(scales.astype(np.float64), -exponent) + 0.5), 32767).astype(np.int64)
    v = (whole * s + 2 ** (14 + extra)) >> (15 + extra)
    return Quantized(whole, v, unit, unit + exponent + 15 + extra)


def adapter_gradients(
    f: Factors, patches: Array, q: Quantized, rows: Array, largest: int, draw: Draw
) -> tuple[Array, int]:
    """Adds dA and dB of all positions; returns A^T h [P, K] and the exponent of its unit.

    ``rows`` is G [P, M] after masking, ``largest`` the greatest row sum of abs(G) before.
    """
    positions, rank_bits = len(patches), log2_up(f.rank)
    t = patches @ f.a_whole.T
    shift = 31 - (255 * f.k * (2**f.a_bits - 1)).bit_length() - log2_up(positions)
    step, step_exponent = normalized(float(f.gamma) * float(f.input_scale), 15)
    t_shifted = ((t << shift if shift >= 0 else t >> -shift) * step) >> 15
    db = ((t_shifted[:, None, :] * rows[:, :, None]) >> 16).sum(axis=0)
    gamma, gamma_exponent = normalized(float(f.gamma), 15)
    h_bits = min(sum_bits(positions), 30 - f.a_bits - rank_bits)
    h_shift = max(0, (largest << (30 - rank_bits)).bit_length() - h_bits)
    random = draw.halves(q.g.size + (q.g.size & 1), positions * f.rank).reshape(positions, f.rank)
    h = np.zeros((positions, f.rank), np.int64)
    for p in np.flatnonzero(rows.any(axis=1)):
        for j in range(f.rank):
            exact = int(rows[p] @ f.b_whole[:, j]) * gamma + ((int(random[p, j]) << h_shift) >> 16)
            h[p, j] = max(-(2**h_bits) + 1, min(2**h_bits - 1, exact >> h_shift))
    h_unit = q.unit + f.b_unit + gamma_exponent + h_shift
    s_x, s_x_exponent = normalized(float(f.input_scale), 15)
    f.da += in_units(((h * s_x + 2**14) >> 15).T @ patches, h_unit + s_x_exponent + 15)
    f.db += in_units(db, q.unit + f.a_unit - shift + step_exponent + 15 + 16)
    return h @ f.a_whole, f.a_unit + h_unit


def values(direct: Array, unit: int, beside: Array | None, beside_unit: int) -> Floats:
    """W^T V (+ A^T h, brought to the larger of the two units) as float32 in real units."""
    if beside is not None:
        align = beside_unit - unit
        direct = (direct >> min(31, max(0, align))) + (beside >> min(31, max(0, -align)))
        unit += max(0, align)
    return in_units(direct, unit)

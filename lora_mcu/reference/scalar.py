# SPDX-License-Identifier: Apache-2.0
"""Exponential, logarithm and binary16 rounding as the contract defines them, on float32 arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.reference.ordered import F32

Floats = NDArray[np.float32]

LN2_HIGH, LN2_LOW = F32(float.fromhex("0x1.63p-1")), F32(float.fromhex("-0x1.bd0106p-13"))
LOG2_E = F32(float.fromhex("0x1.715476p+0"))
# 1/7! … 1/2!, each rounded to float32
_EXP = [F32(1 / d) for d in (5040, 720, 120, 24, 6, 2)]
# 2/11, 2/9, 2/7, 2/5, 2/3
_LOG = [F32(2 / d) for d in (11, 9, 7, 5, 3)]
HALF_MAX = 65504.0


def exp(x: Floats) -> Floats:
    """exp(x) = 2^n exp(r), n = nearest integer of x / ln 2; 0 below 2^-126, infinity above the range."""
    x = np.asarray(x, F32)
    inner = np.where((x > -88) & ~(x > F32(float.fromhex("0x1.62e42ep+6"))), x, F32(0)).astype(F32)
    n = np.trunc(inner * LOG2_E + np.where(inner < 0, F32(-0.5), F32(0.5))).astype(F32)
    r = (inner - n * LN2_HIGH) - n * LN2_LOW
    q = np.full(x.shape, _EXP[0], F32)
    for c in _EXP[1:]:
        q = q * r + c
    y = F32(1) + (r + (r * r) * q)
    value = np.ldexp(y.astype(np.float64), n.astype(np.int64))  # exact
    value = np.where(value < 2.0**-126, 0.0, value)
    value = np.where(x > F32(float.fromhex("0x1.62e42ep+6")), np.inf, value)
    return np.where(x > -88, value, 0.0).astype(F32)


def log(x: np.float32) -> np.float32:
    """ln(2^k (1 + f)) for finite x > 0, sqrt(1/2) <= 1 + f < sqrt(2), through s = f / (2 + f)."""
    mantissa, exponent = np.frexp(np.float64(x))
    bits = np.array(mantissa * 2, F32).view(np.uint32)
    upper = int((bits & np.uint32(0x7FFFFF)) >= 0x3504F3)
    k = F32(int(exponent) - 1 + upper)
    f = F32(mantissa * 2 / (2 if upper else 1)) - F32(1)
    s = f / (F32(2) + f)
    z = s * s
    q = _LOG[0]
    for c in _LOG[1:]:
        q = q * z + c
    half_square = F32(0.5) * f * f
    inner = s * (half_square + q * z) + k * LN2_LOW
    return F32(k * LN2_HIGH - ((half_square - inner) - f))


def half_nearest(value: Floats) -> NDArray[np.uint16]:
    """Nearest binary16, ties to even, saturated at 65504; bits."""
    limited: Floats = np.clip(value, -HALF_MAX, HALF_MAX)
    bits: NDArray[np.uint16] = limited.astype(np.float16).view(np.uint16)
    return bits


def half_stochastic(value: Floats, random16: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """|value| truncated to binary16, one ulp more if (16 bits of the discarded fraction) + random16 >= 65536."""
    magnitude = np.minimum(np.abs(value.astype(np.float64)), 2.0 * HALF_MAX)
    exponent = np.frexp(magnitude)[1] - 1
    ulp = np.ldexp(1.0, np.maximum(exponent, -14) - 10)
    units = magnitude / ulp  # exact: a power of two
    whole = np.floor(units)
    fraction = np.floor((units - whole) * 65536)
    rounded = np.minimum((whole + (fraction + random16 >= 65536)) * ulp, HALF_MAX)
    bits: NDArray[np.uint16] = np.copysign(rounded, value).astype(np.float16).view(np.uint16)
    return bits

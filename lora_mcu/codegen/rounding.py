# SPDX-License-Identifier: Apache-2.0
"""Integer requantization of dense layers, proved equal to the oracle's double arithmetic at every threshold.

The oracle (LiteRT's reference FULLY_CONNECTED) rounds half away from zero the double product acc * m, with
m = double(s_x) * double(s_w) / double(s_y). The device computes sign(acc) * floor((|acc| * M + 2^(s-1)) / 2^s). Both
are odd and monotone, so they agree everywhere when they agree at the at most 255 accumulators where the output steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ModelError

ACC_MAX = 2**31 - 1
_BITS = 62
_CLOSE = 2.0**-48


def definition(acc: NDArray[np.float64], m: float) -> NDArray[np.float64]:
    """round(acc * m), half away from zero, in double. ``acc`` holds integers >= 0."""
    return np.floor(acc * m + 0.5) if m == 0 else _round_half_away(acc * m)


def _round_half_away(value: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.floor(value)
    return whole + (value - whole >= 0.5)  # exact, where floor(value + 0.5) would round the sum


def thresholds(m: float, steps: int = 255) -> NDArray[np.int64]:
    """Smallest acc >= 0 with definition(acc) >= n, for n = 1..steps, as far as it is below 2^31."""
    n = np.arange(1, steps + 1, dtype=np.float64)
    with np.errstate(over="ignore"):  # infinite ones are left out
        estimate = (n - 0.5) / m
    n, estimate = n[estimate <= ACC_MAX + 4.0], estimate[estimate <= ACC_MAX + 4.0]
    acc = np.maximum(np.ceil(estimate), 1.0)
    while (low := definition(acc - 1, m) >= n).any():
        acc = np.where(low, acc - 1, acc)
    while (high := definition(acc, m) < n).any():
        acc = np.where(high, acc + 1, acc)
    return acc[acc <= ACC_MAX].astype(np.int64)


def multiplier(m: float) -> tuple[int, int]:
    """The pair (M, s), M < 2^62 and 33 <= s <= 95, whose integer form equals the definition for all |acc| < 2^31.

    Raises ModelError when none exists (no real scale is known to cause this).
    """
    if not (math.isfinite(m) and 0 < m < 2**20):
        raise ModelError(f"a dense layer rescales by {m}; scales of input, weights and output do not fit together")
    shift = min(95, _BITS - math.frexp(m)[1])
    low, high = _range(thresholds(m), shift)
    high = min(high, 2**_BITS - 1)
    best = min(max(int(math.ldexp(m, shift)), low), high)
    if not low <= best <= high:
        raise ModelError(f"no integer multiplier reproduces the double rescaling by {m}")
    return best, shift


def quick(m: float, limit: int = ACC_MAX) -> tuple[int, int] | None:
    """The pair (M, s), M < 2^31 and 0 <= s <= 20, with floor(floor(acc * M / 2^32) / 2^(s+1) + 1/2) equal to the
    definition for |acc| <= limit < 2^31, as far as it lies within -255 .. 255; None where there is none.

    A tie must not occur: below 0 it would round up. So M * threshold lies above the edge, M * (threshold - 1) below.
    """
    shift = min(20, -2 - math.frexp(m)[1])
    if shift < 0:
        return None
    t = thresholds(m)
    low, high = _range(t[t <= limit], shift + 33, ties=False)
    best = min(max(math.ceil(math.ldexp(m, shift + 33)), low), high, 2**31 - 1)
    return (best, shift) if low <= best else None


def pair(m: float, limit: int = ACC_MAX) -> tuple[int, int]:
    """Multiplier and shift as lmcu_round_t holds them: the quick form, whose shift is 0, or else the wide one."""
    if not (math.isfinite(m) and m > 0) or (found := quick(m, limit)) is None:
        return multiplier(m)
    return found[0] | found[1] << 32, 0


def _range(t: NDArray[np.int64], shift: int, *, ties: bool = True) -> tuple[int, int]:
    """The least and greatest M with t[n-1] * M >= (2n-1) * 2^(shift-1) > (t[n-1] - 1) * M; > without ``ties``."""
    low, high = 0, 2**64
    odd = 2 * np.arange(1, len(t) + 1) - 1
    below = odd / t  # M is edge / t at least, and less than edge / (t - 1)
    above = np.divide(odd, t - 1, out=np.full(len(t), np.inf), where=t > 1)
    tight = (below >= np.max(below, initial=0) * (1 - _CLOSE)) | (above <= np.min(above, initial=np.inf) * (1 + _CLOSE))
    for n, at in zip(odd[tight].tolist(), t[tight].tolist(), strict=True):  # exact, where rounding could hide which
        edge = n << (shift - 1)
        low = max(low, -(-edge // at) if ties else edge // at + 1)
        if at > 1:
            high = min(high, (edge - 1) // (at - 1))
    return low, high

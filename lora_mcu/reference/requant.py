# SPDX-License-Identifier: Apache-2.0
"""Requantization as the oracle defines it (ai-edge-litert 2.3.0, reference kernels), on int64 arrays.

Sources: gemmlowp's fixedpoint.h (SaturatingRoundingDoublingHighMul, RoundingDivideByPOT) and TFLite's
QuantizeMultiplier, MultiplyByQuantizedMultiplier; the double rule of FULLY_CONNECTED as DESIGN section 3 states it.
"""

from __future__ import annotations

import math

import numpy as np

from lora_mcu.ir import Activation, Tensor
from lora_mcu.reference.ordered import Array

INT32_MAX = 2**31 - 1


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``real`` as (q, shift): q / 2^31 * 2^shift, q = round(mantissa * 2^31), halves away from zero."""
    if real == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(real)
    q = int(math.floor(mantissa * 2**31 + 0.5))
    if q == 2**31:
        q, shift = q // 2, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def high_mul(a: Array, b: Array | int) -> Array:
    """SaturatingRoundingDoublingHighMul: (a b + nudge) / 2^31, truncated; nudge 2^30, or 1 - 2^30 below zero."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    quotient = np.abs(nudged) >> 31
    return np.minimum(np.where(nudged < 0, -quotient, quotient), INT32_MAX)


def divide_by_power(x: Array, exponent: Array | int) -> Array:
    """RoundingDivideByPOT: x / 2^exponent, halves away from zero."""
    power = np.int64(1) << np.asarray(exponent, np.int64)
    magnitude = (np.abs(x) * 2 + power) // (2 * power)
    return np.asarray(np.where(x < 0, -magnitude, magnitude))


def multiply(x: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """MultiplyByQuantizedMultiplier with both roundings; x saturates where its left shift would leave int32."""
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    limit = INT32_MAX >> left
    return divide_by_power(high_mul(np.clip(x, -limit, limit) << left, multiplier), right)


def double_rounding(acc: Array, scales: list[float]) -> Array:
    """RQ of convolutions: ``acc`` [..., M] int64, one real scale per output."""
    pairs = [quantize_multiplier(s) for s in scales]
    return multiply(acc, np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))


def half_away(acc: Array, scales: list[float]) -> Array:
    """RQ of dense layers: round(double(acc) * scale), halves away from zero; far beyond int8 it saturates."""
    product = np.clip(acc, -INT32_MAX, INT32_MAX).astype(np.float64) * np.array(scales, np.float64)
    magnitude = np.abs(product)
    whole = np.floor(magnitude)
    rounded = np.minimum(whole + (magnitude - whole >= 0.5), 2.0**40)
    return np.asarray(np.where(product < 0, -rounded, rounded).astype(np.int64))


def output_scales(x: Tensor, w: Tensor, y: Tensor, channels: int) -> list[float]:
    """double(s_x) * double(s_w[o]) / double(s_y) for each output."""
    scales = np.broadcast_to(w.scale, (channels,))
    return [float(x.s) * float(s) / float(y.s) for s in scales]


def to_output(value: Array, y: Tensor, activation: Activation) -> Array:
    """clamp(value + z_y) as int8."""
    low, high = y.clamp(activation)
    return np.asarray(np.clip(value + y.z, low, high).astype(np.int8))


def masked(g: Array, y_q: Array, y: Tensor, activation: Activation) -> Array:
    """Straight-through: an activation's bound masks every gradient, the bare rail what would push further out."""
    low, high = y.clamp(activation)
    stop_high = (y_q >= high) & ((activation.high is not None) | (g < 0))
    stop_low = (y_q <= low) & ((activation.low is not None) | (g > 0))
    return np.where(stop_high | stop_low, np.float32(0), g).astype(np.float32)

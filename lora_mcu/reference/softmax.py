# SPDX-License-Identifier: Apache-2.0
"""Softmax int8 to int8 in fixed point, from the definitions of gemmlowp's fixedpoint.h and TFLite's reference kernel.

A raw int32 with n integer bits stands for raw / 2^(31 - n). Arrays are int64 that hold int32 values.
"""

from __future__ import annotations

import math

import numpy as np

from lora_mcu.ir import Graph, Softmax
from lora_mcu.reference.ordered import Array
from lora_mcu.reference.requant import INT32_MAX, divide_by_power, high_mul, quantize_multiplier

INPUT_BITS, SUM_BITS = 5, 12


def _constant(value: float, integer_bits: int) -> int:
    return min(int(math.floor(value * 2.0 ** (31 - integer_bits) + 0.5)), INT32_MAX)


def _times_power(x: Array, exponent: int) -> Array:
    return np.asarray(np.clip(x << exponent, -INT32_MAX - 1, INT32_MAX))


def _exp_last_quarter(a: Array) -> Array:
    """exp(a), -1/4 <= a < 0: Taylor's series to the fourth order around -1/8."""
    base = _constant(math.exp(-1 / 8), 0)
    x = a + _constant(1 / 8, 0)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    rest = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, _constant(1 / 3, 0)) + x2, 1)
    return np.asarray(np.minimum(base + high_mul(np.full_like(a, base), x + rest), INT32_MAX))


def exp_negative(a: Array) -> Array:
    """exp(a) with 0 integer bits, of a <= 0 with 5."""
    quarter = 1 << (31 - INPUT_BITS - 2)
    last = (a & (quarter - 1)) - quarter
    result = _exp_last_quarter(_times_power(last, INPUT_BITS))
    remainder = last - a
    for exponent in range(-2, INPUT_BITS):
        factor = _constant(math.exp(-(2.0**exponent)), 0)
        bit = 1 << (31 - INPUT_BITS + exponent)
        result = np.where(remainder & bit, high_mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def reciprocal(a: Array) -> Array:
    """1 / (1 + a), 0 <= a < 1, both with 0 integer bits: three Newton steps on half of it, x with 2 integer bits."""
    half = (a + INT32_MAX + 1) // 2
    x = _constant(48 / 17, 2) + high_mul(half, -_constant(32 / 17, 2))
    for _ in range(3):
        error = _constant(1.0, 2) - high_mul(half, x)
        x = x + _times_power(high_mul(x, error), 2)
    return _times_power(x, 1)


def forward(op: Softmax, graph: Graph, x: Array) -> Array:
    tx = graph.tensors[op.inputs[0]]
    real = min(op.beta * float(tx.s) * 2.0 ** (31 - INPUT_BITS), 2.0**31 - 1)
    multiplier, left = quantize_multiplier(real)
    least = -math.floor((2**INPUT_BITS - 1) * 2.0 ** (31 - INPUT_BITS) / 2.0**left)
    values = x.reshape(-1, tx.shape[-1]).astype(np.int64)
    difference = values - values.max(axis=1, keepdims=True)
    counted = difference >= least
    scaled = high_mul(np.where(counted, difference, 0) << left, multiplier)
    powers = np.where(counted, exp_negative(scaled), 0)
    total = divide_by_power(powers, SUM_BITS).sum(axis=1, keepdims=True)
    headroom = 32 - np.array([[int(v).bit_length()] for v in total.ravel()])
    inverse = reciprocal((total << headroom) - (1 << 31))
    out = divide_by_power(high_mul(inverse, powers), SUM_BITS - headroom + 31 - 8) - 128
    return np.where(counted, np.clip(out, -128, 127), -128).astype(np.int8).reshape(x.shape)

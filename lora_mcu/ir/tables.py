# SPDX-License-Identifier: Apache-2.0
"""int8 -> int8 tables of unary operators: for each of the 256 inputs what the oracle's reference kernel gives.

Scales are float32, and products and quotients of scales stay float32 where the oracle's do. Sources: TensorFlow Lite's
reference kernels (activations, elementwise, exp, gelu, hard_swish, leaky_relu, prelu), confirmed entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lora_mcu.codegen.quantmath import quantize_multiplier
from lora_mcu.ir import functions
from lora_mcu.ir.elementwise import Table
from lora_mcu.ir.functions import F32, Dual, Floats
from lora_mcu.ir.graph import Tensor
from lora_mcu.ir.ops import Activation

Ints = NDArray[np.int64]

INPUTS: Ints = np.arange(-128, 128)


def real(x: Tensor) -> Floats:
    """The 256 dequantized inputs: fl(s * (q - z))."""
    return (x.s * (INPUTS - x.z).astype(F32)).astype(F32)


def variable(x: Tensor) -> Dual:
    """The dequantized input as the variable that slopes refer to."""
    return Dual(real(x), np.ones(256))


def away(value: Floats) -> Floats:
    """Round half away from zero, float32; far values saturate, NaN becomes the lowest."""
    limited = np.where(np.isnan(value), F32(-(2.0**20)), np.clip(value, F32(-(2.0**20)), F32(2.0**20)))
    whole = np.trunc(limited)
    return (whole + np.where(np.abs(limited - whole) >= F32(0.5), np.sign(limited), F32(0))).astype(F32)


def _int8(values: NDArray[np.generic]) -> NDArray[np.int8]:
    return np.clip(values.astype(np.int64), -128, 127).astype(np.int8)


def quantized(made: Dual, y: Tensor) -> Table:
    """QUANTIZE of float32 values: round(fl(v / s_y)) + z_y."""
    return Table(_int8(away(made.value / y.s).astype(np.int64) + y.z), functions.finite(made.slope))


def _looked_up(value: Floats, slope: NDArray[np.float64], y: Tensor) -> Table:
    """How the oracle fills its own tables: fl(v * fl(1 / s_y)), rounded, the zero point added in float32."""
    rescaled = away(value * (F32(1) / y.s))
    return Table(_int8(rescaled + F32(y.z)), functions.finite(slope))


def multiply(x: Ints, factor: float) -> Ints:
    """Multiplication by a real factor with gemmlowp's double rounding. Raises ValueError where the oracle overflows."""
    multiplier, shift = quantize_multiplier(abs(factor))
    if shift > 0 and int(np.abs(x).max()) << shift >= 2**31:
        raise ValueError
    multiplier = -multiplier if factor < 0 else multiplier
    return np.array([_scaled(int(v), multiplier, shift) for v in x])


def _scaled(x: int, multiplier: int, shift: int) -> int:
    wide = x << shift if shift > 0 else x
    return _divided(_high(wide, multiplier, 31), max(-shift, 0))


def _high(a: int, b: int, bits: int) -> int:
    """Saturating rounding doubling high multiplication of ``bits`` + 1 bit integers."""
    product = a * b
    nudged = product + (1 << (bits - 1) if product >= 0 else 1 - (1 << (bits - 1)))
    quotient = abs(nudged) >> bits
    return min(-quotient if nudged < 0 else quotient, (1 << bits) - 1)


def _divided(x: int, exponent: int) -> int:
    """x / 2^exponent, halves away from zero."""
    magnitude = (2 * abs(x) + (1 << exponent)) >> (exponent + 1)
    return -magnitude if x < 0 else magnitude


def _ratio(x: Tensor, y: Tensor) -> float:
    return float(x.s / y.s)


def relu(x: Tensor, y: Tensor, activation: Activation) -> Table:
    """A bound lets no gradient pass, as that of a fused activation."""
    low, high = y.clamp(activation)
    values = np.clip(multiply(INPUTS - x.z, _ratio(x, y)) + y.z, low, high)
    inside = np.ones(256, np.bool_)
    if activation.low is not None:
        inside &= values > low
    if activation.high is not None:
        inside &= values < high
    return Table(_int8(values), inside.astype(F32))


def leaky_relu(x: Tensor, y: Tensor, alpha: float) -> Table:
    shifted, slope = INPUTS - x.z, F32(alpha)
    below = multiply(shifted, float(x.s * slope / y.s))
    values = np.where(shifted >= 0, multiply(shifted, _ratio(x, y)), below) + y.z
    return Table(_int8(values), np.where(shifted > 0, F32(1), slope).astype(F32))


def prelu(x: Tensor, alpha: Tensor, y: Tensor) -> Table:
    """One slope for all elements."""
    assert alpha.data is not None
    shifted, step = INPUTS - x.z, int(alpha.data.ravel()[0]) - alpha.z
    below = multiply(shifted * step, float(x.s * alpha.s / y.s))
    values = np.where(shifted >= 0, multiply(shifted, _ratio(x, y)), below) + y.z
    return Table(_int8(values), np.where(shifted > 0, F32(1), alpha.s * F32(step)).astype(F32))


def _by_function(value: Callable[[Floats], Floats], kind: str) -> Callable[[Tensor, Tensor], Table]:
    derivative = functions.UNARY[kind][1]

    def make(x: Tensor, y: Tensor) -> Table:
        inputs = real(x)
        return _looked_up(value(inputs), derivative(inputs.astype(np.float64)), y)

    return make


def gelu(x: Tensor, y: Tensor, approximate: bool) -> Table:
    inputs = real(x)
    return _looked_up(functions.gelu(inputs, approximate), functions.d_gelu(inputs.astype(np.float64), approximate), y)


def _log(x: Tensor, y: Tensor) -> Table:
    """Inputs that have no logarithm give the lowest output and no slope."""
    inputs = real(x)
    lowest = F32(-128 - y.z) * y.s
    value = np.where(inputs <= 0, lowest, functions.log(np.maximum(inputs, np.finfo(F32).tiny))).astype(F32)
    slope = np.where(inputs > 0, 1 / inputs.astype(np.float64), 0.0)
    return _looked_up(value, slope, y)


def _abs(x: Tensor, y: Tensor) -> Table:
    distance = np.abs(INPUTS - x.z)
    values = (distance if x.s == y.s else multiply(distance, _ratio(x, y))) + y.z
    return Table(_int8(values), np.sign(INPUTS - x.z).astype(F32))


def neg() -> Table:
    """Bare integers are negated in 8 bits: -128 stays."""
    return Table((-INPUTS).astype(np.int8), np.full(256, -1.0, F32))


def _sqrt(x: Tensor, y: Tensor) -> Table:
    """Truncated; a negative input, which the oracle refuses to run, counts as 0."""
    inputs = np.maximum(real(x), F32(0))
    values = (np.sqrt(inputs) / y.s).astype(np.int64) + y.z
    return Table(_int8(values), functions.finite(0.5 / np.sqrt(inputs.astype(np.float64))))


def _rsqrt(x: Tensor, y: Tensor) -> Table:
    """An input at or below 0 gives the highest output; the oracle refuses to run the negative ones."""
    factor = 1.0 / float(np.sqrt(x.s) * y.s)
    multiplier, shift = quantize_multiplier(factor)
    values = []
    for distance in (INPUTS - x.z).tolist():
        if distance <= 0:
            values.append(127)
            continue
        mantissa, exponent = inverse_square_root(distance)
        values.append(_scaled(_scaled(1, mantissa, exponent + 20), multiplier, shift - 20) + y.z)
    inputs = np.where(x.z < INPUTS, real(x).astype(np.float64), np.inf)
    return Table(_int8(np.array(values)), functions.finite(-0.5 * inputs**-1.5))


def inverse_square_root(value: int) -> tuple[int, int]:
    """(m, s) with 1 / sqrt(value) ~ m * 2^(s - 31), 0 < value < 2^29: five Newton steps with 3 integer bits."""
    if value <= 1:
        return 2**31 - 1, 0
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    raw, right = (value << 2 * pairs) >> 1, 11 - pairs
    half, x = _divided(raw, 1), 1 << 28
    for _ in range(5):
        cube = _shifted(_high(_high(x, x, 31), x, 31), 6)
        x = _shifted(_high(402653184, x, 31) - _high(half, cube, 31), 3)
    mantissa = _high(x, 1518500250, 31)
    if right < 0:
        mantissa, right = mantissa << -right, 0
    return mantissa, -right


def _shifted(x: int, bits: int) -> int:
    return max(min(x << bits, 2**31 - 1), -(2**31))


def hard_swish(x: Tensor, y: Tensor) -> Table:
    """16-bit fixed point. Raises ValueError where the oracle refuses: an output scale below s_x / 128."""
    fine = F32(1.0 / 128.0) * x.s
    out_multiplier, out_exponent = _multiplier16(fine / y.s)
    unit_multiplier, unit_exponent = _multiplier16(fine / F32(3.0 / 32768.0))
    if out_exponent > 0:
        raise ValueError
    values = []
    for distance in (INPUTS - x.z).tolist():
        hires = distance * 128
        ramp = _saturate16(hires << max(unit_exponent - 1, 0))
        ramp = _high(ramp, unit_multiplier, 15)
        ramp = _saturate16(ramp * 2) if unit_exponent > 0 else _divided(ramp, -unit_exponent)
        ramp = (ramp + 32768) >> 1
        product = ramp * _high(hires, out_multiplier, 15)
        truncated = -(-product >> 15) if product < 0 else product >> 15
        values.append(_divided(truncated, -out_exponent) + y.z)
    return Table(_int8(np.array(values)), functions.finite(functions.d_hard_swish(real(x).astype(np.float64))))


def _multiplier16(factor: np.float32) -> tuple[int, int]:
    multiplier, exponent = quantize_multiplier(float(factor))
    return min((multiplier + (1 << 15)) >> 16, 32767), exponent


def _saturate16(value: int) -> int:
    return max(min(value, 32767), -32768)


MAKERS: dict[str, Callable[[Tensor, Tensor], Table]] = {
    "RELU": lambda x, y: relu(x, y, Activation.RELU),
    "RELU6": lambda x, y: relu(x, y, Activation.RELU6),
    "RELU_N1_TO_1": lambda x, y: relu(x, y, Activation.RELU_N1_TO_1),
    "LOGISTIC": _by_function(functions.sigmoid, "LOGISTIC"),
    "TANH": _by_function(functions.tanh, "TANH"),
    "EXP": _by_function(functions.exp, "EXP"),
    "ELU": _by_function(functions.elu, "ELU"),
    "HARD_SWISH": hard_swish,
    "ABS": _abs,
    "LOG": _log,
    "SQRT": _sqrt,
    "RSQRT": _rsqrt,
}

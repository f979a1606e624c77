# SPDX-License-Identifier: Apache-2.0
"""Elementwise float32 functions as the oracle computes them, with their derivatives.

Values are float32, every operation rounded once; exp, log, tanh, erf and pow are the binary64 function rounded to
float32 (the oracle's own libm differs from that by an ulp in a few inputs of a thousand). Derivatives are binary64, 0
where they are not finite. Sources of the formulas: TensorFlow Lite's reference kernels (elementwise, activations,
gelu, pow).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
F32 = np.float32


@dataclass(frozen=True)
class Dual:
    """``value`` float32 [n] and its derivative ``slope`` float64 [n] by the one variable of an island."""

    value: Floats
    slope: Doubles

    @staticmethod
    def constant(value: float, count: int) -> Dual:
        return Dual(np.full(count, value, F32), np.zeros(count))


def each(function: Callable[[float], float], x: Floats) -> Floats:
    """The binary64 function of every element, rounded to float32; NaN outside its domain, infinity beyond its range."""

    def one(v: float) -> float:
        try:
            return function(v)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    with np.errstate(over="ignore"):
        return np.array([one(float(v)) for v in x], np.float64).astype(F32)


def exp(x: Floats) -> Floats:
    return each(math.exp, x)


def log(x: Floats) -> Floats:
    return each(lambda v: math.log(v) if v > 0 else (-math.inf if v == 0 else math.nan), x)


def tanh(x: Floats) -> Floats:
    return each(math.tanh, x)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), as LOGISTIC's int8 table is made."""
    return F32(1) / (F32(1) + exp(-x))


def _logistic(x: Floats) -> Floats:
    plain = np.where(x < F32(-9), exp(x), sigmoid(x))
    return np.where(x > F32(16.619047164916992188), F32(1), plain).astype(F32)


def gelu(x: Floats, approximate: bool) -> Floats:
    if approximate:
        inner = F32(math.sqrt(2.0 / math.pi)) * (x + F32(0.044715) * x * x * x)
        return F32(0.5) * x * (F32(1) + tanh(inner))
    return F32(0.5) * x * each(math.erfc, -x * F32(math.sqrt(0.5)))


def elu(x: Floats) -> Floats:
    return np.where(x < 0, each(math.expm1, np.minimum(x, 0)), x).astype(F32)


def hard_swish(x: Floats) -> Floats:
    ramp: Floats = np.minimum(F32(6), np.maximum(F32(0), x + F32(3)))
    return x * ramp / F32(6)


def _rsqrt(x: Floats) -> Floats:
    root: Floats = np.sqrt(x)
    return F32(1) / root


def d_sigmoid(x: Doubles) -> Doubles:
    s = 1 / (1 + np.exp(-x))
    return s * (1 - s)


def d_tanh(x: Doubles) -> Doubles:
    t: Doubles = np.tanh(x)
    return 1 - t * t


def d_gelu(x: Doubles, approximate: bool) -> Doubles:
    if approximate:
        c = math.sqrt(2 / math.pi)
        t: Doubles = np.tanh(c * (x + 0.044715 * x**3))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    below: Doubles = np.array([0.5 * math.erfc(-v * math.sqrt(0.5)) for v in x])
    density: Doubles = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return below + x * density


def d_hard_swish(x: Doubles) -> Doubles:
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6))


Pair = tuple[Callable[[Floats], Floats], Callable[[Doubles], Doubles]]

UNARY: dict[str, Pair] = {
    "ABS": (np.abs, np.sign),
    "NEG": (np.negative, lambda x: np.full_like(x, -1.0)),
    "EXP": (exp, np.exp),
    "LOG": (log, lambda x: 1 / x),
    "SQRT": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "RSQRT": (_rsqrt, lambda x: -0.5 * x**-1.5),
    "SQUARE": (lambda x: x * x, lambda x: 2 * x),
    "SIN": (lambda x: each(math.sin, x), np.cos),
    "COS": (lambda x: each(math.cos, x), lambda x: -np.sin(x)),
    "TANH": (tanh, d_tanh),
    "LOGISTIC": (_logistic, d_sigmoid),
    "HARD_SWISH": (hard_swish, d_hard_swish),
    "ELU": (elu, lambda x: np.where(x < 0, np.exp(x), 1.0)),
    "RELU": (lambda x: np.maximum(x, F32(0)), lambda x: np.where(x > 0, 1.0, 0.0)),
    "RELU6": (lambda x: np.minimum(np.maximum(x, F32(0)), F32(6)), lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0)),
    "RELU_N1_TO_1": (lambda x: np.minimum(np.maximum(x, F32(-1)), F32(1)),
                     lambda x: np.where((x > -1) & (x < 1), 1.0, 0.0)),
}  # fmt: skip


def _pow(a: Dual, b: Dual) -> Dual:
    def one(x: float, y: float) -> float:
        try:
            return float(math.pow(x, y))
        except OverflowError:
            return math.inf if x > 0 or y % 2 == 0 else -math.inf
        except ValueError:
            return math.inf if x == 0 else math.nan

    pairs = list(zip(a.value.tolist(), b.value.tolist(), strict=True))
    value = np.array([one(x, y) for x, y in pairs])
    x, y = a.value.astype(np.float64), b.value.astype(np.float64)
    by_base = y * np.array([one(p, q - 1) for p, q in pairs])
    slope = np.where(a.slope == 0, 0.0, by_base * a.slope)
    slope = slope + np.where(b.slope == 0, 0.0, value * np.log(x) * b.slope)
    return Dual(value.astype(F32), slope)


def _divide(a: Dual, b: Dual) -> Dual:
    x, y = a.value.astype(np.float64), b.value.astype(np.float64)
    return Dual(a.value / b.value, a.slope / y - x * b.slope / (y * y))


def _multiply(a: Dual, b: Dual) -> Dual:
    return Dual(a.value * b.value, a.slope * b.value.astype(np.float64) + b.slope * a.value.astype(np.float64))


def _squared_difference(a: Dual, b: Dual) -> Dual:
    difference = a.value - b.value
    return Dual(difference * difference, 2 * difference.astype(np.float64) * (a.slope - b.slope))


BINARY: dict[str, Callable[[Dual, Dual], Dual]] = {
    "ADD": lambda a, b: Dual(a.value + b.value, a.slope + b.slope),
    "SUB": lambda a, b: Dual(a.value - b.value, a.slope - b.slope),
    "MUL": _multiply,
    "DIV": _divide,
    "POW": _pow,
    "MAXIMUM": lambda a, b: Dual(np.maximum(a.value, b.value), np.where(a.value >= b.value, a.slope, b.slope)),
    "MINIMUM": lambda a, b: Dual(np.minimum(a.value, b.value), np.where(a.value <= b.value, a.slope, b.slope)),
    "SQUARED_DIFFERENCE": _squared_difference,
}


def apply(kind: str, x: Dual) -> Dual:
    """A unary function of ``UNARY``."""
    value, derivative = UNARY[kind]
    return chain(x, value(x.value), derivative(x.value.astype(np.float64)))


def chain(x: Dual, value: Floats, derivative: Doubles) -> Dual:
    return Dual(value.astype(F32), np.where(x.slope == 0, 0.0, derivative * x.slope))


def finite(slope: Doubles) -> Floats:
    """float32, 0 where the derivative is not finite."""
    with np.errstate(over="ignore"):
        rounded = slope.astype(F32)
    return np.where(np.isfinite(rounded), rounded, F32(0))

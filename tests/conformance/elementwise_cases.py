# SPDX-License-Identifier: Apache-2.0
"""Seeded cases of elementwise operators.

A body puts an operator behind an int8 tensor, which is either the model's input or the output of an adapted dense
layer, so that a gradient passes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from conformance.tflite_builder import RELU, Builder

Rng = np.random.Generator


@dataclass(frozen=True)
class Edge:
    """One int8 tensor of the model under construction."""

    id: int
    shape: tuple[int, ...]
    scale: float
    zero: int


Body = Callable[[Rng, Builder, Edge], int]
BODIES: dict[str, Body] = {}


def _body(function: Body) -> Body:
    BODIES[function.__name__.lstrip("_")] = function
    return function


def f32(value: float) -> float:
    return float(np.float32(value))


def zero(rng: Rng) -> int:
    return int(rng.choice([-128, 127, 0, rng.integers(-128, 128), rng.integers(-128, 128)]))


# kind: options table, fields
OPTIONS: dict[str, Callable[[Rng], tuple[str, dict[str, Any]]]] = {
    "LEAKY_RELU": lambda r: ("LeakyReluOptions", {"alpha": f32(r.choice([0.1, 0.3, -0.2, 1.5, 0.01]))}),
    "GELU": lambda r: ("GeluOptions", {"approximate": bool(r.integers(2))}),
}
UNARY = (
    "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "LOGISTIC", "TANH", "GELU", "HARD_SWISH", "ABS", "EXP", "LOG",
    "SQRT", "RSQRT", "NEG",
)  # fmt: skip


def unary_output(rng: Rng, kind: str, scale: float, at: int) -> tuple[float, int]:
    """A quantization of the output that the operator takes and that uses its range."""
    if kind == "LOGISTIC":
        return 1 / 256, int(rng.choice([-128, -128, zero(rng)]))
    if kind == "TANH" and rng.integers(2):
        return 1 / 128, 0
    if kind == "NEG":
        return scale, at
    return f32(scale * 10 ** rng.uniform(-1.0, 0.7)), zero(rng)


def unary_input(rng: Rng, kind: str) -> tuple[float, int]:
    fixed = {"SQRT": -128, "RSQRT": -128, "NEG": 0}  # LiteRT runs the roots of no negative value
    return f32(10 ** rng.uniform(-3.0, 0.3)), fixed.get(kind, zero(rng))


def add_unary(rng: Rng, b: Builder, kind: str, x: Edge) -> int:
    y = b.tensor(x.shape, "int8", *unary_output(rng, kind, x.scale, x.zero))
    name, fields = OPTIONS[kind](rng) if kind in OPTIONS else ("", {})
    b.op(kind, [x.id], [y], name, **fields)
    return y


@_body
def unary(rng: Rng, b: Builder, x: Edge) -> int:
    """Two operators in a row, the input rescaled to what the first one takes."""
    kind = str(rng.choice(UNARY))
    scale, at = unary_input(rng, kind)
    inner = b.tensor(x.shape, "int8", scale, at)
    b.op("QUANTIZE", [x.id], [inner])
    return add_unary(rng, b, kind, Edge(inner, x.shape, scale, at))


@_body
def rescale(rng: Rng, b: Builder, x: Edge) -> int:
    y = b.tensor(x.shape, "int8", f32(x.scale * 10 ** rng.uniform(-1.0, 1.0)), zero(rng))
    b.op("QUANTIZE", [x.id], [y])
    return y


@_body
def prelu(rng: Rng, b: Builder, x: Edge) -> int:
    shape = [(x.shape[-1],), (1, 1, x.shape[-1]), x.shape[1:], (1,)][rng.integers(4)]
    alpha_scale = f32(10 ** rng.uniform(-3.0, -1.5))
    alpha = b.tensor(shape, "int8", alpha_scale, int(rng.integers(-20, 20)), data=rng.integers(-128, 128, shape))
    y = b.tensor(x.shape, "int8", f32(x.scale * 10 ** rng.uniform(-0.7, 0.5)), zero(rng))
    b.op("PRELU", [x.id, alpha], [y])
    return y


def _shape_of(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with ``shape``: scalar, channels, some dimensions 1, or the same."""
    kind = rng.integers(5)
    if kind == 0:
        return ()
    if kind == 1:
        return shape[-1:]
    if kind == 2:
        return shape
    return tuple(d if rng.integers(2) else 1 for d in shape)


def _other(rng: Rng, b: Builder, x: Edge, same_scale: bool) -> Edge:
    """The second operand: the tensor itself, a constant, or something computed from it with its own quantization."""
    scale, at = (x.scale, x.zero) if same_scale else (f32(x.scale * 10 ** rng.uniform(-1.0, 1.0)), zero(rng))
    kind = rng.integers(6)
    if kind == 0:
        return x
    if kind in (1, 2, 3):
        shape = _shape_of(rng, x.shape)
        return Edge(b.tensor(shape, "int8", scale, at, data=rng.integers(-128, 128, shape)), shape, scale, at)
    if kind == 4:
        axes = [[1, 2], [1], [3], [2, 3]][rng.integers(4)]
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
        y = b.tensor(shape, "int8", scale, at)
        b.op("MEAN", [x.id, b.tensor((len(axes),), "int32", data=axes)], [y], "ReducerOptions", keepDims=True)
        return Edge(y, shape, scale, at)
    y = b.tensor(x.shape, "int8", scale, at)
    b.op("QUANTIZE", [x.id], [y])
    return Edge(y, x.shape, scale, at)


def _binary(
    rng: Rng, b: Builder, x: Edge, kind: str, options: str, real: Callable[[Edge, Edge], float], fused: bool = False
) -> int:
    """``real`` gives an output scale that fits; inputs in either order."""
    same = kind in ("MAXIMUM", "MINIMUM")
    other = _other(rng, b, x, same)
    shape = tuple(np.broadcast_shapes(x.shape, other.shape))
    edges = [x, other] if rng.integers(2) else [other, x]
    scale, at = (x.scale, x.zero) if same else (f32(real(x, other) * 10 ** rng.uniform(-0.7, 0.7)), zero(rng))
    y = b.tensor(shape, "int8", scale, at)
    fields = {"fusedActivationFunction": int(rng.choice([0, 0, 0, *RELU.values()]))} if fused else {}
    b.op(kind, [e.id for e in edges], [y], options, **fields)
    return y


@_body
def add_broadcast(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(rng, b, x, "ADD", "AddOptions", lambda p, q: max(p.scale, q.scale), fused=True)


@_body
def sub(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(rng, b, x, "SUB", "SubOptions", lambda p, q: max(p.scale, q.scale), fused=True)


@_body
def mul(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(rng, b, x, "MUL", "MulOptions", lambda p, q: 60 * p.scale * q.scale, fused=True)


@_body
def squared_difference(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(
        rng, b, x, "SQUARED_DIFFERENCE", "SquaredDifferenceOptions", lambda p, q: 100 * max(p.scale, q.scale) ** 2
    )


@_body
def maximum(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(rng, b, x, "MAXIMUM", "MaximumMinimumOptions", lambda p, q: p.scale)


@_body
def minimum(rng: Rng, b: Builder, x: Edge) -> int:
    return _binary(rng, b, x, "MINIMUM", "MaximumMinimumOptions", lambda p, q: p.scale)


FLOAT_UNARY = (
    "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "SIN", "COS", "TANH", "LOGISTIC", "HARD_SWISH", "RELU",
    "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "GELU",
)  # fmt: skip
POSITIVE = ("LOG", "SQRT", "RSQRT")
FLOAT_BINARY = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions", "POW": "",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}  # fmt: skip


def _float_unary(rng: Rng, b: Builder, x: int, shape: tuple[int, ...], kind: str) -> int:
    y = b.tensor(shape, "float32")
    name, fields = OPTIONS[kind](rng) if kind in OPTIONS else ("", {})
    b.op(kind, [x], [y], name, **fields)
    return y


def _float_binary(rng: Rng, b: Builder, pair: list[int], shape: tuple[int, ...], kind: str) -> int:
    y = b.tensor(shape, "float32")
    fields = {"fusedActivationFunction": int(rng.choice([0, 0, 1, 3]))} if kind in ("ADD", "SUB", "MUL", "DIV") else {}
    b.op(kind, pair, [y], FLOAT_BINARY[kind], **fields)
    return y


def island(rng: Rng, b: Builder, x: int, shape: tuple[int, ...], scale: float) -> tuple[int, float]:
    """One to four float32 operators over the float32 tensor ``x``; returns the last and a fitting scale."""
    value, reach = x, 128 * scale
    for _ in range(int(rng.integers(1, 5))):
        if rng.integers(3):
            kind = str(rng.choice(FLOAT_UNARY))
            if kind in POSITIVE:  # x^2 + 0.1 has a logarithm and a root
                value = _float_unary(rng, b, value, shape, "SQUARE")
                pair = [value, b.tensor((), "float32", data=np.float32(0.1))]
                value = b.tensor(shape, "float32")
                b.op("ADD", pair, [value], "AddOptions")
            value = _float_unary(rng, b, value, shape, kind)
        else:
            kind = str(rng.choice(list(FLOAT_BINARY)))
            constant = f32(rng.choice([0.5, 2.0, 3.0, -1.5, 0.044715, 1.0]))
            if kind == "POW":
                constant = f32(rng.choice([2.0, 3.0]))
            other = b.tensor([(), (1,)][rng.integers(2)], "float32", data=np.float32(constant).reshape(-1)[0])
            flip = kind != "POW" and kind != "DIV" and bool(rng.integers(2))
            second = x if kind not in ("POW", "DIV") and rng.integers(4) == 0 else other
            pair = [other, value] if flip else [value, second]
            value = _float_binary(rng, b, pair, shape, kind)
    return value, f32(max(min(reach, 50.0), 0.5) / 100 * 10 ** rng.uniform(-0.5, 0.7))


@_body
def float_island(rng: Rng, b: Builder, x: Edge) -> int:
    scale, at = f32(10 ** rng.uniform(-2.0, -0.7)), zero(rng)
    inner = b.tensor(x.shape, "int8", scale, at)
    b.op("QUANTIZE", [x.id], [inner])
    opened = b.tensor(x.shape, "float32")
    b.op("DEQUANTIZE", [inner], [opened])
    value, y_scale = island(rng, b, opened, x.shape, scale)
    y = b.tensor(x.shape, "int8", y_scale, zero(rng))
    b.op("QUANTIZE", [value], [y])
    return y


def direct(kind: str, seed: int) -> bytes:
    """The operator by itself, behind the model's input."""
    rng = _rng(kind, seed)
    shape = (1, *(int(v) for v in rng.integers(1, 6, 3)))
    b, scale, at = Builder(), f32(10 ** rng.uniform(-2.5, 0.3)), zero(rng)
    x = b.tensor(shape, "int8", scale, at)
    y = BODIES[kind](rng, b, Edge(x, shape, scale, at))
    return b.build([x], [y])


def behind_dense(kind: str, seed: int) -> bytes:
    """FULLY_CONNECTED, RESHAPE, the operator: the adapted layer's gradient passes it."""
    rng = _rng(kind, seed)
    shape = (1, *(int(v) for v in rng.integers(1, 5, 3)))
    b, k, m = Builder(), int(rng.integers(2, 9)), int(np.prod(shape))
    x = b.tensor((1, k), "int8", f32(0.05), zero(rng))
    weights = b.tensor((m, k), "int8", f32(0.01), 0, data=rng.integers(-127, 128, (m, k)))
    scale, at = f32(0.05 * 0.01 * 60 * np.sqrt(k)), int(rng.integers(-60, 60))
    flat = b.tensor((1, m), "int8", scale, at)
    b.op("FULLY_CONNECTED", [x, weights, -1], [flat], "FullyConnectedOptions")
    image = b.tensor(shape, "int8", scale, at)
    b.op("RESHAPE", [flat, b.tensor((4,), "int32", data=shape)], [image], "ReshapeOptions", newShape=list(shape))
    y = BODIES[kind](rng, b, Edge(image, shape, scale, at))
    return b.build([x], [y])


def _rng(kind: str, seed: int) -> Rng:
    return np.random.default_rng([seed, *kind.encode()])

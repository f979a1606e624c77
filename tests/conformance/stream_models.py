# SPDX-License-Identifier: Apache-2.0
"""Streaming models written directly: variables that live from one inference to the next, in several architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from conformance.tflite_builder import RELU, SAME, VALID, Builder

MADE: dict[str, Callable[[], bytes]] = {}


def _model(function: Callable[[], bytes]) -> Callable[[], bytes]:
    MADE[function.__name__] = function
    return function


class Stream:
    """A model whose first operator runs the initialization of its variables."""

    def __init__(self, seed: int) -> None:
        self.b, self.rng = Builder(), np.random.default_rng(seed)
        self.b.op("CALL_ONCE", [], [], "CallOnceOptions", initSubgraphIndex=1)

    def read(self, name: str, like: int, shape: tuple[int, ...], container: str = "") -> int:
        y = self.b.like(like, shape)
        self.b.op("READ_VARIABLE", [self.b.variable(name, container)], [y])
        return y

    def assign(self, name: str, value: int, container: str = "") -> None:
        self.b.op("ASSIGN_VARIABLE", [self.b.variable(name, container), value], [])

    def constant(self, values: Any) -> int:
        array = np.asarray(values)
        return self.b.tensor(array.shape, "int32", data=array)

    def dense(self, x: int, k: int, m: int, scale: float, zero: int, x_scale: float, **options: Any) -> int:
        b, w_scale = self.b, float(np.float32(2.0 / 127 / np.sqrt(k)))
        w = b.tensor((m, k), "int8", w_scale, 0, 0, self.rng.integers(-127, 128, (m, k)))
        bias = b.tensor((m,), "int32", x_scale * w_scale, 0, 0, self.rng.integers(-2000, 2000, m))
        y = b.tensor((1, m), "int8", scale, zero)
        b.op("FULLY_CONNECTED", [x, w, bias], [y], "FullyConnectedOptions", **options)
        return y

    def unary(self, kind: str, x: int, shape: tuple[int, ...], scale: float, zero: int) -> int:
        y = self.b.tensor(shape, "int8", scale, zero)
        self.b.op(kind, [x], [y])
        return y

    def binary(self, kind: str, a: int, c: int, shape: tuple[int, ...], scale: float, zero: int) -> int:
        y = self.b.tensor(shape, "int8", scale, zero)
        self.b.op(kind, [a, c], [y], f"{kind.title()}Options")
        return y

    def softmax(self, x: int, m: int) -> int:
        y = self.b.tensor((1, m), "int8", 1 / 256, -128)
        self.b.op("SOFTMAX", [x], [y], "SoftmaxOptions", beta=1.0)
        return y

    def build(self, x: int, y: int, initial: Mapping[Any, tuple[Any, float, int]]) -> bytes:
        """``initial``: name or (container, name) -> values, scale, zero point."""
        b = self.b
        b.subgraph()
        for key, (values, scale, zero) in initial.items():
            container, name = key if isinstance(key, tuple) else ("", key)
            array = np.asarray(values, np.int8)
            constant = b.tensor(array.shape, "int8", scale, zero, 0, array)
            b.op("ASSIGN_VARIABLE", [b.variable(name, container), constant], [])
        return b.build([x], [y])


@_model
def ring_convolution() -> bytes:
    """Ring buffers in front of a convolution and of two depthwise branches (SPLIT_V), LOGISTIC, uint8 output."""
    s = Stream(1)
    b, relu = s.b, RELU["RELU"]
    x = b.tensor((1, 2, 1, 9), "int8", 0.03, -100)
    ring = s.read("stream/states", x, (1, 3, 1, 9))
    wide = b.like(x, (1, 5, 1, 9))
    b.op("CONCATENATION", [ring, x], [wide], "ConcatenationOptions", axis=1)
    kept = b.like(x, (1, 3, 1, 9))
    b.op("STRIDED_SLICE", [wide, s.constant([0, -3, 0, 0]), s.constant([0, 0, 0, 0]), s.constant([1, 1, 1, 1])], [kept],
         "StridedSliceOptions", beginMask=13, endMask=15)  # fmt: skip
    s.assign("stream/states", kept)
    fields = {"strideH": 2, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": VALID}
    w = b.tensor((8, 5, 1, 9), "int8", np.full(8, 0.004), 0, 0, s.rng.integers(-127, 128, (8, 5, 1, 9)))
    bias = b.tensor((8,), "int32", np.full(8, 0.03 * 0.004), 0, 0, s.rng.integers(-3000, 3000, 8))
    c = b.tensor((1, 1, 1, 8), "int8", 0.02, -128)
    b.op("CONV_2D", [wide, w, bias], [c], "Conv2DOptions", fusedActivationFunction=relu, **fields)
    old = s.read("stream_1/states", c, (1, 6, 1, 8))
    both = b.like(c, (1, 7, 1, 8))
    b.op("CONCATENATION", [old, c], [both], "ConcatenationOptions", axis=1)
    newer = b.like(c, (1, 6, 1, 8))
    b.op("STRIDED_SLICE", [both, s.constant([0, 1, 0, 0]), s.constant([1, 7, 1, 8]), s.constant([1, 1, 1, 1])], [newer],
         "StridedSliceOptions")  # fmt: skip
    s.assign("stream_1/states", newer)
    halves = [b.like(c, (1, 7, 1, 4)), b.like(c, (1, 7, 1, 4))]
    b.op("SPLIT_V", [both, s.constant([4, 4]), s.constant(3)], halves, "SplitVOptions", numSplits=2)
    mixed = [_depthwise(s, halves[0], 7, 3), _depthwise(s, halves[1], 7, 7)]
    joined = b.like(mixed[0], (1, 1, 1, 8))
    b.op("CONCATENATION", mixed, [joined], "ConcatenationOptions", axis=3)
    flat = b.like(joined, (1, 8))
    b.op("RESHAPE", [joined, s.constant([1, 8])], [flat])
    z = s.dense(flat, 8, 1, 0.02, 10, 0.03)
    p = s.unary("LOGISTIC", z, (1, 1), 1 / 256, -128)
    y = b.tensor((1, 1), "uint8", 1 / 256, 0)
    b.op("QUANTIZE", [p], [y])
    states = {"stream/states": (np.full((1, 3, 1, 9), -100), 0.03, -100),
              "stream_1/states": (np.full((1, 6, 1, 8), -128), 0.02, -128)}  # fmt: skip
    return s.build(x, y, states)


def _depthwise(s: Stream, x: int, rows: int, kernel: int) -> int:
    """Over the newest ``kernel`` rows of x [1, rows, 1, 4]."""
    b = s.b
    newest = b.like(x, (1, kernel, 1, 4))
    b.op("STRIDED_SLICE", [x, s.constant([0, rows - kernel, 0, 0]), s.constant([1, rows, 1, 4]),
                           s.constant([1, 1, 1, 1])], [newest], "StridedSliceOptions")  # fmt: skip
    w = b.tensor((1, kernel, 1, 4), "int8", np.full(4, 0.006), 0, 3, s.rng.integers(-127, 128, (1, kernel, 1, 4)))
    bias = b.tensor((4,), "int32", np.full(4, 0.02 * 0.006), 0, 0, s.rng.integers(-3000, 3000, 4))
    y = b.tensor((1, 1, 1, 4), "int8", 0.03, 5)
    b.op("DEPTHWISE_CONV_2D", [newest, w, bias], [y], "DepthwiseConv2DOptions", strideH=1, strideW=1, depthMultiplier=1,
         dilationHFactor=1, dilationWFactor=1, padding=VALID)  # fmt: skip
    return y


@_model
def running_average() -> bytes:
    """m = 0.8 m + 0.2 dense(x); classes from m. The variable starts at random values."""
    s = Stream(2)
    b = s.b
    x = b.tensor((1, 7), "int8", 0.05, 3)
    h = s.dense(x, 7, 11, 0.03, -5, 0.05)
    one = (1,)
    keep = b.tensor(one, "int8", 0.8 / 127, 0, 0, [127])
    take = b.tensor(one, "int8", 0.2 / 127, 0, 0, [127])
    m = s.read("mean", h, (1, 11))
    old = s.binary("MUL", m, keep, (1, 11), 0.025, -4)
    new = s.binary("MUL", h, take, (1, 11), 0.01, 2)
    total = b.like(h, (1, 11))
    b.op("ADD", [old, new], [total], "AddOptions")
    s.assign("mean", total)
    y = s.softmax(s.dense(total, 11, 5, 0.08, 7, 0.03), 5)
    return s.build(x, y, {"mean": (s.rng.integers(-128, 128, (1, 11)), 0.03, -5)})


@_model
def gated_unit() -> bytes:
    """A GRU-like cell of elementwise operators: h = h + sigmoid(W x) * (tanh(U [x, h]) - h)."""
    s = Stream(3)
    b = s.b
    x = b.tensor((1, 6), "int8", 1 / 128, 0)
    h = s.read("h", x, (1, 8))
    z = s.unary("LOGISTIC", s.dense(x, 6, 8, 0.03, 4, 1 / 128), (1, 8), 1 / 256, -128)
    xh = b.like(x, (1, 14))
    b.op("CONCATENATION", [x, h], [xh], "ConcatenationOptions", axis=-1)
    c = s.unary("TANH", s.dense(xh, 14, 8, 0.03, -2, 1 / 128), (1, 8), 1 / 128, 0)
    change = s.binary("MUL", z, s.binary("SUB", c, h, (1, 8), 2 / 128, 0), (1, 8), 2 / 128, 0)
    new = b.like(x, (1, 8))
    b.op("ADD", [h, change], [new], "AddOptions")
    s.assign("h", new)
    y = s.softmax(s.dense(new, 8, 4, 0.06, -3, 1 / 128), 4)
    return s.build(x, y, {"h": (np.zeros((1, 8)), 1 / 128, 0)})


@_model
def crossed_variables() -> bytes:
    """a and b exchange their old values; what is read before and behind the assignments is used."""
    s = Stream(4)
    b = s.b
    x = b.tensor((1, 5), "int8", 0.02, -7)
    old_a, old_b = s.read("a", x, (1, 5)), s.read("b", x, (1, 5))
    mixed = b.like(x, (1, 5))
    b.op("ADD", [x, old_b], [mixed], "AddOptions")
    s.assign("a", mixed)
    s.assign("b", old_a)  # the old value, behind the assignment of a
    new_a, new_b = s.read("a", x, (1, 5)), s.read("b", x, (1, 5))
    s.assign("a", x)  # once more: only this one is seen next time
    everything = b.like(x, (1, 25))
    b.op("CONCATENATION", [old_a, old_b, new_a, new_b, x], [everything], "ConcatenationOptions", axis=1)
    y = s.softmax(s.dense(everything, 25, 6, 0.1, 0, 0.02), 6)
    initial = {"a": (s.rng.integers(-128, 128, (1, 5)), 0.02, -7), "b": (s.rng.integers(-128, 128, (1, 5)), 0.02, -7)}
    return s.build(x, y, initial)


@_model
def shared_names() -> bytes:
    """Two containers hold a variable of one name; every access has a handle of its own; one is assigned a constant."""
    s = Stream(5)
    b = s.b
    x = b.tensor((1, 4), "int8", 0.02, 0)
    first, second = s.read("v", x, (1, 4), "one"), s.read("v", x, (1, 4), "two")
    s.assign("v", x, "one")
    s.assign("v", first, "two")  # a delay of two frames
    late = s.read("clock", x, (1, 4))
    s.assign("clock", b.tensor((1, 4), "int8", 0.02, 0, 0, [9, -9, 100, -100]))
    everything = b.like(x, (1, 16))
    b.op("CONCATENATION", [x, first, second, late], [everything], "ConcatenationOptions", axis=1)
    y = s.softmax(s.dense(everything, 16, 3, 0.08, 0, 0.02), 3)
    initial = {("one", "v"): ([[1, 2, 3, 4]], 0.02, 0), ("two", "v"): ([[-5, 6, -7, 8]], 0.02, 0),
               "clock": ([[0, 0, 0, 0]], 0.02, 0)}  # fmt: skip
    return s.build(x, y, initial)


@_model
def image_background() -> bytes:
    """A 2-D state (background of a picture) behind an adapted convolution, padded and strided; regression output."""
    s = Stream(6)
    b = s.b
    x = b.tensor((1, 6, 5, 2), "int8", 0.04, 1)
    w = b.tensor((3, 3, 3, 2), "int8", np.array([0.006, 0.004, 0.005]), 0, 0, s.rng.integers(-127, 128, (3, 3, 3, 2)))
    bias = b.tensor((3,), "int32", np.array([0.006, 0.004, 0.005]) * 0.04, 0, 0, [100, -200, 300])
    c = b.tensor((1, 3, 3, 3), "int8", 0.03, -20)
    b.op("CONV_2D", [x, w, bias], [c], "Conv2DOptions", strideH=2, strideW=2, dilationHFactor=1, dilationWFactor=1,
         padding=SAME)  # fmt: skip
    background = s.read("background", c, (1, 3, 3, 3))
    d = s.binary("SUB", c, background, (1, 3, 3, 3), 0.05, 0)
    s.assign("background", c)
    flat = b.like(d, (1, 27))
    b.op("RESHAPE", [d, s.constant([1, 27])], [flat])
    y = s.dense(flat, 27, 4, 0.05, 3, 0.05)
    return s.build(x, y, {"background": (np.full((1, 3, 3, 3), -20), 0.03, -20)})

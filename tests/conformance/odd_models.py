# SPDX-License-Identifier: Apache-2.0
"""Two models written directly, without TensorFlow: sizes that divide by nothing, windows that meet every border."""

from __future__ import annotations

from typing import Any

import numpy as np
from conformance.tflite_builder import RELU, SAME, VALID, Builder


class Net:
    """Adds layers of random weights with scales that keep activations inside int8."""

    def __init__(self, seed: int) -> None:
        self.b, self._rng = Builder(), np.random.default_rng(seed)

    def weights(self, shape: tuple[int, ...], axis: int | None, terms: int) -> tuple[int, Any]:
        channels = 1 if axis is None else shape[axis]
        scale = (self._rng.uniform(0.7, 1.4, channels) / 127 / np.sqrt(terms)).astype(np.float32)
        data = np.clip(np.rint(self._rng.normal(0, 60, shape)), -127, 127)
        return self.b.tensor(shape, "int8", scale, 0, axis or 0, data), scale

    def bias(self, count: int, scale: Any) -> int:
        return self.b.tensor((count,), "int32", scale, 0, 0, self._rng.integers(-3000, 3000, count))

    def conv(self, x: int, x_scale: float, m: int, kernel: tuple[int, int, int], out: tuple[int, ...], scale: float,
             zero: int, **options: Any) -> int:  # fmt: skip
        w, w_scale = self.weights((m, *kernel), 0, kernel[0] * kernel[1] * kernel[2])
        y = self.b.tensor((1, *out, m), "int8", scale, zero)
        fields = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": SAME, **options}
        self.b.op("CONV_2D", [x, w, self.bias(m, x_scale * w_scale)], [y], "Conv2DOptions", **fields)
        return y

    def dense(
        self, x: int, x_scale: float, shape: tuple[int, ...], k: int, scale: float, zero: int, axis: int | None = 0,
        **options: Any,
    ) -> int:  # fmt: skip
        w, w_scale = self.weights((shape[-1], k), axis, k)
        y = self.b.tensor(shape, "int8", scale, zero)
        bias = self.bias(shape[-1], x_scale * w_scale)
        self.b.op("FULLY_CONNECTED", [x, w, bias], [y], "FullyConnectedOptions", keepNumDims=len(shape) > 2, **options)
        return y


def odd_classifier() -> bytes:
    """11 x 7 x 3 -> 5 classes: convolutions (stride, dilation), depthwise times 3, ADD, PAD, both pools, MEAN."""
    net = Net(1)
    b, relu = net.b, {"fusedActivationFunction": RELU["RELU"]}
    x = b.tensor((1, 11, 7, 3), "int8", 0.02, -3)
    c = net.conv(x, 0.02, 7, (3, 5, 3), (6, 4), 0.016, -128, strideH=2, strideW=2, **relu)
    w, w_scale = net.weights((1, 3, 3, 21), 3, 9)
    d = b.tensor((1, 6, 4, 21), "int8", 0.012, 5)
    fields = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": SAME}
    b.op("DEPTHWISE_CONV_2D", [c, w, net.bias(21, 0.016 * w_scale)], [d], "DepthwiseConv2DOptions", depthMultiplier=3,
         **fields)  # fmt: skip
    e = net.conv(d, 0.012, 21, (3, 3, 21), (6, 4), 0.014, -9, dilationHFactor=2, dilationWFactor=2)
    s = b.tensor((1, 6, 4, 21), "int8", 0.015, -128)
    b.op("ADD", [d, e], [s], "AddOptions", **relu)
    table = b.tensor((4, 2), "int32", data=[[0, 0], [1, 0], [0, 2], [0, 0]])
    p = b.tensor((1, 7, 6, 21), "int8", 0.015, -128)
    b.op("PAD", [s, table], [p], "PadOptions")
    q = b.tensor((1, 3, 2, 21), "int8", 0.015, -128)
    b.op("MAX_POOL_2D", [p], [q], "Pool2DOptions", strideH=2, strideW=3, filterHeight=3, filterWidth=2, padding=VALID)
    a = b.tensor((1, 3, 2, 21), "int8", 0.015, -128)
    b.op(
        "AVERAGE_POOL_2D", [q], [a], "Pool2DOptions", strideH=1, strideW=1, filterHeight=2, filterWidth=2, padding=SAME
    )
    f = net.conv(a, 0.015, 13, (1, 1, 21), (3, 2), 0.008, -128, **relu)
    axes = b.tensor((2,), "int32", data=[1, 2])
    m = b.tensor((1, 13), "int8", 0.006, -128)
    b.op("MEAN", [f, axes], [m], "ReducerOptions", keepDims=False)
    z = net.dense(m, 0.006, (1, 5), 13, 0.01, 11)
    y = b.tensor((1, 5), "int8", 1 / 256, -128)
    b.op("SOFTMAX", [z], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def odd_regression() -> bytes:
    """float32 [3, 5] -> float32 [7]: dense layers over three rows, one per tensor, a constant added."""
    net = Net(2)
    b = net.b
    outside = b.tensor((1, 3, 5), "float32")
    x = b.tensor((1, 3, 5), "int8", 0.03, 2)
    b.op("QUANTIZE", [outside], [x])
    h = net.dense(x, 0.03, (1, 3, 11), 5, 0.02, -128, fusedActivationFunction=RELU["RELU6"])
    constant = b.tensor((1, 3, 11), "int8", 0.01, 7, data=np.arange(-16, 17).reshape(1, 3, 11) * 7)
    s = b.tensor((1, 3, 11), "int8", 0.025, -20)
    b.op("ADD", [h, constant], [s], "AddOptions")
    flat = b.tensor((1, 33), "int8", 0.025, -20)
    b.op("RESHAPE", [s, b.tensor((2,), "int32", data=[1, 33])], [flat])
    z = net.dense(flat, 0.025, (1, 7), 33, 0.02, 3, axis=None)
    y = b.tensor((1, 7), "float32")
    b.op("DEQUANTIZE", [z], [y])
    return b.build([outside], [y])

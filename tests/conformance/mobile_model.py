# SPDX-License-Identifier: Apache-2.0
"""A small MobileNetV2-like classifier: every operator that runs row by row, at every kind of border."""

from __future__ import annotations

from conformance.odd_models import Net
from conformance.tflite_builder import RELU, SAME, VALID

SHAPE = (21, 14, 3)


def _depthwise(
    net: Net, x: int, scale: float, shape: tuple[int, ...], y_scale: float, stride: int, padding: int
) -> int:
    w, w_scale = net.weights((1, 3, 3, shape[-1]), 3, 9)
    y = net.b.tensor((1, *shape), "int8", y_scale, -128)
    net.b.op("DEPTHWISE_CONV_2D", [x, w, net.bias(shape[-1], scale * w_scale)], [y], "DepthwiseConv2DOptions",
             depthMultiplier=1, strideH=stride, strideW=stride, dilationHFactor=1, dilationWFactor=1, padding=padding,
             fusedActivationFunction=RELU["RELU"])  # fmt: skip
    return y


def mobile_classifier(head: str = "MEAN") -> bytes:
    """21 x 14 x 3 -> 5 classes: strided convolution, two inverted bottlenecks (one residual, one behind a PAD), a RELU
    and both pools of their own, 1x1 convolution, global average by ``head`` (MEAN or AVERAGE_POOL_2D), dense."""
    net = Net(5)
    b, relu = net.b, {"fusedActivationFunction": RELU["RELU"]}
    x = b.tensor((1, *SHAPE), "int8", 200.0, -3)
    c = net.conv(x, 200.0, 8, (3, 3, 3), (11, 7), 60.0, -128, strideH=2, strideW=2, **relu)
    d = _depthwise(net, c, 60.0, (11, 7, 8), 20.0, 1, SAME)
    p = net.conv(d, 20.0, 6, (1, 1, 8), (11, 7), 12.0, 4)
    e = net.conv(p, 12.0, 24, (1, 1, 6), (11, 7), 6.0, -128, **relu)
    f = _depthwise(net, e, 6.0, (11, 7, 24), 2.0, 1, SAME)
    q = net.conv(f, 2.0, 6, (1, 1, 24), (11, 7), 1.5, -9)
    s = b.tensor((1, 11, 7, 6), "int8", 13.0, -5)
    b.op("ADD", [p, q], [s], "AddOptions")
    r = b.tensor((1, 11, 7, 6), "int8", 7.0, -128)
    b.op("RELU", [s], [r])
    g = net.conv(r, 7.0, 24, (1, 1, 6), (11, 7), 4.0, -128, **relu)
    padded = b.like(g, (1, 13, 9, 24))
    b.op("PAD", [g, b.tensor((4, 2), "int32", data=[[0, 0], [1, 1], [1, 1], [0, 0]])], [padded], "PadOptions")
    h = _depthwise(net, padded, 4.0, (6, 4, 24), 1.3, 2, VALID)
    k = net.conv(h, 1.3, 8, (1, 1, 24), (6, 4), 0.6, -128, **relu)
    pool = {"strideH": 1, "strideW": 1, "filterHeight": 2, "filterWidth": 3, "padding": SAME}
    m = b.like(k, (1, 6, 4, 8))
    b.op("MAX_POOL_2D", [k], [m], "Pool2DOptions", **pool)
    a = b.like(k, (1, 6, 4, 8))
    b.op("AVERAGE_POOL_2D", [m], [a], "Pool2DOptions", **pool)
    w = net.conv(a, 0.6, 32, (1, 1, 8), (6, 4), 0.4, -128, **relu)
    if head == "MEAN":
        v, v_scale = b.tensor((1, 32), "int8", 0.2, -128), 0.2
        b.op("MEAN", [w, b.tensor((2,), "int32", data=[1, 2])], [v], "ReducerOptions", keepDims=False)
    else:
        v, v_scale = b.like(w, (1, 1, 1, 32)), 0.4
        whole = {"strideH": 6, "strideW": 4, "filterHeight": 6, "filterWidth": 4, "padding": VALID}
        b.op("AVERAGE_POOL_2D", [w], [v], "Pool2DOptions", **whole)
    z = net.dense(v, v_scale, (1, 5), 32, 0.1, 11)
    y = b.tensor((1, 5), "int8", 1 / 256, -128)
    b.op("SOFTMAX", [z], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])

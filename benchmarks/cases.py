# SPDX-License-Identifier: Apache-2.0
"""What is measured beside whole models: the kernels of anchors.json as one-operator models, AIfES' MLP."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from conformance.tflite_builder import RELU, SAME, Builder

X_SCALE, W_SCALE = 0.05, 0.01


def _weights(b: Builder, shape: tuple[int, ...], channels: int, axis: int) -> list[int]:
    """Random int8 weights with per-channel scales, and a bias."""
    rng = np.random.default_rng(0)
    scales = np.full(channels, W_SCALE, np.float32)
    w = b.tensor(shape, "int8", scales, 0, axis, rng.integers(-127, 128, shape))
    bias = b.tensor((channels,), "int32", X_SCALE * scales, 0, 0, rng.integers(-2000, 2000, channels))
    return [w, bias]


def _y_scale(terms: int) -> float:
    return float(X_SCALE * W_SCALE * 2 * np.sqrt(terms) * 40)


def dense_model(sizes: tuple[int, ...]) -> bytes:
    """Fully connected layers with ReLU between them."""
    b = Builder()
    x = first = b.tensor((1, sizes[0]), "int8", X_SCALE, 3)
    for i, (k, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        inner = i + 2 < len(sizes)
        y = b.tensor((1, m), "int8", X_SCALE if inner else _y_scale(k), -128 if inner else 0)
        b.op("FULLY_CONNECTED", [x, *_weights(b, (m, k), m, 0)], [y], "FullyConnectedOptions",
             fusedActivationFunction=RELU["RELU" if inner else "NONE"])  # fmt: skip
        x = y
    return b.build([first], [x])


def window_model(kind: str, h: int, w: int, c: int, m: int, kernel: int) -> bytes:
    """One convolution, stride 1, SAME, ReLU."""
    b = Builder()
    x = b.tensor((1, h, w, c), "int8", X_SCALE, 3)
    depthwise = kind == "DEPTHWISE_CONV_2D"
    shape, axis = ((1, kernel, kernel, m), 3) if depthwise else ((m, kernel, kernel, c), 0)
    y = b.tensor((1, h, w, m), "int8", _y_scale(kernel * kernel * (1 if depthwise else c)), -128)
    options: dict[str, Any] = {"depthMultiplier": 1} if depthwise else {}
    b.op(kind, [x, *_weights(b, shape, m, axis)], [y], "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
         padding=SAME, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1,
         fusedActivationFunction=RELU["RELU"], **options)  # fmt: skip
    return b.build([x], [y])


@dataclass(frozen=True)
class Kernel:
    """One operator; ``make`` gives its .tflite file."""

    name: str
    make: Callable[[], bytes]
    macs: int


def _window(name: str, kind: str, h: int, w: int, c: int, m: int, kernel: int) -> Kernel:
    macs = h * w * kernel * kernel * m * (1 if kind == "DEPTHWISE_CONV_2D" else c)
    return Kernel(name, lambda: window_model(kind, h, w, c, m, kernel), macs)


# the names and shapes of anchors.json
KERNELS = (
    Kernel("dense 640 -> 128", lambda: dense_model((640, 128)), 640 * 128),
    Kernel("dense 64 -> 12", lambda: dense_model((64, 12)), 64 * 12),
    _window("conv 3x3, 32x32x3 -> 16", "CONV_2D", 32, 32, 3, 16, 3),
    _window("conv 3x3, 32x32x16 -> 16", "CONV_2D", 32, 32, 16, 16, 3),
    _window("conv 3x3, 8x8x64 -> 64", "CONV_2D", 8, 8, 64, 64, 3),
    _window("conv 1x1, 25x5x64 -> 64", "CONV_2D", 25, 5, 64, 64, 1),
    _window("depthwise 3x3, 25x5x64", "DEPTHWISE_CONV_2D", 25, 5, 64, 64, 3),
)
MLP = (128, 48, 32, 10)

# SPDX-License-Identifier: Apache-2.0
"""Seeded single-operator models: shapes, strides, paddings, zero points and scales that converters seldom give.

Each maker takes a NumPy generator and returns a .tflite file with one input and one output.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from conformance.tflite_builder import RELU, SAME, VALID, Builder

Rng = np.random.Generator
Maker = Callable[[Rng], bytes]
MAKERS: dict[str, Maker] = {}


def _maker(function: Maker) -> Maker:
    MAKERS[function.__name__] = function
    return function


def _scale(rng: Rng, low: float = -3.0, high: float = 0.5) -> float:
    return float(np.float32(10 ** rng.uniform(low, high)))


def _zero(rng: Rng) -> int:
    return int(rng.choice([-128, 127, 0, rng.integers(-128, 128), rng.integers(-128, 128)]))


def _int8(rng: Rng, shape: tuple[int, ...]) -> Any:
    """Random weights, sometimes all at one rail."""
    kind = rng.integers(8)
    if kind == 0:
        return np.full(shape, rng.choice([-127, 127]), np.int8)
    return rng.integers(-127, 128, shape).astype(np.int8)


def _activation(rng: Rng) -> int:
    return int(rng.choice(list(RELU.values())))


def _ratio(rng: Rng, terms: int) -> float:
    """A rescaling factor around what keeps ``terms`` products inside int8; now and then above 1."""
    if rng.integers(5) == 0:
        return float(rng.uniform(1.0, 16.0))
    return float(10 ** rng.uniform(-1.0, 1.0) / (60.0 * np.sqrt(terms)))


def _out(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    return -(-size // stride) if padding == SAME else -(-(size - (kernel - 1) * dilation) // stride)


def _window(rng: Rng, dilated: bool) -> dict[str, Any]:
    while True:
        padding = int(rng.choice([SAME, VALID]))
        h, w = (int(v) for v in rng.integers(1, 10, 2))
        kh, kw = (int(v) for v in rng.choice([1, 1, 2, 3, 4, 5], 2))
        sh, sw = (int(v) for v in rng.integers(1, 4, 2))
        dh, dw = (int(v) for v in rng.choice([1, 1, 2, 3], 2)) if dilated else (1, 1)
        if dh * dw > 1:
            sh = sw = 1  # the converter makes no other; LiteRT computes none
        oh, ow = _out(h, kh, sh, dh, padding), _out(w, kw, sw, dw, padding)
        if oh >= 1 and ow >= 1:
            sizes = {"h": h, "w": w, "kh": kh, "kw": kw, "sh": sh, "sw": sw, "dh": dh, "dw": dw, "oh": oh, "ow": ow}
            return {"padding": padding, **sizes}


def _weighted(
    rng: Rng, b: Builder, x: int, x_scale: float, shape: tuple[int, ...], channels: int, axis: int, terms: int,
    per_channel: bool, weight_zero: int = 0, bias_needed: bool = True,
) -> tuple[list[int], float]:  # fmt: skip
    """Weights and perhaps a bias; returns the operator's inputs and a fitting output scale."""
    w_scale = np.float32(10 ** rng.uniform(-3, -1, channels if per_channel else 1))
    weights = b.tensor(shape, "int8", w_scale, weight_zero, axis if per_channel else 0, _int8(rng, shape))
    inputs = [x, weights]
    y_scale = float(np.float32(x_scale * float(np.median(w_scale)) / _ratio(rng, terms)))
    if bias_needed or rng.integers(4):
        spread = max(2.0, 40.0 * y_scale / (x_scale * float(np.median(w_scale))))
        bias = np.clip(rng.normal(0, spread, channels), -(2**24), 2**24).astype(np.int32)
        inputs.append(b.tensor((channels,), "int32", x_scale * w_scale, 0, 0, bias))
    else:
        inputs.append(-1)
    return inputs, y_scale


@_maker
def conv(rng: Rng) -> bytes:
    b, win = Builder(), _window(rng, dilated=True)
    c, m = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    x_scale = _scale(rng)
    x = b.tensor((1, win["h"], win["w"], c), "int8", x_scale, _zero(rng))
    terms = win["kh"] * win["kw"] * c
    inputs, y_scale = _weighted(rng, b, x, x_scale, (m, win["kh"], win["kw"], c), m, 0, terms, bool(rng.integers(4)))
    y = b.tensor((1, win["oh"], win["ow"], m), "int8", y_scale, _zero(rng))
    b.op("CONV_2D", inputs, [y], "Conv2DOptions", padding=win["padding"],
         strideH=win["sh"], strideW=win["sw"], dilationHFactor=win["dh"], dilationWFactor=win["dw"],
         fusedActivationFunction=_activation(rng))  # fmt: skip
    return b.build([x], [y])


@_maker
def dilated_by_batches(rng: Rng) -> bytes:
    """How converters write a dilated convolution: SPACE_TO_BATCH_ND, CONV_2D without padding, BATCH_TO_SPACE_ND."""
    b, c, m = Builder(), int(rng.integers(1, 6)), int(rng.integers(1, 6))
    block, kernel, phase = ([int(v) for v in rng.integers(low, 4, 2)] for low in (1, 1, 3))
    if sequence := bool(rng.integers(2)):
        block, kernel, phase = [1, block[1]], [1, kernel[1]], [1, phase[1] + 2]
    pads = [[int(v) for v in rng.integers(0, 3, 2)] if d > 1 else [0, 0] for d in block]
    crops = [[int(v) for v in rng.integers(0, 2, 2)] if d > 1 else [0, 0] for d in block]
    size = [d * p - sum(pad) for d, p, pad in zip(block, phase, pads, strict=True)]
    cut = [d * (p - k + 1) - sum(crop) for d, p, k, crop in zip(block, phase, kernel, crops, strict=True)]
    if min(*size, *cut) < 1:
        return dilated_by_batches(rng)
    x_scale, zero, n = _scale(rng), _zero(rng), block[0] * block[1]
    flat = slice(1, 2) if sequence else slice(0, 2)
    x = b.tensor((1, *size[flat], c), "int8", x_scale, zero)
    spread, y_zero = b.like(x, (n, *phase[flat], c)), _zero(rng)
    inputs, y_scale = _weighted(rng, b, spread, x_scale, (m, *kernel, c), m, 0, kernel[0] * kernel[1] * c, True)
    made = b.tensor((n, *(p - k + 1 for p, k in zip(phase, kernel, strict=True)), m), "int8", y_scale, y_zero)
    y = b.like(made, (1, *cut[flat], m))
    blocks = b.tensor((2 - sequence,), "int32", data=block[flat])
    b.op("SPACE_TO_BATCH_ND", [x, blocks, b.tensor((2 - sequence, 2), "int32", data=pads[flat])], [spread])
    if sequence:
        inputs[0] = b.like(x, (n, 1, phase[1], c))
        b.op("EXPAND_DIMS", [spread, b.tensor((), "int32", data=1)], [inputs[0]])
    b.op("CONV_2D", inputs, [made], "Conv2DOptions", padding=VALID, strideH=1, strideW=1, dilationHFactor=1,
         dilationWFactor=1, fusedActivationFunction=_activation(rng))  # fmt: skip
    if sequence:
        row = b.like(made, (n, phase[1] - kernel[1] + 1, m))
        b.op("RESHAPE", [made, b.tensor((3,), "int32", data=(n, phase[1] - kernel[1] + 1, m))], [row], "ReshapeOptions")
        made = row
    b.op("BATCH_TO_SPACE_ND", [made, blocks, b.tensor((2 - sequence, 2), "int32", data=crops[flat])], [y])
    return b.build([x], [y])


@_maker
def depthwise(rng: Rng) -> bytes:
    b, win = Builder(), _window(rng, dilated=True)
    c, mult = int(rng.choice([1, 2, 3, 16, 17, 33])), int(rng.choice([1, 1, 2, 3, 8]))
    x_scale = _scale(rng)
    x = b.tensor((1, win["h"], win["w"], c), "int8", x_scale, _zero(rng))
    shape = (1, win["kh"], win["kw"], c * mult)
    inputs, y_scale = _weighted(rng, b, x, x_scale, shape, c * mult, 3, win["kh"] * win["kw"], True)
    y = b.tensor((1, win["oh"], win["ow"], c * mult), "int8", y_scale, _zero(rng))
    b.op("DEPTHWISE_CONV_2D", inputs, [y], "DepthwiseConv2DOptions",
         padding=win["padding"], strideH=win["sh"], strideW=win["sw"], dilationHFactor=win["dh"],
         dilationWFactor=win["dw"], depthMultiplier=mult, fusedActivationFunction=_activation(rng))  # fmt: skip
    return b.build([x], [y])


@_maker
def grouped(rng: Rng) -> bytes:
    """CONV_2D with a group a channel, which is a depthwise convolution."""
    b, win = Builder(), _window(rng, dilated=True)
    c, mult = int(rng.choice([2, 3, 16, 17])), int(rng.choice([1, 1, 2, 3]))
    x_scale = _scale(rng)
    x = b.tensor((1, win["h"], win["w"], c), "int8", x_scale, _zero(rng))
    shape = (c * mult, win["kh"], win["kw"], 1)
    inputs, y_scale = _weighted(rng, b, x, x_scale, shape, c * mult, 0, win["kh"] * win["kw"], True)
    y = b.tensor((1, win["oh"], win["ow"], c * mult), "int8", y_scale, _zero(rng))
    b.op("CONV_2D", inputs, [y], "Conv2DOptions", padding=win["padding"],
         strideH=win["sh"], strideW=win["sw"], dilationHFactor=win["dh"], dilationWFactor=win["dw"],
         fusedActivationFunction=_activation(rng))  # fmt: skip
    return b.build([x], [y])


@_maker
def dense(rng: Rng) -> bytes:
    b = Builder()
    k, m, rows = int(rng.integers(1, 70)), int(rng.integers(1, 20)), int(rng.choice([1, 1, 3, 5]))
    per_channel = bool(rng.integers(2))
    x_scale = _scale(rng)
    shape = (1, rows, k) if rows > 1 else (1, k)
    x = b.tensor(shape, "int8", x_scale, _zero(rng))
    zero = 0 if per_channel or rng.integers(2) else int(rng.integers(-30, 31))
    inputs, y_scale = _weighted(rng, b, x, x_scale, (m, k), m, 0, k, per_channel, zero, bias_needed=False)
    y = b.tensor((*shape[:-1], m), "int8", y_scale, _zero(rng))
    b.op("FULLY_CONNECTED", inputs, [y], "FullyConnectedOptions", keepNumDims=rows > 1,
         fusedActivationFunction=_activation(rng))  # fmt: skip
    return b.build([x], [y])


def _pool(rng: Rng, kind: str) -> bytes:
    b, win = Builder(), _window(rng, dilated=False)
    c = int(rng.integers(1, 20))
    scale, zero = _scale(rng), _zero(rng)
    x = b.tensor((1, win["h"], win["w"], c), "int8", scale, zero)
    y = b.tensor((1, win["oh"], win["ow"], c), "int8", scale, zero)
    b.op(kind, [x], [y], "Pool2DOptions", padding=win["padding"], strideH=win["sh"], strideW=win["sw"],
         filterHeight=win["kh"], filterWidth=win["kw"], fusedActivationFunction=_activation(rng))  # fmt: skip
    return b.build([x], [y])


@_maker
def average_pool(rng: Rng) -> bytes:
    return _pool(rng, "AVERAGE_POOL_2D")


@_maker
def max_pool(rng: Rng) -> bytes:
    return _pool(rng, "MAX_POOL_2D")


@_maker
def mean(rng: Rng) -> bytes:
    b = Builder()
    shape = (1, *(int(v) for v in rng.integers(1, 12, 3)))
    axes = [[1, 2], [1], [2], [3], [2, 3], [1, 2, 3]][rng.integers(6)]
    x_scale, keep = _scale(rng), bool(rng.integers(2))
    x = b.tensor(shape, "int8", x_scale, _zero(rng))
    table = b.tensor((len(axes),), "int32", data=axes)
    out = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
    y = b.tensor(out, "int8", x_scale * float(10 ** rng.uniform(-1.3, 0.3)), _zero(rng))
    b.op("MEAN", [x, table], [y], "ReducerOptions", keepDims=keep)
    return b.build([x], [y])


@_maker
def add(rng: Rng) -> bytes:
    b = Builder()
    shape = (1, *(int(v) for v in rng.integers(1, 7, 3)))
    x_scale = _scale(rng, -2.0, 0.0)
    x = b.tensor(shape, "int8", x_scale, _zero(rng))
    kind, other_scale = rng.integers(4), x_scale * float(10 ** rng.uniform(-1.5, 1.5))
    if kind == 0:
        other = x
    elif kind == 1:
        other = b.tensor(shape, "int8", other_scale, _zero(rng), data=_int8(rng, shape))
    elif kind == 2:
        other = b.tensor((1,), "int8", other_scale, _zero(rng), data=_int8(rng, (1,)))
    else:
        other = b.tensor(shape, "int8", other_scale, _zero(rng))
        b.op("QUANTIZE", [x], [other])
    y_scale = max(x_scale, other_scale) * float(10 ** rng.uniform(-1.5, 0.7))
    y = b.tensor(shape, "int8", y_scale, _zero(rng))
    inputs = [x, other] if rng.integers(2) else [other, x]
    b.op("ADD", inputs, [y], "AddOptions", fusedActivationFunction=_activation(rng), potScaleInt16=False)
    return b.build([x], [y])


@_maker
def pad(rng: Rng) -> bytes:
    b = Builder()
    shape = (1, *(int(v) for v in rng.integers(1, 6, rng.integers(1, 4))))
    table = rng.integers(0, 4, (len(shape), 2))
    table[0] = 0
    scale, zero = _scale(rng), _zero(rng)
    x = b.tensor(shape, "int8", scale, zero)
    out = tuple(int(d + before + after) for d, (before, after) in zip(shape, table, strict=True))
    pads = b.tensor(table.shape, "int32", data=table)
    y = b.tensor(out, "int8", scale, zero)
    if rng.integers(2):
        b.op("PAD", [x, pads], [y], "PadOptions")
    else:
        value = b.tensor((1,), "int8", scale, zero, data=[rng.integers(-128, 128)])
        b.op("PADV2", [x, pads, value], [y], "PadV2Options")
    return b.build([x], [y])


def _padded(b: Builder, x: int, shape: tuple[int, ...], scale: float, zero: int) -> int:
    """One element more in the last dimension: an operator that no pass takes away."""
    table = np.zeros((len(shape), 2), np.int32)
    table[-1, 1] = 1
    y = b.tensor((*shape[:-1], shape[-1] + 1), "int8", scale, zero)
    b.op("PAD", [x, b.tensor(table.shape, "int32", data=table)], [y], "PadOptions")
    return y


@_maker
def softmax(rng: Rng) -> bytes:
    b = Builder()
    shape = [(1, int(rng.integers(2, 40))), (1, 3, 2, int(rng.integers(2, 9)))][rng.integers(2)]
    x = b.tensor(shape, "int8", _scale(rng, -3.0, 0.5), _zero(rng))
    y = b.tensor(shape, "int8", 1 / 256, -128)
    b.op("SOFTMAX", [x], [y], "SoftmaxOptions", beta=float(rng.choice([1.0, 1.0, 0.5, 2.0])))
    return b.build([x], [y if len(shape) == 2 else _padded(b, y, shape, 1 / 256, -128)])


@_maker
def edges(rng: Rng) -> bytes:
    """QUANTIZE and DEQUANTIZE: float32, uint8 and int8 outside, one rescaling inside."""
    b, shape = Builder(), (1, int(rng.integers(1, 50)))
    scale, zero = _scale(rng, -2.5, 0.0), _zero(rng)
    kind = rng.integers(4)
    inner = b.tensor(shape, "int8", scale, zero)
    if kind == 0:
        x = b.tensor(shape, "float32")
    elif kind == 1:
        x = b.tensor(shape, "uint8", scale * rng.choice([1.0, 0.7]), zero + 128)
    else:
        x = b.tensor(shape, "int8", scale * float(10 ** rng.uniform(-1.5, 1.5)), _zero(rng))
    b.op("QUANTIZE", [x], [inner])
    inner, shape = _padded(b, inner, shape, scale, zero), (1, shape[1] + 1)
    if kind == 2:
        y = b.tensor(shape, "float32")
        b.op("DEQUANTIZE", [inner], [y])
    else:
        dtype = ["uint8", "int8"][rng.integers(2)]
        other = rng.integers(0, 256) - (128 if dtype == "int8" else 0)
        y = b.tensor(shape, dtype, scale * float(10 ** rng.uniform(-1.0, 1.0)), int(other))
        b.op("QUANTIZE", [inner], [y])
    return b.build([x], [y])


def _computed(rng: Rng, b: Builder, x: int, x_scale: float, length: int, shape: tuple[int, ...]) -> tuple[int, float]:
    """An activation of any shape made from x [1, length] by a dense layer; returns it and its scale."""
    size = int(np.prod(shape))
    inputs, scale = _weighted(rng, b, x, x_scale, (size, length), size, 0, length, True)
    zero = _zero(rng)
    flat, made = b.tensor((1, size), "int8", scale, zero), b.tensor(shape, "int8", scale, zero)
    b.op("FULLY_CONNECTED", inputs, [flat], "FullyConnectedOptions", fusedActivationFunction=0)
    b.op("RESHAPE", [flat, b.tensor((len(shape),), "int32", data=shape)], [made], "ReshapeOptions")
    return made, scale


def _operand(rng: Rng, b: Builder, x: int, x_scale: float, length: int, shape: tuple[int, ...], fixed: bool) -> Any:
    """A constant, or what :func:`_computed` makes; and its scale."""
    if not fixed:
        return _computed(rng, b, x, x_scale, length, shape)
    scale = _scale(rng)
    return b.tensor(shape, "int8", scale, _zero(rng), data=_int8(rng, shape)), scale


@_maker
def batch_matmul(rng: Rng) -> bytes:
    b, length, x_scale = Builder(), int(rng.integers(4, 16)), _scale(rng)
    m, k, n = (int(v) for v in rng.integers(2, 14, 3))
    adj_x, adj_y, fixed = bool(rng.integers(2)), bool(rng.integers(2)), int(rng.integers(5))
    batch = tuple(int(v) for v in rng.integers(1, 4, rng.integers(0, 4)))
    one = tuple(int(rng.choice([1, d])) for d in batch)  # broadcast
    left, right = [(batch, batch), (one, batch), (batch, one), (batch, batch[:0]), (batch[:0], batch)][rng.integers(5)]
    x = b.tensor((1, length), "int8", x_scale, _zero(rng))
    first, first_scale = _operand(rng, b, x, x_scale, length, left + ((k, m) if adj_x else (m, k)), fixed == 0)
    second, second_scale = _operand(rng, b, x, x_scale, length, right + ((n, k) if adj_y else (k, n)), fixed == 1)
    y = b.tensor((*batch, m, n), "int8", np.float32(first_scale * second_scale / _ratio(rng, k)), _zero(rng))
    b.op("BATCH_MATMUL", [first, second], [y], "BatchMatMulOptions", adjX=adj_x, adjY=adj_y)
    return b.build([x], [_flat(b, y, m * n * int(np.prod(batch, dtype=int)))])


@_maker
def dense_of_activations(rng: Rng) -> bytes:
    """FULLY_CONNECTED whose weights are an activation with a zero point, with and without a constant bias."""
    b, length, x_scale = Builder(), int(rng.integers(4, 16)), _scale(rng, -0.5, 0.5)
    m, k, n = (int(v) for v in rng.integers(2, 14, 3))
    x = b.tensor((1, length), "int8", x_scale, _zero(rng))
    first, first_scale = _computed(rng, b, x, x_scale, length, (1, m, k))
    second, second_scale = _computed(rng, b, x, x_scale, length, (n, k))
    y_scale = np.float32(first_scale * second_scale / _ratio(rng, k))
    bias = -1
    if rng.integers(2):
        spread = 40.0 * y_scale / (first_scale * second_scale)
        bias = b.tensor((n,), "int32", first_scale * second_scale, data=np.rint(rng.normal(0, spread, n)))
    y = b.tensor((1, m, n), "int8", y_scale, int(rng.integers(-60, 61)))
    b.op("FULLY_CONNECTED", [first, second, bias], [y], "FullyConnectedOptions", keepNumDims=True,
         fusedActivationFunction=_activation(rng) if rng.integers(2) else 0)  # fmt: skip
    return b.build([x], [_flat(b, y, m * n)])


@_maker
def inner_softmax(rng: Rng) -> bytes:
    """A softmax with layers before and behind it."""
    b, length, x_scale = Builder(), int(rng.integers(1, 12)), _scale(rng)
    rows, depth = int(rng.integers(1, 6)), int(rng.integers(2, 12))
    x = b.tensor((1, length), "int8", x_scale, _zero(rng))
    scores, scale = _computed(rng, b, x, x_scale, length, (1, rows, depth))
    weights = b.tensor((1, rows, depth), "int8", 1 / 256, -128)
    b.op("SOFTMAX", [scores], [weights], "SoftmaxOptions", beta=float(10 ** rng.uniform(-2.5, -1.0)) / scale)
    inputs, y_scale = _weighted(rng, b, weights, 1 / 256, (3, depth), 3, 0, depth, True, bias_needed=False)
    y = b.tensor((1, rows, 3), "int8", y_scale, _zero(rng))
    b.op("FULLY_CONNECTED", inputs, [y], "FullyConnectedOptions", keepNumDims=True)
    return b.build([x], [_flat(b, y, rows * 3)])


def _flat(b: Builder, x: int, size: int) -> int:
    """x as [1, size], for the twin has no leading 1."""
    t = b.like(x, (1, size))
    b.op("RESHAPE", [x, b.tensor((2,), "int32", data=(1, size))], [t], "ReshapeOptions")
    return t


def case(kind: str, seed: int) -> bytes:
    """The .tflite of one case."""
    return MAKERS[kind](np.random.default_rng([seed, zlib.crc32(kind.encode())]))

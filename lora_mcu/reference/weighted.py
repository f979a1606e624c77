# SPDX-License-Identifier: Apache-2.0
"""Dense, convolution and depthwise layers, forward and backward. Activations int8 in the tensors' shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lora_mcu.ir import Conv2D, Dense, Depthwise, Graph, Op, Window
from lora_mcu.reference import i16, lora, requant
from lora_mcu.reference.ordered import F32, Array, ordered_sum

Index = tuple[int, int, int, int]  # ky, kx, iy, ix


def taps(window: Window, position: tuple[int, int], size: tuple[int, int]) -> Iterator[Index]:
    """The taps of one output position that lie inside an input of ``size`` (H, W)."""
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            iy = position[0] * window.stride[0] - window.pad_top + ky * window.dilation[0]
            ix = position[1] * window.stride[1] - window.pad_left + kx * window.dilation[1]
            if 0 <= iy < size[0] and 0 <= ix < size[1]:
                yield ky, kx, iy, ix


def positions(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Output positions of [1, H, W, C], row-major."""
    return [(oy, ox) for oy in range(shape[1]) for ox in range(shape[2])]


def image_patches(x: Array, zero_point: int, window: Window, out: tuple[int, ...]) -> Array:
    """[P, kh, kw, C] of x - z, 0 in the padding."""
    _, h, w, c = x.shape
    made = np.zeros((out[1] * out[2], *window.kernel, c), np.int64)
    for p, position in enumerate(positions(out)):
        for ky, kx, iy, ix in taps(window, position, (h, w)):
            made[p, ky, kx] = x[0, iy, ix].astype(np.int64) - zero_point
    return made


def _matrix(op: Op, graph: Graph) -> Array:
    """Weights [M, K] minus their zero point."""
    w = graph.tensors[op.inputs[1]]
    assert w.data is not None
    return np.asarray(w.data.reshape(w.shape[0], -1).astype(np.int64) - (w.z if len(w.scale) == 1 else 0))


def _patches(op: Op, graph: Graph, x: Array) -> Array:
    """[P, K] = x - z_x of a dense layer or convolution."""
    z = graph.tensors[op.inputs[0]].z
    if isinstance(op, Conv2D):
        made = image_patches(x, z, op.window, graph.tensors[op.output].shape)
        return made.reshape(len(made), -1)
    return x.reshape(-1, graph.tensors[op.inputs[1]].shape[1]).astype(np.int64) - z


def _bias(op: Conv2D | Dense | Depthwise, graph: Graph) -> Array | int:
    data = None if op.bias is None else graph.tensors[op.bias].data
    return 0 if data is None else data.astype(np.int64).ravel()


def forward(op: Conv2D | Dense, graph: Graph, x: Array, factors: lora.Factors | i16.Factors | None) -> Array:
    """y of a dense layer or convolution, with its adapter if it has one."""
    tx, tw, ty = (graph.tensors[i] for i in (op.inputs[0], op.weights, op.output))
    patches, matrix = _patches(op, graph, x), _matrix(op, graph)
    # exact: every product is below 2^16 and a float64 holds integers up to 2^53
    acc = (patches.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.int64) + _bias(op, graph)
    if factors is not None:
        delta = factors.delta(patches) if isinstance(factors, i16.Factors) else lora.delta(factors, patches)
        acc = np.clip(acc + delta, -(2**31), 2**31 - 1)
    scales = requant.output_scales(tx, tw, ty, len(matrix))
    rq = requant.double_rounding if isinstance(op, Conv2D) else requant.half_away
    return requant.to_output(rq(acc, scales), ty, op.activation).reshape(ty.shape)


def backward(
    op: Conv2D | Dense, graph: Graph, x: Array, y: Array, g: NDArray[np.float32], factors: lora.Factors | None,
    dx: NDArray[np.float32] | None,
) -> None:  # fmt: skip
    """Adds to ``dx`` (shape of x; None at the first adapted layer) and to the factors' gradients."""
    patches, matrix = _patches(op, graph, x), _matrix(op, graph)
    ty = graph.tensors[op.output]
    g = requant.masked(g, y, ty, op.activation).reshape(len(patches), -1)
    h = None if factors is None else lora.backward(factors, patches, g)
    if dx is None:
        return
    scaled = (np.broadcast_to(graph.tensors[op.weights].scale, (len(matrix),)) * g).astype(F32)
    value = np.zeros(patches.shape, F32)
    for o, row in enumerate(matrix.astype(F32)):
        value += scaled[:, o : o + 1] * row
    if factors is not None and h is not None:
        value += lora.input_gradient(factors, h)
    if isinstance(op, Conv2D):
        _scatter(op.window, value.reshape(len(value), *op.window.kernel, -1), ty.shape, dx)
    else:
        dx += value.reshape(dx.shape)


def backward_i16(
    op: Conv2D | Dense, graph: Graph, x: Array, y: Array, g: NDArray[np.float32], factors: i16.Factors | None,
    dx: NDArray[np.float32] | None, shared: bool, draw: i16.Draw,
) -> None:  # fmt: skip
    """As ``backward``; ``shared``: all positions have one gradient, which is quantized once."""
    patches, matrix = _patches(op, graph, x), _matrix(op, graph)
    ty = graph.tensors[op.output]
    scales = np.broadcast_to(graph.tensors[op.weights].scale, (len(matrix),)).astype(F32)
    g = g.reshape(len(patches), -1)[: 1 if shared else None]
    if not np.isfinite(g).all():
        _poison(factors, dx)
        return
    q = i16.quantize(np.ascontiguousarray(g), scales, len(matrix), draw)
    if q is None:
        return
    every = np.broadcast_to(q.g, (len(patches), len(matrix))).astype(F32)
    kept = requant.masked(every, y.reshape(every.shape), ty, op.activation) != 0
    beside, beside_unit = None, 0
    if factors is not None:
        largest = int(np.abs(q.g).sum(axis=1).max())
        beside, beside_unit = i16.adapter_gradients(factors, patches, q, q.g * kept, largest, draw)
    if dx is None:
        return
    value = i16.values((q.v * kept) @ matrix, q.v_unit, beside, beside_unit)
    value[~kept.any(axis=1)] = 0
    if isinstance(op, Conv2D):
        _scatter(op.window, value.reshape(len(value), *op.window.kernel, -1), ty.shape, dx)
    else:
        dx += value.reshape(dx.shape)


def _poison(factors: i16.Factors | None, dx: NDArray[np.float32] | None) -> None:
    """A gradient that is not finite: the step will be skipped."""
    if factors is not None:
        factors.da[0, 0] = np.nan
    if dx is not None:
        dx[...] = np.nan


def _scatter(window: Window, value: NDArray[np.float32], out: tuple[int, ...], dx: NDArray[np.float32]) -> None:
    for p, position in enumerate(positions(out)):
        for ky, kx, iy, ix in taps(window, position, dx.shape[1:3]):
            dx[0, iy, ix] += value[p, ky, kx]


def depthwise_forward(op: Depthwise, graph: Graph, x: Array) -> Array:
    tx, tw, ty = (graph.tensors[i] for i in (op.inputs[0], op.weights, op.output))
    assert tw.data is not None
    patches = np.repeat(image_patches(x, tx.z, op.window, ty.shape), op.multiplier, axis=3)
    acc = (patches * tw.data.astype(np.int64)).sum(axis=(1, 2)) + _bias(op, graph)
    scales = requant.output_scales(tx, tw, ty, ty.shape[3])
    return requant.to_output(requant.double_rounding(acc, scales), ty, op.activation).reshape(ty.shape)


def depthwise_backward(op: Depthwise, graph: Graph, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32]) -> None:
    tw, ty = graph.tensors[op.weights], graph.tensors[op.output]
    assert tw.data is not None
    weights, channels = tw.data[0].astype(F32), ty.shape[3]
    g = requant.masked(g, y, ty, op.activation).reshape(-1, channels)
    scaled = (np.broadcast_to(tw.scale, (channels,)) * g).astype(F32)
    for p, position in enumerate(positions(ty.shape)):
        for ky, kx, iy, ix in taps(op.window, position, dx.shape[1:3]):
            terms = (scaled[p] * weights[ky, kx]).reshape(-1, op.multiplier)
            dx[0, iy, ix] += ordered_sum(terms, axis=1)


def depthwise_backward_i16(
    op: Depthwise, graph: Graph, y: Array, g: NDArray[np.float32], dx: NDArray[np.float32], draw: i16.Draw
) -> None:
    """Every input element is one exact sum over its taps, added once."""
    tw, ty = graph.tensors[op.weights], graph.tensors[op.output]
    assert tw.data is not None
    weights, channels = tw.data[0].astype(np.int64), ty.shape[3]
    g = g.reshape(-1, channels)
    if not np.isfinite(g).all():
        _poison(None, dx)
        return
    terms = op.window.kernel[0] * op.window.kernel[1] * op.multiplier
    q = i16.quantize(np.ascontiguousarray(g), np.broadcast_to(tw.scale, (channels,)).astype(F32), terms, draw)
    if q is None:
        return
    kept = q.v * (requant.masked(q.g.astype(F32), y.reshape(g.shape), ty, op.activation) != 0)
    sums = np.zeros(dx.shape, np.int64)
    for p, position in enumerate(positions(ty.shape)):
        for ky, kx, iy, ix in taps(op.window, position, dx.shape[1:3]):
            sums[0, iy, ix] += (kept[p] * weights[ky, kx]).reshape(-1, op.multiplier).sum(axis=1)
    dx += i16.values(sums, q.v_unit, None, 0)

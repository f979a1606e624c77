# SPDX-License-Identifier: Apache-2.0
"""Seeded models of the operators that move elements, or reduce them: odd shapes, axes, masks and indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from conformance.op_cases import Rng, _activation, _maker, _padded, _scale, _weighted, _zero
from conformance.tflite_builder import SAME, VALID, Builder

Shape = tuple[int, ...]
Piece = Callable[[Builder, Rng, int, Shape, dict[str, Any]], tuple[int, Shape]]


def _sizes(rng: Rng, rank: int, high: int = 6) -> Shape:
    return (1, *(int(v) for v in rng.integers(1, high, rank - 1)))


def _ints(b: Builder, values: Any) -> int:
    data = np.asarray(values, np.int32)
    return b.tensor(data.shape or (1,), "int32", data=data)


def _signed(rng: Rng, axis: int, rank: int) -> int:
    """An axis counted from the front or from the back."""
    return axis - (rank if rng.integers(2) else 0)


def concatenation(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    """x, parts of x, itself again or a constant, in any order."""
    axis, rank = int(rng.integers(0, len(shape))), len(shape)
    inputs, total = [], 0
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.integers(4)
        size = int(rng.integers(1, 4))
        part = (*shape[:axis], size, *shape[axis + 1 :])
        if kind == 0:
            inputs.append(b.tensor(part, data=rng.integers(-128, 128, part), **q))
        elif kind == 1 and size <= shape[axis]:
            inputs.append(b.tensor(part, **q))
            begin = [0] * rank
            begin[axis] = shape[axis] - size
            b.op("SLICE", [x, _ints(b, begin), _ints(b, part)], [inputs[-1]], "SliceOptions")
        else:
            inputs.append(x)
            size = shape[axis]
        total += size
    if x not in inputs:
        inputs.insert(int(rng.integers(0, len(inputs) + 1)), x)
        total += shape[axis]
    out = (*shape[:axis], total, *shape[axis + 1 :])
    y = b.tensor(out, **q)
    b.op("CONCATENATION", inputs, [y], "ConcatenationOptions", axis=_signed(rng, axis, rank))
    return y, out


def strided_slice(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    """All masks, negative ends and steps."""
    begin, end, stride, masks, out = [], [], [], [0, 0, 0], []
    for i, d in enumerate(shape):
        step = int(rng.choice([1, 1, 2, 3, -1, -2]))
        low, high = sorted(int(v) for v in rng.integers(0, d + 1, 2))
        low, high = (low, high) if low < high else (0, d)
        first, last = (low, high) if step > 0 else (high - 1, low - 1)
        count = len(range(first, last, step))
        if rng.integers(4) == 0:
            masks[2] |= 1 << i
            first, step, count = first, 1, 1
            last = first + 1
        else:
            out.append(count)
            if (first == 0 if step > 0 else first == d - 1) and rng.integers(2):
                masks[0] |= 1 << i
            if last == (d if step > 0 else -1):
                masks[1] |= 1 << i
        begin.append(first - d if rng.integers(2) else first)
        end.append(last - d if last < d and rng.integers(2) and last >= 0 else last)
        stride.append(step)
    used = len(shape)
    if begin and not masks[2] >> (used - 1) & 1 and rng.integers(3) == 0 and len(range(shape[-1])) == out[-1]:
        used -= 1  # what is not given is taken whole
        out[-1] = shape[-1]
    if not out:
        masks[2] &= ~1
        out.append(1)
    keep = (1 << used) - 1
    y = b.tensor(tuple(out), **q)
    b.op("STRIDED_SLICE", [x, *(_ints(b, v[:used]) for v in (begin, end, stride))], [y], "StridedSliceOptions",
         beginMask=masks[0] & keep, endMask=masks[1] & keep, shrinkAxisMask=masks[2] & keep)  # fmt: skip
    return y, tuple(out)


def _joined(b: Builder, rng: Rng, parts: list[tuple[int, Shape]], q: dict[str, Any]) -> tuple[int, Shape]:
    """Some of the parts, flattened, side by side: the others are read by nothing."""
    order = [parts[i] for i in rng.permutation(len(parts))[: max(1, len(parts) - 1)]]
    flat = []
    for tensor, shape in order:
        size = int(np.prod(shape))
        flat.append(b.tensor((1, size), **q))
        b.op("RESHAPE", [tensor, _ints(b, (1, size))], [flat[-1]], "ReshapeOptions", newShape=[1, size])
    out = (1, sum(int(np.prod(s)) for _, s in order))
    y = b.tensor(out, **q)
    b.op("CONCATENATION", flat, [y], "ConcatenationOptions", axis=1)
    return y, out


def split(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axis = int(rng.integers(0, len(shape)))
    count = int(rng.choice([c for c in range(1, shape[axis] + 1) if shape[axis] % c == 0]))
    part = (*shape[:axis], shape[axis] // count, *shape[axis + 1 :])
    outs = [b.tensor(part, **q) for _ in range(count)]
    b.op("SPLIT", [_ints(b, _signed(rng, axis, len(shape))), x], outs, "SplitOptions", numSplits=count)
    return _joined(b, rng, [(o, part) for o in outs], q)


def split_v(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axis = int(rng.integers(0, len(shape)))
    cuts = sorted({0, shape[axis], *(int(v) for v in rng.integers(0, shape[axis] + 1, 2))})
    sizes = [hi - lo for lo, hi in zip(cuts, cuts[1:], strict=False)]
    shapes = [(*shape[:axis], s, *shape[axis + 1 :]) for s in sizes]
    outs = [b.tensor(s, **q) for s in shapes]
    said = list(sizes)
    if rng.integers(2):
        said[int(rng.integers(len(said)))] = -1
    b.op("SPLIT_V", [x, _ints(b, said), _ints(b, _signed(rng, axis, len(shape)))], outs, "SplitVOptions",
         numSplits=len(sizes))  # fmt: skip
    return _joined(b, rng, list(zip(outs, shapes, strict=True)), q)


def unpack(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axis = int(rng.integers(0, len(shape)))
    part = (*shape[:axis], *shape[axis + 1 :])
    outs = [b.tensor(part, **q) for _ in range(shape[axis])]
    b.op("UNPACK", [x], outs, "UnpackOptions", axis=_signed(rng, axis, len(shape)), num=shape[axis])
    return _joined(b, rng, [(o, part) for o in outs], q)


def pack(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axis, count = int(rng.integers(0, len(shape) + 1)), int(rng.integers(1, 4))
    inputs = [x if rng.integers(2) else b.tensor(shape, data=rng.integers(-128, 128, shape), **q) for _ in range(count)]
    inputs[int(rng.integers(count))] = x
    out = (*shape[:axis], count, *shape[axis:])
    y = b.tensor(out, **q)
    b.op("PACK", inputs, [y], "PackOptions", axis=_signed(rng, axis, len(out)), valuesCount=count)
    return y, out


def transpose(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    perm = [int(p) for p in rng.permutation(len(shape))]
    out = tuple(shape[p] for p in perm)
    y = b.tensor(out, **q)
    b.op("TRANSPOSE", [x, _ints(b, perm)], [y], "TransposeOptions")
    return y, out


def gather(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axis = int(rng.integers(0, len(shape)))
    index = rng.integers(0, shape[axis], [(3,), (2, 2), (1,)][rng.integers(3)])
    out = (*shape[:axis], *index.shape, *shape[axis + 1 :])
    y = b.tensor(out, **q)
    b.op("GATHER", [x, _ints(b, index)], [y], "GatherOptions", axis=_signed(rng, axis, len(shape)))
    return y, out


def reverse(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    y = b.tensor(shape, **q)
    b.op("REVERSE_V2", [x, _ints(b, [int(rng.integers(0, len(shape)))])], [y], "ReverseV2Options")
    return y, shape


def tile(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    times = [int(v) for v in rng.integers(1, 4, len(shape))]
    out = tuple(d * t for d, t in zip(shape, times, strict=True))
    y = b.tensor(out, **q)
    b.op("TILE", [x, _ints(b, times)], [y], "TileOptions")
    return y, out


def broadcast_to(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    out = tuple(int(rng.integers(1, 4)) if d == 1 else d for d in shape)
    y = b.tensor(out, **q)
    b.op("BROADCAST_TO", [x, _ints(b, out)], [y], "BroadcastToOptions")
    return y, out


def mirror_pad(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    mode = int(rng.integers(2))  # 0 REFLECT, 1 SYMMETRIC
    table = np.array([rng.integers(0, min(3, d + mode), 2) for d in shape])
    out = tuple(int(d + sum(p)) for d, p in zip(shape, table, strict=True))
    y = b.tensor(out, **q)
    b.op("MIRROR_PAD", [x, _ints(b, table)], [y], "MirrorPadOptions", mode=mode)
    return y, out


def resize_nearest(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    out = (1, *(int(v) for v in rng.integers(1, 14, 2)), shape[3])
    y = b.tensor(out, **q)
    corners = bool(rng.integers(2))
    b.op("RESIZE_NEAREST_NEIGHBOR", [x, _ints(b, out[1:3])], [y], "ResizeNearestNeighborOptions", alignCorners=corners,
         halfPixelCenters=not corners and bool(rng.integers(2)))  # fmt: skip
    return y, out


def resize_bilinear(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    out = (1, *(int(v) for v in rng.integers(1, 14, 2)), shape[3])
    y = b.tensor(out, **q)
    corners = bool(rng.integers(2))
    b.op("RESIZE_BILINEAR", [x, _ints(b, out[1:3])], [y], "ResizeBilinearOptions", alignCorners=corners,
         halfPixelCenters=not corners and bool(rng.integers(2)))  # fmt: skip
    return y, out


def depth_to_space(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    block = int(rng.integers(1, 4))
    wide = (*shape[:3], shape[3] * block * block)
    index = np.arange(wide[3]) % shape[3]
    w = b.tensor(wide, **q)
    b.op("GATHER", [x, _ints(b, index)], [w], "GatherOptions", axis=3)
    out = (1, shape[1] * block, shape[2] * block, shape[3])
    y = b.tensor(out, **q)
    b.op("DEPTH_TO_SPACE", [w], [y], "DepthToSpaceOptions", blockSize=block)
    return y, out


def space_to_depth(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    block = int(rng.choice([k for k in (1, 2, 3) if shape[1] % k == shape[2] % k == 0]))
    out = (1, shape[1] // block, shape[2] // block, shape[3] * block * block)
    y = b.tensor(out, **q)
    b.op("SPACE_TO_DEPTH", [x], [y], "SpaceToDepthOptions", blockSize=block)
    return y, out


def mean_apart(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    """Axes that are no neighbours, or all kinds of them."""
    axes = [i for i in range(len(shape)) if rng.integers(2)] if rng.integers(2) else [0, len(shape) - 1]
    return _reduced(b, rng, x, shape, "MEAN", axes or [1], q["scale"] * float(10 ** rng.uniform(-1.3, 0.3)), _zero(rng))


def reduce_max(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axes = [i for i in range(len(shape)) if rng.integers(2)] or [1]
    return _reduced(b, rng, x, shape, "REDUCE_MAX", axes, q["scale"], q["zero_point"])


def reduce_sum(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    axes = [i for i in range(len(shape)) if rng.integers(2)] or [1]
    scale = q["scale"] * float(10 ** rng.uniform(-0.5, 1.5))
    return _reduced(b, rng, x, shape, "SUM", axes, scale, _zero(rng))


def _reduced(
    b: Builder, rng: Rng, x: int, shape: Shape, kind: str, axes: list[int], scale: float, zero: int
) -> tuple[int, Shape]:
    keep = bool(rng.integers(2))
    out = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
    y = b.tensor(out, scale=scale, zero_point=zero)
    signed = [_signed(rng, a, len(shape)) for a in axes]
    b.op(kind, [x, _ints(b, signed)], [y], "ReducerOptions", keepDims=keep)
    return y, out


def transpose_conv(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    kernel, stride = (int(v) for v in rng.integers(1, 5, 2)), [int(v) for v in rng.integers(1, 4, 2)]
    kernel, padding, filters = list(kernel), int(rng.choice([SAME, VALID])), int(rng.integers(1, 6))
    size = []
    for n, k, s in zip(shape[1:3], kernel, stride, strict=True):
        low = (n - 1) * s + (1 if padding == SAME else k)
        size.append(int(rng.integers(low, low + s)))
    per_channel = bool(rng.integers(4))
    w_shape = (filters, *kernel, shape[3])
    inputs, y_scale = _weighted(
        rng, b, x, q["scale"], w_shape, filters, 0, kernel[0] * kernel[1] * shape[3], per_channel
    )
    out = (1, *size, filters)
    y = b.tensor(out, scale=y_scale, zero_point=_zero(rng))
    b.op("TRANSPOSE_CONV", [_ints(b, out), inputs[1], x, inputs[2]], [y], "TransposeConvOptions", padding=padding,
         strideH=stride[0], strideW=stride[1], fusedActivationFunction=_activation(rng))  # fmt: skip
    return y, out


def log_softmax(b: Builder, rng: Rng, x: int, shape: Shape, q: dict[str, Any]) -> tuple[int, Shape]:
    y = b.tensor(shape, scale=1 / 16, zero_point=127)
    b.op("LOG_SOFTMAX", [x], [y], "LogSoftmaxOptions")
    if len(shape) == 2 and shape[1] > 1:
        return y, shape
    return _padded(b, y, shape, 1 / 16, 127), (*shape[:-1], shape[-1] + 1)


# name: (function, ranks)
PIECES: dict[str, tuple[Piece, tuple[int, ...]]] = {
    "concatenation": (concatenation, (2, 3, 4)),
    "strided_slice": (strided_slice, (2, 3, 4, 5)),
    "split": (split, (2, 3, 4)),
    "split_v": (split_v, (2, 3, 4)),
    "unpack": (unpack, (3, 4)),
    "pack": (pack, (2, 3)),
    "transpose": (transpose, (2, 3, 4, 5)),
    "gather": (gather, (2, 3, 4)),
    "reverse": (reverse, (2, 3, 4)),
    "tile": (tile, (2, 3, 4)),
    "broadcast_to": (broadcast_to, (2, 3, 4)),
    "mirror_pad": (mirror_pad, (2, 3, 4)),
    "resize_nearest": (resize_nearest, (4,)),
    "resize_bilinear": (resize_bilinear, (4,)),
    "depth_to_space": (depth_to_space, (4,)),
    "space_to_depth": (space_to_depth, (4,)),
    "mean_apart": (mean_apart, (3, 4)),
    "reduce_max": (reduce_max, (2, 3, 4)),
    "transpose_conv": (transpose_conv, (4,)),
}
# without a gradient, and without a reference kernel in LiteRT that gets int8 right (docs/numerics.md)
LOG_SOFTMAX, SUM = "log_softmax", "reduce_sum"
PIECES_APART: dict[str, tuple[Piece, tuple[int, ...]]] = {
    LOG_SOFTMAX: (log_softmax, (2, 3)),
    SUM: (reduce_sum, (2, 3, 4)),
}


def _moving(kind: str) -> Callable[[Rng], bytes]:
    def make(rng: Rng) -> bytes:
        piece, ranks = (PIECES | PIECES_APART)[kind]
        b, shape = Builder(), _sizes(rng, int(rng.choice(ranks)))
        q = {"scale": _scale(rng), "zero_point": _zero(rng)}
        x = b.tensor(shape, **q)
        y, _ = piece(b, rng, x, shape, q)
        return b.build([x], [y])

    make.__name__ = kind
    return make


for _kind in (*PIECES, LOG_SOFTMAX):
    _maker(_moving(_kind))
summing = _moving(SUM)

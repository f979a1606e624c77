# SPDX-License-Identifier: Apache-2.0
"""Entries of the operators that move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lora_mcu.importer import embedding
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import IndexedBy, activation, constant, entry, refuse
from lora_mcu.importer.slices import strided_slice
from lora_mcu.ir import (
    Activation,
    Concat,
    DepthToSpace,
    MirrorPad,
    Op,
    Pack,
    Partition,
    ResizeBilinear,
    ResizeNearest,
    Slice,
    SpaceToDepth,
    StridedSlice,
    Take,
    Tile,
    Transpose,
    Unpack,
)
from lora_mcu.ir.resize import ONE, Neighbours
from lora_mcu.ir.shape import MAX_INDEX, MAX_NEIGHBOUR

Table = tuple[int, ...] | None  # None: the whole dimension


def _axis(raw: RawModel, op: RawOp, axis: int, rank: int) -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise refuse(raw, op, f"axis {axis} is out of range for {rank} dimensions")
    return axis % rank


@entry("CONCATENATION")
def _concat(raw: RawModel, op: RawOp) -> Op:
    if activation(raw, op) is not Activation.NONE:
        raise refuse(raw, op, "a fused activation is not supported; convert again without one")
    axis = _axis(raw, op, op.options.Axis(), len(raw.tensors[op.outputs[0]].shape))
    return Concat(op.index, op.inputs, op.outputs, axis, tuple(raw.tensors[i].shape[axis] for i in op.inputs))


@entry("PACK")
def _pack(raw: RawModel, op: RawOp) -> Op:
    axis = _axis(raw, op, op.options.Axis(), len(raw.tensors[op.outputs[0]].shape))
    return Pack(op.index, op.inputs, op.outputs, axis, (1,) * len(op.inputs))


@entry("UNPACK")
def _unpack(raw: RawModel, op: RawOp) -> Op:
    axis = _axis(raw, op, op.options.Axis(), len(raw.tensors[op.inputs[0]].shape))
    return Unpack(op.index, op.inputs[:1], op.outputs, axis, (1,) * len(op.outputs))


@entry("SPLIT")
def _split(raw: RawModel, op: RawOp) -> Op:
    return _partition(raw, op, op.inputs[1], int(constant(raw, op, 0).ravel()[0]))


@entry("SPLIT_V")
def _split_v(raw: RawModel, op: RawOp) -> Op:
    return _partition(raw, op, op.inputs[0], int(constant(raw, op, 2).ravel()[0]))


def _partition(raw: RawModel, op: RawOp, x: int, axis: int) -> Op:
    """The outputs' shapes say the sizes: SPLIT_V may leave one of them to be computed."""
    axis = _axis(raw, op, axis, len(raw.tensors[x].shape))
    return Partition(op.index, [x], op.outputs, axis, tuple(raw.tensors[i].shape[axis] for i in op.outputs))


@entry("SLICE")
def _slice(raw: RawModel, op: RawOp) -> Op:
    shape = raw.tensors[op.inputs[0]].shape
    start = tuple(int(v) for v in constant(raw, op, 1).ravel())
    size = tuple(int(v) for v in constant(raw, op, 2).ravel())
    size = tuple(d - a if s == -1 else s for d, a, s in zip(shape, start, size, strict=True))
    return Slice(op.index, op.inputs[:1], op.outputs, start, (1,) * len(shape), size)


@entry("STRIDED_SLICE")
def _strided_slice(raw: RawModel, op: RawOp) -> Op:
    shape = raw.tensors[op.inputs[0]].shape
    start, step, size = strided_slice(raw, op, shape)
    return StridedSlice(op.index, op.inputs[:1], op.outputs, start, step, size)


@entry("TRANSPOSE")
def _transpose(raw: RawModel, op: RawOp) -> Op:
    shape = raw.tensors[op.inputs[0]].shape
    perm = tuple(_axis(raw, op, int(v), len(shape)) for v in constant(raw, op, 1).ravel())
    return Transpose(op.index, op.inputs[:1], op.outputs, shape, perm)


def _blocks(raw: RawModel, op: RawOp, tensor: int) -> tuple[int, ...]:
    """(n, h, w, c, block) of the smaller image."""
    n, h, w, c = raw.tensors[tensor].shape
    return n, h, w, c, op.options.BlockSize()


@entry("DEPTH_TO_SPACE")
def _depth_to_space(raw: RawModel, op: RawOp) -> Op:
    n, h, w, c, b = _blocks(raw, op, op.inputs[0])
    return DepthToSpace(op.index, op.inputs[:1], op.outputs, (n, h, w, b, b, c // (b * b)), (0, 1, 3, 2, 4, 5))


@entry("SPACE_TO_DEPTH")
def _space_to_depth(raw: RawModel, op: RawOp) -> Op:
    n, h, w, c, b = _blocks(raw, op, op.outputs[0])
    return SpaceToDepth(op.index, op.inputs[:1], op.outputs, (n, h, b, w, b, c // (b * b)), (0, 1, 3, 2, 4, 5))


@entry("GATHER")
def _gather(raw: RawModel, op: RawOp) -> Op:
    if isinstance(op.options, IndexedBy):
        return embedding.made(op)
    shape = raw.tensors[op.inputs[0]].shape
    if op.options is not None and op.options.BatchDims() != 0:
        raise refuse(raw, op, "batch_dims other than 0 is not supported")
    if raw.tensors[op.inputs[1]].data is None:
        raise refuse(raw, op, f"indices {raw.tensors[op.inputs[1]].name!r} must be constant, or the "
                     "model's input and the table a constant int8 one")  # fmt: skip
    axis = _axis(raw, op, op.options.Axis() if op.options else 0, len(shape))
    indices = tuple(int(v) for v in constant(raw, op, 1).ravel())
    dims = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    return Take(op.index, op.inputs[:1], op.outputs, dims, (None, indices, None))


@entry("MIRROR_PAD")
def _mirror_pad(raw: RawModel, op: RawOp) -> Op:
    shape, pads = raw.tensors[op.inputs[0]].shape, constant(raw, op, 1)
    edge = 1 if op.options.Mode() == 0 else 0  # REFLECT leaves the border out, SYMMETRIC repeats it
    if (
        pads.shape != (len(shape), 2)
        or pads.min() < 0
        or any(max(p) > d - edge for d, p in zip(shape, pads, strict=True))
    ):
        raise refuse(raw, op, f"paddings {pads.tolist()} do not fit {list(shape)}")
    tables = [_mirrored(d, int(p[0]), int(p[1]), edge) for d, p in zip(shape, pads, strict=True)]
    return MirrorPad(op.index, op.inputs[:1], op.outputs, *_merge_whole(shape, tables))


def _mirrored(size: int, before: int, after: int, edge: int) -> Table:
    if before == after == 0 or size > MAX_INDEX:
        return None
    front = [edge + i for i in range(before)][::-1]
    back = [size - 1 - edge - i for i in range(after)]
    return (*front, *range(size), *back)


@entry("TILE", "BROADCAST_TO")
def _tile(raw: RawModel, op: RawOp) -> Op:
    """BROADCAST_TO takes a dimension of size 1 as often as the output is long."""
    shape, out = raw.tensors[op.inputs[0]].shape, raw.tensors[op.outputs[0]].shape
    shape = (1,) * (len(out) - len(shape)) + shape
    if max(*out, 1) > MAX_INDEX or any(n % d for d, n in zip(shape, out, strict=True)):
        raise refuse(raw, op, f"{list(shape)} does not repeat to {list(out)}")
    if op.kind == "BROADCAST_TO" and any(d not in (1, n) for d, n in zip(shape, out, strict=True)):
        raise refuse(raw, op, f"{list(shape)} does not broadcast to {list(out)}")
    tables = [None if d == n else tuple(range(d)) * (n // d) for d, n in zip(shape, out, strict=True)]
    return Tile(op.index, op.inputs[:1], op.outputs, *_merge_whole(shape, tables))


def _merge_whole(dims: Sequence[int], tables: Sequence[Table]) -> tuple[tuple[int, ...], tuple[Table, ...]]:
    """Neighbouring dimensions that are taken whole become one."""
    sizes: list[int] = []
    merged: list[Table] = []
    for d, table in zip(dims, tables, strict=True):
        if sizes and table is None and merged[-1] is None:
            sizes[-1] *= d
        else:
            sizes.append(d)
            merged.append(table)
    return tuple(sizes), tuple(merged)


@entry("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR")
def _resize(raw: RawModel, op: RawOp) -> Op:
    x, y = raw.tensors[op.inputs[0]], raw.tensors[op.outputs[0]]
    if len(x.shape) != 4 or len(y.shape) != 4 or x.shape[0] != 1:
        raise refuse(raw, op, f"shapes {list(x.shape)} -> {list(y.shape)} are not [1, H, W, C]")
    limit = MAX_INDEX if op.kind == "RESIZE_NEAREST_NEIGHBOR" else MAX_NEIGHBOUR
    if max(*x.shape[1:3], *y.shape[1:3]) > limit:
        raise refuse(raw, op, f"more than {limit} rows or columns")
    corners, half = bool(op.options.AlignCorners()), bool(op.options.HalfPixelCenters())
    if op.kind == "RESIZE_BILINEAR":
        down, right = (_between(x.shape[i], y.shape[i], corners, half) for i in (1, 2))
        return ResizeBilinear(op.index, op.inputs[:1], op.outputs, down, right)
    rows, columns = (_nearest(x.shape[i], y.shape[i], corners, half) for i in (1, 2))
    dims = (x.shape[1], x.shape[2], x.shape[3])
    return ResizeNearest(op.index, op.inputs[:1], op.outputs, dims, (rows, columns, None))


def _nearest(size: int, out: int, corners: bool, half: bool) -> tuple[int, ...]:
    """Source of each output row, in float32 as the oracle computes it."""
    f32 = np.float32
    scale = f32(size - 1) / f32(out - 1) if corners and out > 1 else f32(size) / f32(out)
    at = (np.arange(out, dtype=f32) + f32(0.5 if half else 0.0)) * scale
    # the sum at + 0.5 is exact in float64
    index = np.floor(at.astype(np.float64) + 0.5) if corners else np.floor(at)
    return tuple(int(v) for v in np.clip(index, 0, size - 1))


def _between(size: int, out: int, corners: bool, half: bool) -> tuple[Neighbours, ...]:
    """Neighbours of each output row; the scale in 1/1024 as the oracle rounds it, both are the last row at the end."""
    scale = (ONE * size + out // 2) // out
    if corners and out > 1:
        scale = (ONE * (size - 1) + (out - 1) // 2) // (out - 1)
    found = []
    for i in range(out):
        at = i * scale + (scale // 2 - ONE // 2 if half else 0)
        first = max(at, 0) // ONE
        found.append((first, min(-(-max(at, 0) // ONE), size - 1), at - ONE * first))
    return tuple(found)


@entry("REVERSE_V2")
def _reverse(raw: RawModel, op: RawOp) -> Op:
    """A slice with negative steps."""
    shape = raw.tensors[op.inputs[0]].shape
    turned = {_axis(raw, op, int(v), len(shape)) for v in constant(raw, op, 1).ravel()}
    start = tuple(d - 1 if i in turned else 0 for i, d in enumerate(shape))
    step = tuple(-1 if i in turned else 1 for i in range(len(shape)))
    return Slice(op.index, op.inputs[:1], op.outputs, start, step, shape)

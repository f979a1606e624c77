# SPDX-License-Identifier: Apache-2.0
"""Emitters of the operators that move elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_mcu.codegen.cdata import Constant, Fields, array, struct
from lora_mcu.codegen.emitter import Context, Emitted, emits, ints, simple
from lora_mcu.ir import (
    Concat,
    DepthToSpace,
    MirrorPad,
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
from lora_mcu.ir.shape import MAX_DIMS, TAKE_DIMS, Copy

COPY: Fields = "i" * (2 + 3 * MAX_DIMS)
TAKE: Fields = "i" * (2 * TAKE_DIMS) + "p" * TAKE_DIMS


def _braces(values: Sequence[int], length: int, fill: int) -> str:
    """An array initializer, filled up in front."""
    return f"{{{ints(*[fill] * (length - len(values)), *values)}}}"


@emits(Concat, Pack, Partition, Unpack, Slice, StridedSlice, Transpose, DepthToSpace, SpaceToDepth)
def _copy(op: Copy, ctx: Context) -> Emitted:
    """One kernel call a piece. An output that nothing reads has no memory; its piece is left out."""
    constants: list[Constant] = []
    forward, backward = [], []
    for number, p in enumerate(op.pieces(ctx.graph)):
        if p.y not in ctx.plan.activation:
            continue
        name = f"lmcu_op{op.index}_{number}"
        values = (f"{_braces(p.dims, MAX_DIMS, 1)}, {ints(p.x_start, p.y_start)}, "
                  f"{_braces(p.x_strides, MAX_DIMS, 0)}, {_braces(p.y_strides, MAX_DIMS, 0)}")  # fmt: skip
        constants.append(struct(name, "lmcu_strided_copy_t", COPY, values, ctx.pointer_bytes))
        forward.append(f"lmcu_strided_copy_forward(&{name}, {ctx.x(p.x)}, {ctx.x(p.y)})")
        if ctx.backward_step >= 0 and p.x in ctx.into and p.y in ctx.plan.gradient:
            backward.append(f"lmcu_strided_copy_backward(&{name}, {ctx.dy(op, p.y)}, {ctx.g(p.x)})")
    return Emitted(constants, ";\n    ".join(forward), ";\n    ".join(backward))


@emits(Take, ResizeNearest, MirrorPad, Tile)
def _take(op: Take, ctx: Context) -> Emitted:
    prefix = f"lmcu_op{op.index}"
    constants, names = [], ["NULL"] * (TAKE_DIMS - len(op.dims))
    for axis, table in enumerate(op.tables):
        if table is None:
            names.append("NULL")
        else:
            names.append(f"{prefix}_{axis}")
            constants.append(array(names[-1], np.array(table, np.uint16)))
    values = (f"{_braces(op.dims, TAKE_DIMS, 1)}, {_braces(op.sizes(), TAKE_DIMS, 1)}, "
              f"{{{', '.join(names)}}}")  # fmt: skip
    constants.append(struct(prefix, "lmcu_take_t", TAKE, values, ctx.pointer_bytes))
    out = Emitted(constants, f"lmcu_take_forward(&{prefix}, {ctx.x(op.inputs[0])}, {ctx.x(op.output)})")
    if ctx.backward_step >= 0:
        out.backward = f"lmcu_take_backward(&{prefix}, {ctx.dy(op)}, {ctx.g(op.inputs[0])})"
    return out


@emits(ResizeBilinear)
def _resize_bilinear(op: ResizeBilinear, ctx: Context) -> Emitted:
    prefix, (_, _, width, channels) = f"lmcu_op{op.index}", ctx.graph.tensors[op.inputs[0]].shape
    tables = [array(f"{prefix}_{name}", np.array(getattr(op, name), np.int16)) for name in ("rows", "columns")]
    values = f"{ints(width, len(op.rows), len(op.columns), channels)}, {prefix}_rows, {prefix}_columns"
    out = simple(op, ctx, "resize_bilinear", "iiiipp", values, backward=(op.output,))
    out.constants = [*tables, *out.constants]
    return out

# SPDX-License-Identifier: Apache-2.0
"""Emitters of elementwise operators: tables, and two operands with broadcasting."""

from __future__ import annotations

import numpy as np

from lora_mcu.codegen import quantmath
from lora_mcu.codegen.cdata import Fields, array, c_float, struct
from lora_mcu.codegen.emitter import CLAMP, Context, Emitted, clamp_values, emits, ints
from lora_mcu.ir import Add, Binary, Lookup, Maximum, Minimum, Mul, Prelu, SquaredDifference, Sub, Tensor

BROADCAST: Fields = "i" * 12


@emits(Lookup)
def _lookup(op: Lookup, ctx: Context) -> Emitted:
    prefix = f"lmcu_op{op.index}"
    constants, slopes = [array(f"{prefix}_table", op.table.values)], "NULL"
    if ctx.backward_step >= 0:
        slopes = f"{prefix}_slopes"
        constants.append(array(slopes, op.table.slopes))
    values = f"{ctx.graph.tensors[op.output].elements}, {prefix}_table, {slopes}"
    constants.append(struct(prefix, "lmcu_lookup_t", "ipp", values, ctx.pointer_bytes))
    x = ctx.x(op.inputs[0])
    out = Emitted(constants, f"lmcu_lookup_forward(&{prefix}, {x}, {ctx.x(op.output)})")
    if ctx.backward_step >= 0:
        out.backward = f"lmcu_lookup_backward(&{prefix}, {x}, {ctx.dy(op)}, {ctx.g(op.inputs[0])})"
    if ctx.bands:
        out.row = f"lmcu_lookup_row(&{prefix}{ctx.rows(op.inputs[0], op.output)})"
    return out


def _tensors(op: Binary, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
    a, b, y = (ctx.graph.tensors[i] for i in (*op.inputs, op.output))
    return a, b, y


def _binary(op: Binary, ctx: Context, kernel: str, ctype: str, fields: Fields, values: str) -> Emitted:
    """The struct begins with the broadcast; constant operands go into the image."""
    prefix, layout = f"lmcu_op{op.index}", op.layout(ctx.graph)
    shape = ", ".join(f"{{{ints(*part)}}}" for part in (layout.dims, layout.a_strides, layout.b_strides))
    constants = [struct(prefix, ctype, [BROADCAST, *fields], f"{{{shape}}}, {values}", ctx.pointer_bytes)]
    a, b, y = (ctx.x(i) for i in (*op.inputs, op.output))
    out = Emitted(constants, f"lmcu_{kernel}_forward(&{prefix}, {a}, {b}, {y})")
    if ctx.backward_step >= 0:
        reads = [y] if isinstance(op, Add | Sub) else [a, b] if isinstance(op, Maximum | Minimum) else [a, b, y]
        into = ", ".join("NULL" if ctx.is_replaced(op, i) else ctx.g(i) for i in op.data_inputs())
        out.backward = f"lmcu_{kernel}_backward(&{prefix}, {', '.join(reads)}, {ctx.dy(op)}, {into})"
    if ctx.bands:
        out.row = f"lmcu_{kernel}_row(&{prefix}{ctx.rows(*op.inputs, op.output)})"
    return out


@emits(Add, Sub)
def _add(op: Add | Sub, ctx: Context) -> Emitted:
    a, b, y = _tensors(op, ctx)
    params = quantmath.add_params(float(a.s), float(b.s), float(y.s))
    values = f"{ints(a.z, b.z, y.z, *params)}, {clamp_values(op, ctx.graph)}"
    return _binary(op, ctx, "add" if isinstance(op, Add) else "sub", "lmcu_add_t", [*"i" * 10, CLAMP], values)


@emits(Mul)
def _mul(op: Mul, ctx: Context) -> Emitted:
    a, b, y = _tensors(op, ctx)
    pair = quantmath.quantize_multiplier(float(a.s * b.s / y.s))
    values = f"{ints(a.z, b.z, y.z, *pair)}, {c_float(a.s)}, {c_float(b.s)}, {clamp_values(op, ctx.graph)}"
    return _binary(op, ctx, "mul", "lmcu_mul_t", [*"i" * 7, CLAMP], values)


@emits(SquaredDifference)
def _squared_difference(op: SquaredDifference, ctx: Context) -> Emitted:
    a, b, y = _tensors(op, ctx)
    params = quantmath.squared_difference_params(float(a.s), float(b.s), float(y.s))
    values = f"{ints(a.z, b.z, y.z, *params)}, {c_float(a.s)}, {c_float(b.s)}, {clamp_values(op, ctx.graph)}"
    return _binary(op, ctx, "squared_difference", "lmcu_squared_difference_t", [*"i" * 11, CLAMP], values)


@emits(Maximum, Minimum)
def _extremum(op: Maximum | Minimum, ctx: Context) -> Emitted:
    return _binary(op, ctx, "extremum", "lmcu_extremum_t", "i", "1" if isinstance(op, Maximum) else "-1")


@emits(Prelu)
def _prelu(op: Prelu, ctx: Context) -> Emitted:
    x, alpha, y = _tensors(op, ctx)
    pairs = (
        *quantmath.quantize_multiplier(float(x.s / y.s)),
        *quantmath.quantize_multiplier(float(x.s * alpha.s / y.s)),
    )
    values = f"{ints(x.z, alpha.z, y.z, *pairs)}, {c_float(alpha.s)}, {clamp_values(op, ctx.graph)}"
    out = _binary(op, ctx, "prelu", "lmcu_prelu_t", [*"i" * 8, CLAMP], values)
    assert alpha.data is not None
    out.constants.append(array(f"lmcu_t{op.inputs[1]}", alpha.data.astype(np.int8)))
    return out

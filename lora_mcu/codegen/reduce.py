# SPDX-License-Identifier: Apache-2.0
"""Emitters of reductions, TRANSPOSE_CONV and LOG_SOFTMAX."""

from __future__ import annotations

import numpy as np

from lora_mcu.codegen import quantmath
from lora_mcu.codegen.cdata import Fields, c_float, struct
from lora_mcu.codegen.emitter import Context, Emitted, emits, ints, simple
from lora_mcu.codegen.kernels import conv_fields, conv_values
from lora_mcu.ir import Graph, LogSoftmax, ReduceMax, ReduceMean, ReduceSum, TransposeConv
from lora_mcu.ir.reduce import REDUCE_DIMS, Dims, Reduction

REDUCE: Fields = "i" * (4 * REDUCE_DIMS + 8)


def _sizes_and_strides(dims: Dims) -> str:
    filled = [(1, 0)] * (REDUCE_DIMS - len(dims)) + dims
    return ", ".join(f"{{{ints(*(d[i] for d in filled))}}}" for i in (0, 1))


def _reduce_values(op: Reduction, graph: Graph) -> str:
    """Initializer of lmcu_reduce_t."""
    f32 = np.float32
    x, y, count = graph.tensors[op.inputs[0]], graph.tensors[op.output], op.count(graph)
    kept, reduced = op.layout(graph)
    multiplier, shift = quantmath.mean_params(float(x.s), float(y.s), count)
    scale = x.s / y.s
    bias = (f32(-x.z) * scale) * f32(count)
    factor = f32(1) / f32(count) if isinstance(op, ReduceMean) else f32(1)
    floats = ", ".join(map(c_float, (scale, bias, factor)))
    integers = ints(count, x.z, y.z, multiplier, shift)
    return f"{_sizes_and_strides(kept)}, {_sizes_and_strides(reduced)}, {integers}, {floats}"


@emits(ReduceSum, ReduceMean, ReduceMax)
def _reduce(op: Reduction, ctx: Context) -> Emitted:
    prefix, x = f"lmcu_op{op.index}", ctx.x(op.inputs[0])
    constant = struct(prefix, "lmcu_reduce_t", REDUCE, _reduce_values(op, ctx.graph), ctx.pointer_bytes)
    kind = {ReduceSum: "sum", ReduceMean: "mean", ReduceMax: "max"}[type(op)]
    out = Emitted([constant], f"lmcu_reduce_{kind}_forward(&{prefix}, {x}, {ctx.x(op.output)})")
    if ctx.backward_step >= 0:
        gradients = f"{ctx.dy(op)}, {ctx.g(op.inputs[0])}"
        out.backward = (f"lmcu_reduce_max_backward(&{prefix}, {x}, {gradients})" if kind == "max"
                        else f"lmcu_reduce_backward(&{prefix}, {ctx.x(op.output)}, {gradients})")  # fmt: skip
    return out


@emits(TransposeConv)
def _transpose_conv(op: TransposeConv, ctx: Context) -> Emitted:
    constants, values = conv_values(op, ctx, f"lmcu_op{op.index}")
    out = simple(op, ctx, "transpose_conv", conv_fields(ctx), values, backward=(op.output,), ctype="lmcu_conv2d_t")
    out.constants = [*constants, *out.constants]
    return out


@emits(LogSoftmax)
def _log_softmax(op: LogSoftmax, ctx: Context) -> Emitted:
    x = ctx.graph.tensors[op.inputs[0]]
    params = quantmath.log_softmax_params(float(x.s))
    return simple(op, ctx, "log_softmax", "i" * 7, ints(x.elements // x.shape[-1], x.shape[-1], *params))

# SPDX-License-Identifier: Apache-2.0
"""Emitter of products of two activations."""

from __future__ import annotations

import numpy as np

from lora_mcu.codegen import quantmath, rounding
from lora_mcu.codegen.cdata import Constant, Fields, array, c_float, struct
from lora_mcu.codegen.emitter import CLAMP, Context, Emitted, clamp_values, emits, ints
from lora_mcu.ir import ActivationDense, Graph, Matmul

FIELDS: Fields = [*"i" * 23, CLAMP, "ppi", "p"]


def _rounding(op: Matmul, graph: Graph, prefix: str) -> tuple[list[Constant], str, str]:
    """Constants, the multiplier and shift of double rounding, and the initializer of lmcu_round_t."""
    sa, sb, sy = (graph.tensors[i].s for i in (*op.inputs[:2], op.output))
    if isinstance(op, ActivationDense):
        multiplier, shift = rounding.multiplier(float(sa) * float(sb) / float(sy))
        constants = [array(f"{prefix}_multiplier", np.array([multiplier], np.uint64)),
                     array(f"{prefix}_shift", np.array([shift], np.uint8))]  # fmt: skip
        return constants, "0, 0", f"{{{prefix}_multiplier, {prefix}_shift, 0}}"
    return [], ints(*quantmath.matmul_params(sa, sb, sy)), "{NULL, NULL, 0}"


@emits(Matmul, ActivationDense)
def _matmul(op: Matmul, ctx: Context) -> Emitted:
    graph, prefix = ctx.graph, f"lmcu_op{op.index}"
    a, b, y = (graph.tensors[i] for i in (*op.inputs[:2], op.output))
    g = op.geometry(graph)
    constants, multiplier, rounder = _rounding(op, graph, prefix)
    bias = "NULL"
    if len(op.inputs) > 2:
        bias, data = f"lmcu_t{op.inputs[2]}", graph.tensors[op.inputs[2]].data
        assert data is not None
        constants.append(array(bias, data))
    values = (
        f"{{{ints(*g.batch)}}}, {ints(g.rows, g.columns, g.depth)}, {{{ints(*g.a_batch)}}}, {{{ints(*g.b_batch)}}}, "
        f"{ints(g.a_row, g.a_depth, g.b_column, g.b_depth, a.z, b.z, y.z)}, {c_float(a.s)}, {c_float(b.s)}, "
        f"{multiplier}, {clamp_values(op, graph)}, {rounder}, {bias}"
    )
    constants.append(struct(prefix, "lmcu_matmul_t", FIELDS, values, ctx.pointer_bytes))
    pa, pb, py = (ctx.x(i) for i in (*op.inputs[:2], op.output))
    out = Emitted(constants, f"lmcu_matmul_forward(&{prefix}, {pa}, {pb}, {py}, {ctx.scratch(ctx.step)})")
    if ctx.backward_step >= 0:
        da, db = (ctx.g(i) for i in op.inputs[:2])
        out.backward = f"lmcu_matmul_backward(&{prefix}, {pa}, {pb}, {py}, {ctx.dy(op)}, {da}, {db})"
    return out

# SPDX-License-Identifier: Apache-2.0
"""Emitter of embeddings."""

from __future__ import annotations

import numpy as np

from lora_mcu.codegen.cdata import array, struct
from lora_mcu.codegen.emitter import Context, Emitted, emits, ints
from lora_mcu.ir import Embedding


@emits(Embedding)
def _embedding(op: Embedding, ctx: Context) -> Emitted:
    graph, prefix = ctx.graph, f"lmcu_op{op.index}"
    x, table = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    assert table.data is not None
    constants, rows = [array(f"{prefix}_w", table.data.astype(np.int8))], "NULL"
    if x.dtype == "int8":
        rows = f"{prefix}_rows"
        constants.append(array(rows, op.rows_of_int8(graph)))
    values = f"{ints(x.elements, op.rows(graph), op.width(graph), op.wraps)}, {prefix}_w, {rows}"
    constants.append(struct(prefix, "lmcu_embedding_t", "iiiipp", values, ctx.pointer_bytes))
    kind, ctype = {"int32": ("i32", "int32_t"), "float32": ("f32", "float"), "int8": ("i8", "int8_t")}[x.dtype]
    call = f"lmcu_embedding_{kind}(&{prefix}, {ctx.x(op.inputs[0], ctype)}, {ctx.x(op.output)})"
    return Emitted(constants, call)

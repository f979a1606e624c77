# SPDX-License-Identifier: Apache-2.0
"""Graph -> Graph: float islands become tables, operators that change nothing become views of the same memory."""

from __future__ import annotations

from dataclasses import replace

from lora_mcu.ir import Graph, Op, Pad, Requantize, Reshape
from lora_mcu.ir.shape import Copy
from lora_mcu.passes.elide_reads import elide_reads
from lora_mcu.passes.fold_islands import fold_islands


def normalize(graph: Graph) -> Graph:
    """Fold float32 islands into tables; turn requantizations between equal scales, pads by nothing and copies in the
    same order into reshapes, which cost nothing; read states in place where that is safe."""
    graph = fold_islands(graph)
    return elide_reads(replace(graph, ops=[_simplify(graph, op) for op in graph.ops]))


def _simplify(graph: Graph, op: Op) -> Op:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    unpadded = isinstance(op, Pad) and not any((*op.before, *op.after))
    same = isinstance(op, Requantize) and x.dtype == y.dtype and x.same_quantization(y)
    whole = isinstance(op, Copy) and x.elements == y.elements and all(p.is_run for p in op.pieces(graph))
    return Reshape(op.index, op.inputs[:1], op.outputs) if unpadded or same or whole else op

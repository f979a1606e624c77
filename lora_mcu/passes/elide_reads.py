# SPDX-License-Identifier: Apache-2.0
"""Graph -> Graph: a read of a state whose readers all run before the next assignment reads the state in place."""

from __future__ import annotations

from dataclasses import replace

from lora_mcu.ir import AssignState, Graph, Op, ReadState, Reshape
from lora_mcu.ir.shape import Copy


def elide_reads(graph: Graph) -> Graph:
    """Drop such reads: most states then need no copy, and no room for one in the arena."""
    if not graph.states:
        return graph
    in_place = {
        op.output: op.inputs[0] for at, op in enumerate(graph.ops) if isinstance(op, ReadState) and _may(graph, at, op)
    }
    return replace(
        graph,
        ops=[
            replace(op, inputs=[in_place.get(i, i) for i in op.inputs])
            for op in graph.ops
            if not (isinstance(op, ReadState) and op.output in in_place)
        ],
    )


def _may(graph: Graph, at: int, read: ReadState) -> bool:
    """Readers only move elements (their backward passes read no values) and come before the state changes."""
    views = {read.output}
    for op in graph.ops[at + 1 :]:
        uses = bool(views.intersection(op.inputs))
        if uses and isinstance(op, Reshape):
            views.add(op.output)
        elif uses and (not isinstance(op, Copy | AssignState) or read.inputs[0] in op.outputs):
            return False
        if read.inputs[0] in op.outputs:
            return not (views.intersection(_later(graph, op)) or graph.output in views)
    return graph.output not in views


def _later(graph: Graph, op: Op) -> set[int]:
    """Tensors read behind ``op``."""
    at = next(i for i, other in enumerate(graph.ops) if other is op)
    return {i for other in graph.ops[at + 1 :] for i in other.inputs}

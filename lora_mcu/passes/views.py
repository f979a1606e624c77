# SPDX-License-Identifier: Apache-2.0
"""Which tensors are views of the same memory."""

from __future__ import annotations

from lora_mcu.ir import Graph, Reshape


def views(graph: Graph) -> dict[int, int]:
    """Tensor -> the tensor whose memory it shares."""
    roots = {i: i for i in graph.tensors}
    for op in graph.ops:
        if isinstance(op, Reshape):
            roots[op.output] = roots[op.inputs[0]]
    return roots

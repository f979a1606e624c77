# SPDX-License-Identifier: Apache-2.0
"""Reverse-mode differentiation at compile time: only from the loss down to the first adapted layer."""

from __future__ import annotations

from dataclasses import dataclass

from lora_mcu.errors import ModelError
from lora_mcu.ir import Graph, Op, Reshape
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.tail import Split


@dataclass(frozen=True)
class BackwardOp:
    """The backward pass of ``op``; ``into`` are the inputs that receive a gradient (none: first adapted layer)."""

    op: Op
    into: tuple[int, ...]


def differentiate(graph: Graph, split: Split, adaptation: Adaptation) -> list[BackwardOp]:
    """Backward operators in execution order. Raises ModelError where a gradient would have to pass what has none."""
    carries: set[int] = set()  # tensors whose value depends on a factor
    for op in split.forward:
        if adaptation.of(op) or carries.intersection(op.data_inputs()):
            carries.update(op.outputs)
    reached: set[int] = {split.logits} & carries
    backward: list[BackwardOp] = []
    for op in reversed(split.forward):
        if not reached.intersection(op.outputs):
            continue
        into = tuple(i for i in op.data_inputs() if i in carries)
        if into and not op.DIFFERENTIABLE:
            name = graph.tensors[op.output].name
            raise ModelError(
                f"operator {op.index} {op.KIND} (output {name!r}) passes no gradient; adapt only layers behind it"
            )
        reached.update(into)
        if not isinstance(op, Reshape):
            backward.append(BackwardOp(op, into))
    return backward


def reaches(graph: Graph, split: Split, adaptation: Adaptation) -> bool:
    """The loss depends on all adapted layers by operators that a gradient can pass."""
    try:
        backward = differentiate(graph, split, adaptation)
    except ModelError:
        return False
    return all(any(b.op is layer.op for b in backward) for layer in adaptation.layers)

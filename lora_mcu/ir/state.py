# SPDX-License-Identifier: Apache-2.0
"""State of a streaming model: variables that live from one inference to the next, and the operators that touch them.

A state is a tensor of ``Graph.states``. Gradients end there: what was read came from an earlier inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op


@dataclass
class _StateOp(Op):
    def data_inputs(self) -> list[int]:
        return []

    def saved(self, adapted: bool) -> list[int]:
        return []

    def check(self, graph: Graph) -> None:
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require_int8(graph, self.inputs[0], self.output)
        self.require(graph, x.elements == y.elements, f"{list(x.shape)} and {list(y.shape)} differ in size")


@dataclass
class ReadState(_StateOp):
    """A copy of the state as it stands at this place of the execution order."""

    KIND: ClassVar[str] = "READ_VARIABLE"


@dataclass
class AssignState(_StateOp):
    """The state becomes the input's bytes. Its output is the state itself."""

    KIND: ClassVar[str] = "ASSIGN_VARIABLE"

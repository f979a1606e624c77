# SPDX-License-Identifier: Apache-2.0
"""LOG_SOFTMAX over the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Op

MAX_DEPTH = 4096  # the sum of exponentials has 12 integer bits


@dataclass
class LogSoftmax(Op):
    """At the end of a model it is left out for training, like a softmax; elsewhere it has no gradient."""

    KIND: ClassVar[str] = "LOG_SOFTMAX"
    DIFFERENTIABLE: ClassVar[bool] = False

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.shape == y.shape and len(x.shape) > 0, "input and output shapes differ")
        self.require(graph, x.shape[-1] < MAX_DEPTH, f"a row has more than {MAX_DEPTH - 1} elements")
        self.require(graph, float(y.scale[0]) == 1 / 16 and int(y.zero_point[0]) == 127,
                     "its output must be quantized with scale 1/16 and zero point 127")  # fmt: skip

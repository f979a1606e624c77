# SPDX-License-Identifier: Apache-2.0
"""TRANSPOSE_CONV: the convolution's scatter, one kernel an input pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lora_mcu.ir.graph import Graph
from lora_mcu.ir.ops import Window, _image, _Weighted


@dataclass
class TransposeConv(_Weighted):
    """weights [M, kh, kw, C]; input pixel (i, j) reaches output (i * stride - pad + ky, j * stride - pad + kx)."""

    KIND: ClassVar[str] = "TRANSPOSE_CONV"
    window: Window = field(default_factory=lambda: Window((1, 1), (1, 1), 0, 0))

    def check(self, graph: Graph) -> None:
        x, w, y = (graph.tensors[i] for i in (self.inputs[0], self.weights, self.output))
        in_h, in_w, channels = _image(graph, self, x)
        out_h, out_w, filters = _image(graph, self, y)
        self.require(graph, len(w.shape) == 4 and w.shape == (filters, *self.window.kernel, channels),
                     f"weights {w.name!r} have shape {list(w.shape)}")  # fmt: skip
        self.require(graph, min(*self.window.kernel, *self.window.stride) >= 1, "kernel and stride must be at least 1")
        self._check_weights(graph, filters, 0)
        self.require(graph, not w.zero_point.any(), f"weights {w.name!r} have a zero point that is not 0")

    def macs(self, graph: Graph) -> int:
        x, w = graph.tensors[self.inputs[0]], graph.tensors[self.weights]
        return x.shape[1] * x.shape[2] * w.elements

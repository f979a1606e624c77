# SPDX-License-Identifier: Apache-2.0
"""What a layer costs before anything runs: multiply-accumulates, and instructions by measured coefficients.

`benchmarks/run.py` counts the real instructions; the coefficients below come from its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_mcu.ir import Conv2D, Dense, Depthwise, Graph, Matmul, Reshape, TransposeConv
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.gradient import BackwardOp
from lora_mcu.passes.stripes import Stripe
from lora_mcu.passes.tail import Split
from lora_mcu.passes.views import views

# instructions per multiply-accumulate: int8 forward, depthwise, float W^T g, the adapter's own float products
_INT8, _DEPTHWISE, _TRANSPOSED, _FACTOR = 1.4, 3.6, 5.0, 7.0
_PRODUCTS = (Conv2D, Dense, Depthwise, TransposeConv)
_PER_ELEMENT = 12.0  # everything that is not a product, an output element
_PER_ADAPTED = 65.0  # an adapted output element: its share of the accumulator, rounded
_PER_MOVED_BYTE, _PER_ROW = 1.25, 600.0  # depth-first execution: memmove by words, a kernel called for one row
_UPDATE = 55.0  # a parameter and step: checks, momentum, stochastic rounding


@dataclass(frozen=True)
class LayerCost:
    """One operator: shapes, MACs and estimated instructions of one sample, forward and backward."""

    index: int
    kind: str
    name: str
    shape: tuple[int, ...]
    adapted: bool
    macs_forward: int
    macs_backward: int
    instructions_forward: int
    instructions_backward: int
    weight_bytes: int
    saved_bytes: int  # of its outputs that the backward pass reads

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "shape": list(self.shape)}


def costs(graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation) -> list[LayerCost]:
    """One LayerCost an operator, in execution order."""
    into = {id(b.op): b.into for b in backward}
    names = graph.layer_names()
    roots = views(graph)
    saved = {roots[i] for b in backward for i in b.op.saved(adaptation.of(b.op) is not None) if i in roots}
    out = []
    for op in (*split.forward, *split.tail):
        y = graph.tensors[op.output]
        macs, per = op.macs(graph), _DEPTHWISE if isinstance(op, Depthwise) else _INT8
        layer = adaptation.of(op)
        positions = macs // (layer.m * layer.k) if layer else 0
        project = positions * adaptation.rank * layer.k if layer else 0
        expand = positions * adaptation.rank * layer.m if layer else 0
        elements = 0 if isinstance(op, Reshape) else y.elements
        forward = macs * per + (project + expand) * _FACTOR + elements * _PER_ELEMENT
        forward += elements * _PER_ADAPTED if layer else 0
        is_back = id(op) in into
        down = macs if is_back and into[id(op)] and isinstance(op, _PRODUCTS) else 0
        if is_back and isinstance(op, Matmul):
            down = macs * len(into[id(op)])  # a and b, or one of them
        factors = 2 * project + 2 * expand + (project if is_back and into[id(op)] else 0) if is_back else 0
        back = down * _TRANSPOSED + factors * _FACTOR + (elements * _PER_ELEMENT if is_back else 0)
        weights = graph.tensors[op.weights].nbytes if isinstance(op, _PRODUCTS) else 0
        kept = sum(graph.tensors[i].nbytes for i in op.outputs if i in saved)  # views of it count as it
        out.append(
            LayerCost(op.index, op.KIND, names.get(op.index, y.name), y.shape, layer is not None,
                      macs + project + expand, down + factors, round(forward), round(back), weights, kept)
        )  # fmt: skip
    return out


def moving_instructions(stripe: Stripe) -> int:
    """Estimated instructions that a stripe costs on top of its operators: bytes moved, rows begun."""
    return round(stripe.schedule.moved_bytes * _PER_MOVED_BYTE + len(stripe.schedule.order) * _PER_ROW)


def update_instructions(adaptation: Adaptation) -> int:
    """Estimated instructions of one update of all factors."""
    return round(adaptation.parameters * _UPDATE)

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

_INT8, _DEPTHWISE = 1.35, 3.5  # instructions per multiply-accumulate forward
_PRODUCTS = (Conv2D, Dense, Depthwise, TransposeConv)
_PER_ELEMENT = 10.0  # everything that is not a product, an output element
_PER_MOVED_BYTE, _PER_ROW = 1.25, 600.0  # depth-first execution: memmove by words, a kernel called for one row


@dataclass(frozen=True)
class _Mode:
    """Instructions: a multiply-accumulate of W^T g and of the adapter, an adapted output (its share of an accumulator).

    Then an output on the way back, and a parameter and step (checks, stochastic rounding, the tables of mode i16).
    """

    transposed: float
    factor: float
    adapted: float
    returned: float
    update: float


_MODES = {"f32": _Mode(3.4, 4.0, 20.0, 20.0, 28.0), "i16": _Mode(1.7, 1.7, 14.0, 62.0, 42.0)}


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


def costs(
    graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, numerics: str
) -> list[LayerCost]:
    """One LayerCost an operator, in execution order."""
    mode = _MODES[numerics]
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
        forward = macs * per + (project + expand) * mode.factor + elements * _PER_ELEMENT
        forward += elements * mode.adapted if layer else 0
        is_back = id(op) in into
        down = macs if is_back and into[id(op)] and isinstance(op, _PRODUCTS) else 0
        if is_back and isinstance(op, Matmul):
            down = macs * len(into[id(op)])  # a and b, or one of them
        factors = 2 * project + 2 * expand + (project if is_back and into[id(op)] else 0) if is_back else 0
        back = down * mode.transposed + factors * mode.factor
        if is_back:
            back += elements * (mode.returned if isinstance(op, Conv2D | Dense | Depthwise) else _PER_ELEMENT)
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


def update_instructions(adaptation: Adaptation, numerics: str) -> int:
    """Estimated instructions of one update of all factors."""
    return round(adaptation.parameters * _MODES[numerics].update)

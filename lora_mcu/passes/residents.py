# SPDX-License-Identifier: Apache-2.0
"""``weights = "sram"``: what of each adapted layer stands in SRAM, so that its adapter can be merged on the device.

Frozen layers stay in flash, where nothing ever changes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_mcu.ir import Dense, Graph
from lora_mcu.passes.adapters import Adaptation, AdaptedLayer

ALIGN = 8


@dataclass(frozen=True)
class Resident:
    """Offsets in bytes of int8 weights [M, K], int32 bias [M] (-1: none), and multiplier and shift of the output's
    rounding: uint64 and uint8 of a dense layer, int32 and int8 (fraction, right) of a convolution. ``scales``: M
    or 1."""

    layer: AdaptedLayer
    scales: int
    weights: int
    bias: int
    multiplier: int
    shift: int


@dataclass(frozen=True)
class Residents:
    """All of them, in operator order; ``nbytes`` is a multiple of 8."""

    layers: tuple[Resident, ...] = ()
    nbytes: int = 0

    def of(self, op: object) -> Resident | None:
        return next((x for x in self.layers if x.layer.op is op), None)


def place(graph: Graph, adaptation: Adaptation) -> Residents:
    """One after another, each number aligned to 8 bytes."""
    layers, at = [], 0
    for layer in adaptation.layers:
        dense = isinstance(layer.op, Dense)
        scales = layer.m if not dense or len(graph.tensors[layer.op.weights].scale) > 1 else 1
        sizes = (layer.m * layer.k, 4 * layer.m * (layer.op.bias is not None), (8 if dense else 4) * scales, scales)
        offsets = []
        for size in sizes:
            offsets.append(at if size else -1)
            at += -(-size // ALIGN) * ALIGN
        layers.append(Resident(layer, scales, *offsets))
    return Residents(tuple(layers), at)

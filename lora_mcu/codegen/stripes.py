# SPDX-License-Identifier: Apache-2.0
"""Stripes in the generated code: the table of windows, the order of rows, and the function that makes a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lora_mcu.codegen.cdata import Constant, array, struct
from lora_mcu.codegen.emitter import ints
from lora_mcu.ir import Graph
from lora_mcu.passes.memory import MemoryPlan
from lora_mcu.passes.stripes import BAND_BYTES, Stripe, height, row_bytes, tensors_of


@dataclass(frozen=True)
class RowFunction:
    """``void <name>(uint32_t op, const lmcu_band_t *bands)``: one case an operator."""

    name: str
    cases: list[tuple[int, str, int]]  # operator of the stripe, kernel call, step of the plan


def places(stripe: Stripe) -> dict[int, int]:
    """Tensor -> its place in the table."""
    return {tensor: at for at, tensor in enumerate(tensors_of(stripe.ops))}


def constants(name: str, stripe: Stripe, graph: Graph, plan: MemoryPlan, pointer_bytes: int) -> list[Constant]:
    """lmcu_stripe_t and what it points to; maps from outside are there whole."""
    rows = []
    for at, tensor in enumerate(tensors_of(stripe.ops)):
        end = height(graph, tensor) if at >= len(stripe.ops) else 0
        rows.append(f"{{{ints(plan.activation[tensor].offset, row_bytes(graph, tensor), 0, end)}}}")
    table = f"const lmcu_band_t {name}_bands[{len(rows)}] = {{\n    {', '.join(rows)}}};"
    order = np.array(stripe.schedule.order, np.uint8)
    values = f"{name}_bands, {name}_order, {name}_row, {ints(len(rows), len(order), stripe.table.offset)}"
    return [Constant(f"{name}_bands", BAND_BYTES * len(rows), table), array(f"{name}_order", order),
            struct(name, "lmcu_stripe_t", "pppiii", values, pointer_bytes)]  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""Emitters of the operators that touch the state of a streaming model: copies of bytes."""

from __future__ import annotations

import numpy as np

from lora_mcu.codegen.cdata import array
from lora_mcu.codegen.emitter import Context, Emitted, emits
from lora_mcu.ir import AssignState, ReadState


@emits(ReadState, AssignState)
def _copied(op: ReadState | AssignState, ctx: Context) -> Emitted:
    source = op.inputs[0]
    data = ctx.graph.tensors[source].data
    constants = [] if data is None else [array(f"lmcu_t{source}", data.astype(np.int8))]
    count = ctx.graph.tensors[source].elements
    return Emitted(constants, f"memcpy({ctx.x(op.output)}, {ctx.x(source)}, {count}u)")

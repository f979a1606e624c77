# SPDX-License-Identifier: Apache-2.0
"""BATCH_MATMUL; FULLY_CONNECTED with computed weights shares its entry with the constant kind in operators.py."""

from __future__ import annotations

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import entry
from lora_mcu.ir import Matmul, Op


@entry("BATCH_MATMUL")
def _matmul(raw: RawModel, op: RawOp) -> Op:
    a, b = op.inputs
    options = op.options
    return Matmul(op.index, [a, b], op.outputs, bool(options and options.AdjX()), bool(options and options.AdjY()))

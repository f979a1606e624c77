# SPDX-License-Identifier: Apache-2.0
"""The former name of ``program.twin()``, which shares the runtime's objects within a process by itself now."""

from __future__ import annotations

from lora_mcu.program import Program
from lora_mcu.twin import Twin


def quick_twin(program: Program) -> Twin:
    """``program.twin()``."""
    return program.twin()

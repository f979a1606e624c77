# SPDX-License-Identifier: Apache-2.0
"""ESP32-C3: Unicorn executes the core, ``esp32c3_machine.py`` is the part around it, in a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lora_mcu.emulators.base import LineMachine
from lora_mcu.errors import ToolError

_CLOCKS_PER_COUNT = 2.5  # of the system timer: 40 MHz and 16 MHz


class Esp32C3(LineMachine):
    """Runs the direct-boot image beside the ELF file. With ``icount`` ticks count executed instructions (slow)."""

    ready_seconds = 20.0

    def __init__(self, *, icount: bool = False) -> None:
        super().__init__()
        self.instructions_per_tick = 1 / _CLOCKS_PER_COUNT if icount else None

    def _command(self, image: Path, line: int) -> list[str]:
        if importlib.util.find_spec("unicorn") is None:
            raise ToolError("emulator unicorn is not installed: pip install 'lora-mcu[unicorn]'")
        program = Path(__file__).with_name("esp32c3_machine.py")
        command = [sys.executable, "-I", str(program), str(image.with_suffix(".bin").resolve()), str(line)]
        return command + (["count"] if self.instructions_per_tick else [])

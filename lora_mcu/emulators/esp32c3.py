# SPDX-License-Identifier: Apache-2.0
"""ESP32-C3: Unicorn executes the core, ``esp32c3_machine.py`` is the part around it, in a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lora_mcu.boards import Board
from lora_mcu.emulators.base import LineMachine
from lora_mcu.errors import ToolError

_CLOCKS_PER_COUNT = 2.5  # of the system timer: 40 MHz and 16 MHz


class Esp32C3(LineMachine):
    """Runs the direct-boot image beside the ELF file. With ``icount`` ticks count executed instructions (slow)."""

    ready_seconds = 20.0

    def __init__(self, board: Board, *, icount: bool = False, flash: Path | None = None) -> None:
        super().__init__(board, flash)
        self.instructions_per_tick = 1 / _CLOCKS_PER_COUNT if icount else None

    def _command(self, image: Path, line: int) -> list[str]:
        if importlib.util.find_spec("unicorn") is None:
            raise ToolError("emulator unicorn is not installed: pip install 'lora-mcu[unicorn]'")
        program = Path(__file__).with_name("esp32c3_machine.py")
        region = self._board.adapter_region
        assert region is not None, "the part's board has one"
        binary, flash = image.with_suffix(".bin").resolve(), str(self._flash().descriptor)
        command = [sys.executable, "-I", str(program), str(binary), str(line), flash, str(region.size)]
        return command + (["count"] if self.instructions_per_tick else [])

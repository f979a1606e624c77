# SPDX-License-Identifier: Apache-2.0
"""STM32 parts: Unicorn executes the core, this package is the part around it, in a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lora_mcu.boards import Board
from lora_mcu.emulators.base import LineMachine
from lora_mcu.errors import ToolError

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from lora_mcu.emulators.stm32.part import main; sys.exit(main())"
)


class Stm32(LineMachine):
    """Runs the image beside the ELF file. With ``icount`` ticks count executed instructions (slow)."""

    ready_seconds = 20.0

    def __init__(self, board: Board, *, icount: bool = False, flash: Path | None = None) -> None:
        super().__init__(board, flash)
        self.instructions_per_tick = 1.0 if icount else None

    def _command(self, image: Path, line: int) -> list[str]:
        if importlib.util.find_spec("unicorn") is None:
            raise ToolError("emulator unicorn is not installed: pip install 'lora-mcu[unicorn]'")
        root = str(Path(__file__).resolve().parents[3])
        command = [sys.executable, "-I", "-c", _START, root, self._board.identity, str(image.resolve())]
        return [*command, str(line), str(self._flash().descriptor), *(["count"] if self.instructions_per_tick else [])]

# SPDX-License-Identifier: Apache-2.0
"""QEMU: the board's first serial port is a TCP server on 127.0.0.1."""

from __future__ import annotations

from pathlib import Path

from lora_mcu.boards import Board
from lora_mcu.emulators.base import LineMachine, find_program
from lora_mcu.emulators.flash import patch
from lora_mcu.errors import ToolError

# QEMU's machine for a board, and the frequency in MHz at which that machine's SysTick counts.
MACHINES = {
    "mps2_an500": ("mps2-an500", 25),
    "mps3_an547": ("mps3-an547", 32),
    "netduinoplus2": ("netduinoplus2", 168),
}


class Qemu(LineMachine):
    """QEMU as an emulator of ``board``.

    With ``icount`` every instruction takes one nanosecond of the machine's time, so that ticks count instructions
    repeatably; without it the machine runs as fast as it can and its ticks follow the host's clock.
    """

    def __init__(self, board: Board, *, icount: bool = False, flash: Path | None = None) -> None:
        super().__init__(board, flash)
        if board.identity not in MACHINES:
            raise ToolError(f"QEMU has no machine for board {board.identity}: it has them for {', '.join(MACHINES)}")
        self._machine, megahertz = MACHINES[board.identity]
        self._icount = icount
        self.instructions_per_tick = 1000.0 / megahertz if icount else None

    def _command(self, image: Path, line: int) -> list[str]:
        qemu = find_program("qemu-system-arm", "qemu-system-arm")
        content, address = patch(image, self._flash().name)
        kernel = f"/dev/fd/{self._hand_over(content)}"
        command = [qemu, "-M", self._machine, "-kernel", kernel]
        command += ["-semihosting-config", "enable=on,target=native"] if address else []
        command += ["-display", "none", "-monitor", "none", "-serial", "chardev:line"]
        command += ["-chardev", f"socket,id=line,fd={line},server=on,wait=off,nodelay=on"]
        return command + (["-icount", "shift=0"] if self._icount else [])

# SPDX-License-Identifier: Apache-2.0
"""QEMU: the board's first serial port is a TCP server on 127.0.0.1."""

from __future__ import annotations

import socket
from pathlib import Path

from lora_mcu.boards import Board
from lora_mcu.emulators.base import Process, find_program

# QEMU's machine for a board, and the frequency in MHz at which that machine's SysTick counts.
MACHINES = {
    "mps2_an500": ("mps2-an500", 25),
    "mps3_an547": ("mps3-an547", 32),
    "netduinoplus2": ("netduinoplus2", 168),
}
_SETTLE_SECONDS = 0.1


class Qemu:
    """QEMU as an emulator of ``board``.

    With ``icount`` every instruction takes one nanosecond of the machine's time, so that ticks count instructions
    repeatably; without it the machine runs as fast as it can and its ticks follow the host's clock.
    """

    def __init__(self, board: Board, *, icount: bool = False) -> None:
        self._machine, megahertz = MACHINES[board.identity]
        self.instructions_per_tick: float | None = 1000.0 / megahertz if icount else None
        self._icount = icount
        self._process: Process | None = None
        self._line: socket.socket | None = None
        self._image = Path()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, image: Path) -> str:
        program = find_program("qemu-system-arm", "qemu-system-arm")
        if self._line is None:
            # The socket is opened here and handed over: no port can be lost to another process, the first connection
            # waits in its queue until QEMU is up, and the port stays the same when the machine is started again.
            self._line = socket.create_server(("127.0.0.1", 0), backlog=4)
        self._image = image
        line = self._line.fileno()
        command = [program, "-M", self._machine, "-display", "none", "-monitor", "none", "-kernel", str(image)]
        command += ["-chardev", f"socket,id=line,fd={line},server=on,wait=off,nodelay=on", "-serial", "chardev:line"]
        command += ["-icount", "shift=0"] if self._icount else []
        self._process = Process(command, pass_fds=(line,))
        if self._process.ended_within(_SETTLE_SECONDS):
            failure = self._process.failure()
            self.stop()
            raise failure
        return f"socket://127.0.0.1:{self._line.getsockname()[1]}"

    def reset(self) -> str:
        if self._process is not None:
            self._process.stop()
        return self.start(self._image)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._line is not None:
            self._line.close()
            self._line = None

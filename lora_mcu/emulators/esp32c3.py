# SPDX-License-Identifier: Apache-2.0
"""ESP32-C3: Unicorn executes the core, ``esp32c3_machine.py`` is the part around it, in a process of its own."""

from __future__ import annotations

import importlib.util
import select
import socket
import sys
from pathlib import Path

from lora_mcu.emulators.base import Process
from lora_mcu.errors import ToolError

START_SECONDS = 20
_CLOCKS_PER_COUNT = 2.5  # of the system timer: 40 MHz and 16 MHz


class Esp32C3:
    """Runs the direct-boot image beside the ELF file. With ``icount`` ticks count executed instructions (slow)."""

    def __init__(self, *, icount: bool = False) -> None:
        self.instructions_per_tick: float | None = 1 / _CLOCKS_PER_COUNT if icount else None
        self._process: Process | None = None
        self._line: socket.socket | None = None
        self._image = Path()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, image: Path) -> str:
        if importlib.util.find_spec("unicorn") is None:
            raise ToolError("emulator unicorn is not installed: pip install 'lora-mcu[unicorn]'")
        if self._line is None:
            self._line = socket.create_server(("127.0.0.1", 0), backlog=4)
        self._image = image
        program = Path(__file__).with_name("esp32c3_machine.py")
        command = [
            sys.executable,
            "-I",
            str(program),
            str(image.with_suffix(".bin").resolve()),
            str(self._line.fileno()),
        ]
        command += ["count"] if self.instructions_per_tick else []
        self._process = Process(command, pass_fds=(self._line.fileno(),), stdout=True)
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        if not ready:
            self.stop()
            raise ToolError(f"{image} did not start within {START_SECONDS} s")
        if not self._process.stdout.readline():
            self._process.ended_within(START_SECONDS)
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

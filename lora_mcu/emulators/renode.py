# SPDX-License-Identifier: Apache-2.0
"""Renode: runs renode/<board>.resc; the board's line is a TCP server of Renode's.

Written against Renode 1.15.3: its servers listen on all interfaces and cannot be told otherwise; lora_mcu connects to
127.0.0.1. Each instance has its own monitor port, over which the flash of the adapter store is read before it ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from lora_mcu import resources
from lora_mcu.boards import Board
from lora_mcu.emulators.base import Machine, Process
from lora_mcu.errors import ToolError

START_SECONDS = 90.0  # .NET starts, the description is read, the image loaded
SAVE_SECONDS = 20.0
_POLL_SECONDS = 0.1


def find_renode() -> str:
    """The program that RENODE names, else the one on PATH. Raises ToolError that says how to get it."""
    named = os.environ.get("RENODE")
    found = shutil.which(named or "renode")
    if found is None:
        where = f"RENODE names {named!r}, which is no program" if named else "renode is not on PATH"
        raise ToolError(f"{where}: unpack Renode's portable release and set RENODE to its renode, or use --with qemu")
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Renode(Machine):
    """Renode as an emulator of ``board``; its ticks follow Renode's virtual time."""

    def __init__(self, board: Board, *, flash: Path | None = None) -> None:
        super().__init__(board, flash)
        self._script = resources.path("renode") / f"{board.identity}.resc"
        self._monitor, self._runs = 0, False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def _boot(self, image: Path) -> str:
        region = self._board.adapter_region
        assert region is not None
        program, port, self._monitor = find_renode(), _free_port(), _free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="lora_mcu-")  # Renode reads it after its ports are open
        cells = Path(self._folder.name) / "flash.bin"
        cells.write_bytes(os.pread(self._flash().descriptor, region.size, 0))
        image = image.resolve()
        steps = (f"$elf={_path(image)}", f"$bin={_path(image.with_suffix('.bin'))}", f"$port={port}",
                 f"include {_path(self._script)}", f"sysbus LoadBinary {_path(cells)} {region.origin:#x}",
                 "start")  # fmt: skip
        command = [program, "--disable-gui", "--hide-log", "-P", str(self._monitor), "-e", "; ".join(steps)]
        self._process = Process(command)
        self._await(port)
        self._runs = True
        return f"socket://127.0.0.1:{port}"

    def _await(self, port: int) -> None:
        """Until something listens, which Renode does before it loads the image: the monitor answers last."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        for number in (port, self._monitor):
            while not _answers(number):
                if self._process.ended_within(_POLL_SECONDS):
                    raise self._process.failure()
                if time.monotonic() > deadline:
                    raise ToolError(f"renode opened no port within {START_SECONDS:.0f} s")

    def _end(self) -> None:
        runs, self._runs = self._runs, False
        if runs and self._process is not None and not self._process.ended_within(0):
            try:
                self._save_flash()
            finally:
                self._switch_off()
        else:
            self._switch_off()

    def _switch_off(self) -> None:
        super()._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _save_flash(self) -> None:
        """What the emulated flash holds goes into the flash file. Raises ToolError where Renode does not give it."""
        region = self._board.adapter_region
        assert region is not None and self._flash_file is not None and self._folder is not None
        cells = Path(self._folder.name) / "saved.bin"
        read = f"monitor.Machine.SystemBus.ReadBytes({region.origin}, {region.size})"
        script = f"pause\npython \"System.IO.File.WriteAllBytes('{cells}', {read})\"\n"
        try:
            with socket.create_connection(("127.0.0.1", self._monitor), timeout=SAVE_SECONDS) as monitor:
                monitor.sendall(script.encode())
                deadline = time.monotonic() + SAVE_SECONDS
                while not (cells.exists() and cells.stat().st_size == region.size):
                    if time.monotonic() > deadline:
                        raise ToolError(f"renode did not give its flash back within {SAVE_SECONDS:.0f} s: adapters "
                                        "that were saved in this run are lost")  # fmt: skip
                    time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise ToolError(
                f"renode's monitor is gone ({error.strerror}): adapters saved in this run are lost"
            ) from None
        os.pwrite(self._flash_file.descriptor, cells.read_bytes(), 0)


def _path(path: Path) -> str:
    """A path as Renode's monitor reads it. Raises ToolError for one that it cannot read."""
    if ";" in str(path):
        raise ToolError(f"renode reads no path with a semicolon: {path}; move the project")
    return "@" + str(path).replace(" ", "\\ ")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True

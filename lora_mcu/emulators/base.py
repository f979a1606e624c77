# SPDX-License-Identifier: Apache-2.0
"""What every emulator is, the process that each of them runs, and the serial line that most of them are handed."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from lora_mcu.boards import Board
from lora_mcu.emulators.flash import FlashFile
from lora_mcu.errors import Error, ToolError

_PR_SET_PDEATHSIG = 1
STOP_SECONDS = 5
_SETTLE_SECONDS = 0.1


class Emulator(Protocol):
    """A machine that runs one image. ``instructions_per_tick`` is None where ticks do not count instructions."""

    instructions_per_tick: float | None

    @property
    def pid(self) -> int | None:
        """Process that is the machine; None while it is off."""

    def start(self, image: Path) -> str:
        """Run the image from power-on; return the pyserial URL of its line. Raises ToolError."""

    def reset(self) -> str:
        """Power off and on again: only the flash survives. Returns the URL, which may differ. Raises ToolError."""

    def stop(self) -> None:
        """Power off; harmless when it is off already."""


def find_program(name: str, package: str) -> str:
    """Return the path of an emulator's program. Raises ToolError with the line that installs it."""
    found = shutil.which(name)
    if found is None:
        raise ToolError(f"emulator {name} is not on PATH: apt install {package}")
    return found


def _die_with_parent() -> Callable[[], None] | None:
    """A function for the child: on Linux the kernel ends it when the starting thread dies, however Python dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class Process:
    """A child process whose diagnostics are kept and which never outlives the thread that started it."""

    def __init__(
        self, command: Sequence[str], *, pass_fds: Sequence[int] = (), stdout: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._name = Path(command[0]).name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else self._log,
                stderr=self._log,
                pass_fds=pass_fds,
                env={**os.environ, **(variables or {})},
                preexec_fn=_die_with_parent(),
                start_new_session=True,  # Ctrl-C goes to Python, which then stops the emulator in order
            )
        except OSError as error:
            self._log.close()
            raise ToolError(f"{self._name} does not start: {error.strerror}") from None

    def first_line(self, seconds: float) -> str:
        """The first line of standard output, for which it waits that long; raises ToolError when there is none."""
        assert self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], seconds)
        if not ready:
            raise ToolError(f"{self._name} printed nothing within {seconds} s")
        line = self._child.stdout.readline().decode(errors="replace").strip()
        if not line:
            self.ended_within(STOP_SECONDS)
            raise self.failure()
        return line

    @property
    def pid(self) -> int:
        return self._child.pid

    def ended_within(self, seconds: float) -> bool:
        """Wait that long for the process to end of itself, which it does when something is wrong."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def failure(self) -> ToolError:
        """The error that says why the process ended, in its own last words."""
        self._log.seek(0)
        words = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return ToolError(f"{self._name} ended (exit code {self._child.poll()}): {words[-1] if words else 'no message'}")

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._log.close()


class Machine(ABC):
    """An emulator that is one process of this computer; a subclass says how that process is started.

    Its flash for adapters is the file ``flash``, or one that is gone after ``stop``.
    """

    instructions_per_tick: float | None = None

    def __init__(self, board: Board, flash: Path | None = None) -> None:
        self._board, self._flash_path = board, flash
        self._process: Process | None = None
        self._flash_file: FlashFile | None = None
        self._image = Path()

    @abstractmethod
    def _boot(self, image: Path) -> str:
        """Set ``_process`` to one that runs ``image``; return the URL of its line. Raises ToolError."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, image: Path) -> str:
        self._image = image
        try:
            return self._boot(image)
        except Error:
            self.stop()
            raise

    def reset(self) -> str:
        self._end()
        return self.start(self._image)

    def stop(self) -> None:
        self._end()
        if self._flash_file is not None:
            self._flash_file.close()
            self._flash_file = None

    def _flash(self) -> FlashFile:
        """The flash, which the process inherits. Raises ToolError."""
        if self._flash_file is None:
            self._flash_file = FlashFile(self._board, self._flash_path)
        return self._flash_file

    def _end(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


class LineMachine(Machine):
    """A machine whose line is a TCP server on 127.0.0.1 that is opened here and handed over as a file descriptor.

    So no port can be lost to another process, the first connection waits in its queue until the machine is up, and
    the port stays the same when the machine is started again.
    """

    ready_seconds = 0.0  # within which it prints a line once it runs; 0: it says nothing unless it fails

    def __init__(self, board: Board, flash: Path | None = None) -> None:
        super().__init__(board, flash)
        self._line: socket.socket | None = None
        self._copy: IO[bytes] | None = None

    @abstractmethod
    def _command(self, image: Path, line: int) -> list[str]:
        """The program and its arguments; ``line`` is the listening socket's descriptor. Raises ToolError."""

    def _boot(self, image: Path) -> str:
        if self._line is None:
            self._line = socket.create_server(("127.0.0.1", 0), backlog=4)
        line, flash = self._line.fileno(), self._flash().descriptor
        command = self._command(image, line)
        handed_over = (line, flash) if self._copy is None else (line, flash, self._copy.fileno())
        self._process = Process(command, pass_fds=handed_over, stdout=self.ready_seconds > 0)
        if self.ready_seconds:
            self._process.first_line(self.ready_seconds)
        elif self._process.ended_within(_SETTLE_SECONDS):
            raise self._process.failure()
        return f"socket://127.0.0.1:{self._line.getsockname()[1]}"

    def _hand_over(self, content: bytes) -> int:
        """Descriptor of a nameless file with that content (a copy of the image), which the process inherits."""
        self._drop_copy()
        self._copy = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._copy.write(content)
        self._copy.seek(0)
        return self._copy.fileno()

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def stop(self) -> None:
        super().stop()
        self._drop_copy()
        if self._line is not None:
            self._line.close()
            self._line = None

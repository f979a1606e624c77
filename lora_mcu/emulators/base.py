# SPDX-License-Identifier: Apache-2.0
"""What every emulator is, and the process that most of them are."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

from lora_mcu.errors import ToolError

_PR_SET_PDEATHSIG = 1
STOP_SECONDS = 5


class Emulator(Protocol):
    """A machine that runs one image. ``instructions_per_tick`` is None where ticks do not count instructions."""

    instructions_per_tick: float | None

    @property
    def pid(self) -> int | None:
        """Process that is the machine; None while it is off."""

    def start(self, image: Path) -> str:
        """Run the image from power-on; return the pyserial URL of its line. Raises ToolError."""

    def reset(self) -> str:
        """Power off and on again: nothing in RAM survives. Returns the URL, which may differ. Raises ToolError."""

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

    def __init__(self, command: Sequence[str], *, pass_fds: Sequence[int] = (), stdout: bool = False) -> None:
        self._name = Path(command[0]).name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else self._log,
                stderr=self._log,
                pass_fds=pass_fds,
                preexec_fn=_die_with_parent(),
                start_new_session=True,  # Ctrl-C goes to Python, which then stops the emulator in order
            )
        except OSError as error:
            self._log.close()
            raise ToolError(f"{self._name} does not start: {error.strerror}") from None

    @property
    def stdout(self) -> IO[bytes]:
        assert self._child.stdout is not None
        return self._child.stdout

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

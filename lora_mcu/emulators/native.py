# SPDX-License-Identifier: Apache-2.0
"""The native board's image is a program of this computer: it prints the path of its pseudo-terminal."""

from __future__ import annotations

import select
from pathlib import Path

from lora_mcu.emulators.base import Process
from lora_mcu.errors import ToolError

START_SECONDS = 10


class Native:
    """Runs the image as a child process."""

    instructions_per_tick: float | None = None

    def __init__(self) -> None:
        self._process: Process | None = None
        self._image = Path()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, image: Path) -> str:
        self._image = image
        self._process = Process([str(image.resolve())], stdout=True)
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        path = self._process.stdout.readline().decode().strip() if ready else ""
        if not path:
            failure = ToolError(f"{image} named no pseudo-terminal within {START_SECONDS} s")
            if ready:
                failure = self._process.failure()
            self.stop()
            raise failure
        return path

    def reset(self) -> str:
        self.stop()
        return self.start(self._image)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

# SPDX-License-Identifier: Apache-2.0
"""The native board's image is a program of this computer: it prints the path of its pseudo-terminal."""

from __future__ import annotations

from pathlib import Path

from lora_mcu.emulators.base import Machine, Process

START_SECONDS = 10
FLASH_VARIABLE = "LORA_MCU_FLASH"


class Native(Machine):
    """Runs the image as a child process."""

    def _boot(self, image: Path) -> str:
        flash = self._flash()
        variables = {FLASH_VARIABLE: flash.name}
        self._process = Process([str(image.resolve())], stdout=True, pass_fds=[flash.descriptor], variables=variables)
        return self._process.first_line(START_SECONDS)

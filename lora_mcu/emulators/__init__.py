# SPDX-License-Identifier: Apache-2.0
"""Emulators: machines that run a built image and offer its serial line as a pyserial URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_mcu import boards, building
from lora_mcu.emulators.base import Emulator
from lora_mcu.emulators.esp32c3 import Esp32C3
from lora_mcu.emulators.native import Native
from lora_mcu.emulators.qemu import Qemu
from lora_mcu.emulators.renode import Renode
from lora_mcu.emulators.stm32 import Stm32
from lora_mcu.errors import ToolError

__all__ = ["Emulator", "create", "emulate"]


def create(board: boards.Board, emulator: str = "auto", *, icount: bool = False, flash: Path | None = None) -> Emulator:
    """Return an emulator of ``board``, not started: ``auto`` is the first that the board's file names.

    Args:
        board: the board to emulate.
        emulator: ``auto``, ``qemu``, ``unicorn``, ``renode`` or ``native``.
        icount: count instructions (QEMU and Unicorn; slower): ``instructions_per_tick`` then says how many a tick is.
        flash: file that is the flash of the adapter store, made where there is none; None: gone with the machine.

    Raises:
        ToolError: the emulator is unknown, cannot run this board, or counts no instructions.
    """
    if not board.emulators:
        raise ToolError(f"no emulator runs {board.identity}: flash the board itself, or compile for mps2_an500 to try")
    name = board.emulators[0] if emulator == "auto" else emulator
    if name not in board.emulators:
        raise ToolError(f"emulator {name!r} cannot run {board.identity}: use {' or '.join(board.emulators)}")
    if name == "qemu":
        return Qemu(board, icount=icount, flash=flash)
    if name == "unicorn":
        machine = Esp32C3 if board.family == "esp32c3" else Stm32
        return machine(board, icount=icount, flash=flash)
    if icount:
        raise ToolError(f"emulator {name!r} counts no instructions: use a board that runs in QEMU")
    return Renode(board, flash=flash) if name == "renode" else Native(board, flash)


@contextmanager
def emulate(project: str | Path, emulator: str = "auto", *, flash: str | Path | None = None) -> Iterator[str]:
    """Run a built project in an emulator for as long as the ``with`` block lasts; yields the pyserial URL of its line.

    Adapters that are saved on the device stand in the file ``flash``, made where there is none; without it they are
    gone with the emulator.

    Raises:
        ProjectError: the folder is not a compiled project, or it is not built.
        ToolError: the emulator is missing (with the line that installs it), unknown, or does not start.
    """
    image = building.image(project)
    machine = create(boards.load(building.environment(project)), emulator, flash=None if flash is None else Path(flash))
    try:
        yield machine.start(image)
    finally:
        machine.stop()

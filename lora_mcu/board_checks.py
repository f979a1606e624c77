# SPDX-License-Identifier: Apache-2.0
"""What no part can be: a board's file whose keys are each allowed, and impossible together, is refused here."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

from lora_mcu.errors import BoardError

if TYPE_CHECKING:
    from lora_mcu.boards import Board, Memory

CORES = {
    "esp32c3": ("rv32imc",),
    "mps2": ("cortex-m7f", "cortex-m55"),
    "native": ("host",),
    "stm32f4": ("cortex-m4f",),
    "stm32f7": ("cortex-m7f",),
    "stm32h7": ("cortex-m7f",),
    "stm32l4": ("cortex-m4f",),
}
MCUS = {"mps2": ("an500", "an547"), "native": ("host",)}  # of the other families: names that begin like the family
ADDRESSES = 2**32
LEAST_CODE = 0x8000  # bytes of flash: the runtime and port of the smallest model take as much


def refuse_impossible(board: Board, file: str) -> None:
    """Raise BoardError with file, key, limit and way out for the first thing that cannot be."""
    wrong = _identity(board) or _part(board) or _memory(board) or _adapter_region(board)
    if wrong:
        raise BoardError(f"{file}: {wrong}")


def _identity(board: Board) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", board.identity):
        return f"identity must be small letters, digits and _, like the file's name, found {board.identity!r}"
    if not board.description.isprintable() or "*/" in board.description or len(board.description) > 200:
        return "description must be one line of at most 200 characters without */: it stands in comments of the project"
    if not re.fullmatch(r"[\w-]+", board.platformio.board, re.ASCII):
        return f"platformio.board must be letters, digits, - and _, found {board.platformio.board!r}"
    if board.family != "library" and board.platformio.board != board.identity:
        return f"platformio.board must be {board.identity!r} like identity, found {board.platformio.board!r}"
    return None


def _part(board: Board) -> str | None:
    if board.family != "library":
        if board.core not in CORES[board.family]:
            return f"core must be {' or '.join(CORES[board.family])} for family {board.family}, found {board.core!r}"
        known = MCUS.get(board.family)
        if known and board.mcu not in known:
            return f"mcu must be {' or '.join(known)} for family {board.family}, found {board.mcu!r}"
        if not known and not board.mcu.startswith(board.family):
            return f"mcu must begin with {board.family!r}, the family, found {board.mcu!r}"
    if board.bypass and not board.crystal_hz:
        return "clock.bypass must be false where crystal_hz is 0: there is no signal to take"
    return None


def _range(region: Memory) -> str:
    return f"{region.name} (0x{region.origin:08x} to 0x{region.origin + region.size - 1:08x})"


def _memory(board: Board) -> str | None:
    for i, region in enumerate(board.memory):
        if not re.fullmatch(r"[A-Za-z]\w*", region.name, re.ASCII):
            return f"memory[{i}].name must be letters, digits and _, a letter first, found {region.name!r}"
        for key, value in (("origin", region.origin), ("size", region.size)):
            if value % 8:
                return f"memory[{i}].{key} must be a multiple of 8, found 0x{value:x}"
        if region.origin + region.size > ADDRESSES:
            return f"memory[{i}].size must end within 32 bits of address, found {_range(region)}: make it smaller"
    for a, b in combinations(board.memory, 2):
        if a.name == b.name:
            return f"memory has two regions of the name {a.name}: give one another name"
        if not board.is_native and a.origin < b.origin + b.size and b.origin < a.origin + a.size:
            return f"memory regions must not overlap, found {_range(a)} and {_range(b)}: correct origin or size"
    return None


def _adapter_region(board: Board) -> str | None:
    region, flash = board.adapter_region, board.region("flash")
    if region is not None:
        if region.erase_bytes % 1024:
            return f"adapter_region.erase_bytes must be a multiple of 1024, found {region.erase_bytes}"
        if (region.origin - flash.origin) % region.erase_bytes:
            return (
                f"adapter_region.origin must be a whole number of erase areas (0x{region.erase_bytes:x} bytes) behind"
                f" the start of flash, found 0x{region.origin:08x}"
            )
    if board.flash_bytes < LEAST_CODE:
        key = "adapter_region.areas" if region is not None else "memory"
        return (
            f"{key} must leave {LEAST_CODE} bytes of flash for code, found {max(0, board.flash_bytes)}"
            f" of {flash.size}: make the region smaller, or name the part's whole flash"
        )
    return None

# SPDX-License-Identifier: Apache-2.0
"""The flash of an emulated board's adapter store: a file, which outlives resets and, if it has a name, the emulator."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any

from lora_mcu.boards import Board
from lora_mcu.errors import ProjectError, ToolError

FILE_NAME_SYMBOL = "lmcu_flash_file"


class FlashFile:
    """Both halves of the board's adapter region, locked for one emulator; without ``path`` gone when closed.

    Raises ToolError where the file cannot be used: no access, another size, another emulator has it.
    """

    def __init__(self, board: Board, path: Path | None = None) -> None:
        size = board.adapter_region.size if board.adapter_region else 0
        try:
            # closed by close(): the descriptor lives as long as the machine
            self._file: IO[bytes] = tempfile.TemporaryFile() if path is None else _open(path)  # noqa: SIM115
        except OSError as error:
            raise ToolError(f"flash file {path}: {error.strerror}") from None
        try:
            self._lock(path)
            found = os.fstat(self._file.fileno()).st_size
            if found == 0:
                self._file.write(b"\xff" * size)  # erased
                self._file.flush()
            elif found != size:
                raise ToolError(
                    f"flash file {path} has {found} bytes, the adapter region of {board.identity} {size}: name another"
                )
        except BaseException:
            self._file.close()
            raise
        self.descriptor = self._file.fileno()

    def _lock(self, path: Path | None) -> None:
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # no locks on this system: two emulators on one file are the user's to avoid
        except OSError:
            raise ToolError(f"flash file {path} is in use by another emulator: name another with --flash") from None

    @property
    def name(self) -> str:
        """What a child that inherits the descriptor opens."""
        return f"/dev/fd/{self.descriptor}"

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")


def patch(image: Path, name: str) -> tuple[bytes, int]:
    """The ELF ``image`` with the flash file's name in it, and that text's address; 0: it has no place for it.

    Raises ProjectError when it is not an ELF file.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        content = image.read_bytes()
        with image.open("rb") as file:
            parsed = ELFFile(file)
            table: Any = parsed.get_section_by_name(".symtab")
            found = table.get_symbol_by_name(FILE_NAME_SYMBOL) if table is not None else None
            if not found:
                return content, 0
            section = parsed.get_section(found[0]["st_shndx"])
            address, room = found[0]["st_value"], found[0]["st_size"]
            at = section["sh_offset"] + address - section["sh_addr"]
    except (ELFError, OSError) as error:
        raise ProjectError(f"{image} is not a firmware image: {error}") from None
    assert len(name) < room
    return content[:at] + name.encode().ljust(room, b"\0") + content[at + room :], address

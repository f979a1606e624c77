# SPDX-License-Identifier: Apache-2.0
"""A compiled project on disk: written whole or not at all, and read back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_mcu.errors import ProjectError
from lora_mcu.info import ModelInfo

if TYPE_CHECKING:
    from lora_mcu.twin import Twin

RECORD = "lora_mcu.json"
KEY_FILE = "key.c"  # the one file that holds a device's key
FLASH = "flash.bin"  # of the emulated board's adapter store: as on the board, it outlives a new firmware


@dataclass(frozen=True)
class Project:
    """A project folder made by ``lora-mcu compile``: its model's info, its report, and its twin."""

    folder: Path
    info: ModelInfo
    report: dict[str, Any]

    def twin(self) -> Twin:
        """The project's own C, built for this computer and loaded."""
        from lora_mcu.twin import Twin

        names = [p for sub in ("src", "include") for p in (self.folder / sub).rglob("*.[ch]")]
        return Twin.from_files({str(p.relative_to(self.folder)): p.read_bytes() for p in names}, self.info)


def load_project(folder: str | Path) -> Project:
    """Read a project folder. Raises ProjectError when it is not one."""
    folder = Path(folder)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        info = ModelInfo.from_json(json.dumps(record["info"]))
        return Project(folder, info, record["report"])
    except OSError as error:
        raise ProjectError(
            f"{folder} is not a compiled project (no {RECORD}): run `lora-mcu compile MODEL -o {folder}`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{folder / RECORD} is damaged: compile the model again with --force") from error


def write_project(folder: Path, files: dict[str, bytes], force: bool) -> Path:
    """Write ``files`` into ``folder`` by one rename. An existing project is replaced only with ``force``."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not force:
            raise ProjectError(f"{folder} exists; choose another folder or replace the project with --force")
        if not (folder / RECORD).is_file():
            raise ProjectError(
                f"{folder} exists and is not a project of lora_mcu; it is not replaced, choose another folder"
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ProjectError(f"cannot write {folder}: {error.strerror}") from error
    try:
        secret = {name for name in files if Path(name).name == KEY_FILE}
        if not secret:  # else the folder, where the builds will hold the key too, stays the owner's alone
            staging.chmod(0o755)
        for name, content in files.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(0o600 if name in secret else 0o666)
            target.write_bytes(content)
        _swap(staging, folder)
    except OSError as error:
        raise ProjectError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _swap(staging: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(staging, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    if (folder / FLASH).is_file():
        shutil.copy2(folder / FLASH, staging / FLASH)
    os.rename(folder, old / "old")
    os.rename(staging, folder)
    shutil.rmtree(old, ignore_errors=True)

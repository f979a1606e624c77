# SPDX-License-Identifier: Apache-2.0
"""Where templates, firmware, boards and Renode files are, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = ("templates", "firmware", "boards", "renode")


def path(folder: str) -> Path:
    """Return the folder ``templates``, ``firmware``, ``boards`` or ``renode`` that belongs to this lora_mcu.

    A wheel carries the folders inside the package (``lora_mcu/_data``); a checkout has them beside it.
    """
    if folder not in _FOLDERS:
        raise ValueError(f"no resource folder {folder!r}; there are {', '.join(_FOLDERS)}")
    packaged = _PACKAGE / "_data" / folder
    return packaged if packaged.is_dir() else _PACKAGE.parent / folder

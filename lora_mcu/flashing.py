# SPDX-License-Identifier: Apache-2.0
"""Writes a built project to its board with the upload tools of the system, and verifies it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lora_mcu import building
from lora_mcu.errors import ToolError


def connection(project: str | Path) -> str:
    """What to connect before flashing, in one line; "" for a board that is not flashed. Raises ProjectError."""
    protocol = building.manifest(Path(project), building.environment(project))["upload"]["protocol"]
    return str(building.tools().CONNECT.get(protocol, ""))


def flash(
    project: str | Path,
    *,
    port: str | None = None,
    tool: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> str:
    """Write the project's image to the board that is connected, and verify it; returns the name of the tool.

    Args:
        project: folder of a built project.
        port: serial port, for esptool; None: it looks for one.
        tool: openocd, st-flash, dfu-util or esptool; None: the first of the board's that is installed.
        dry_run: run nothing; ``progress`` gets the command lines.
        progress: called with every line that the tool prints.

    Raises:
        ProjectError: the folder is not a project, or it is not built.
        ToolError: the tool is missing or fails, the board is not there, is another, or reads back otherwise.
    """
    tools = building.tools()
    image = building.image(project)
    facts = building.manifest(Path(project), building.environment(project))["upload"]
    packages = tools.folders(Path(project) / ".pio" / "core" / "packages")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *packages])
    try:
        name: str = tools.upload(
            facts, image, tool=tool or "", port=port or "", path=path, say=progress or (lambda _: None), dry_run=dry_run
        )
    except tools.UploadToolError as error:
        raise ToolError(str(error)) from None
    return name

# SPDX-License-Identifier: Apache-2.0
"""Projects that the emulator tests share: built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import HAR, PORT_BOARDS, Compiled, compile_and_build, write_port_project

import lora_mcu


@pytest.fixture(scope="session")
def port_projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A built port project for each board."""
    top = tmp_path_factory.mktemp("port")
    folders = {board: write_port_project(top / board, board) for board in PORT_BOARDS}
    for folder in folders.values():
        lora_mcu.build(folder)
    return folders


@pytest.fixture(scope="session")
def har(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The demo model, all layers adapted, built for the STM32F405. Tests must not change its folder."""
    return compile_and_build(tmp_path_factory.mktemp("har") / "stm32", HAR, "netduinoplus2", adapt="all")


@pytest.fixture(scope="session")
def har_native(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same, built as a process of this computer."""
    return compile_and_build(tmp_path_factory.mktemp("har") / "native", HAR, "native", adapt="all")

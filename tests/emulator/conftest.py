# SPDX-License-Identifier: Apache-2.0
"""Projects that the emulator tests share: built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

import lora_mcu
from lora_mcu import boards
from lora_mcu.building import BuildResult
from lora_mcu.codegen.platformio import render_project_files

ROOT = Path(__file__).resolve().parents[2]
HAR = ROOT / "examples" / "har" / "har.tflite"


def write_port_project(folder: Path, board: str) -> Path:
    """A project of the port and ``port_main.c`` alone: no runtime, no model."""
    files = render_project_files(boards.load(board))
    files["src/main.c"] = (Path(__file__).parent / "port_main.c").read_bytes()
    for name, content in files.items():
        if not name.startswith("src/runtime/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def port_projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A built port project for each board."""
    top = tmp_path_factory.mktemp("port")
    folders = {board: write_port_project(top / board, board) for board in ("netduinoplus2", "native")}
    for folder in folders.values():
        lora_mcu.build(folder)
    return folders


class Compiled:
    """A compiled and built project with what both steps said."""

    def __init__(self, folder: Path, program: lora_mcu.Program, result: BuildResult) -> None:
        self.folder, self.program, self.result = folder, program, result


def compile_and_build(folder: Path, model: Path, board: str, **options: object) -> Compiled:
    program = lora_mcu.compile(model, board=board, **options)
    program.write(folder)
    return Compiled(folder, program, lora_mcu.build(folder))


@pytest.fixture(scope="session")
def har(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The demo model, all layers adapted, built for the STM32F405. Tests must not change its folder."""
    return compile_and_build(tmp_path_factory.mktemp("har") / "stm32", HAR, "netduinoplus2", adapt="all")


@pytest.fixture(scope="session")
def har_native(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The same, built as a process of this computer."""
    return compile_and_build(tmp_path_factory.mktemp("har") / "native", HAR, "native", adapt="all")

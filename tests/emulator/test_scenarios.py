# SPDX-License-Identifier: Apache-2.0
"""The five scenarios of renode/scenarios.py: on every board that Renode is to run, in QEMU or Unicorn."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import HAR, Compiled, compile_and_build

from lora_mcu import boards, emulators, resources
from lora_mcu.emulators import Emulator
from lora_mcu.emulators.renode import find_renode
from lora_mcu.errors import ToolError

BOARDS = {
    "netduinoplus2": "qemu",
    "feather_stm32f405": "unicorn",
    "nucleo_f446re": "unicorn",
    "disco_f746ng": "unicorn",
    "nucleo_h743zi": "unicorn",
    "nucleo_l4r5zi": "unicorn",
    "esp32_c3_devkitm_1": "unicorn",
}


def library(project: Path, data: Path) -> Any:
    """The file that Robot Framework loads."""
    file = resources.path("renode") / "scenarios.py"
    spec = importlib.util.spec_from_file_location("scenarios", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.scenarios(str(project), str(data))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scenarios") / "data.npz"
    with np.load(HAR.with_suffix(".npz"), allow_pickle=False) as whole:
        np.savez(file, x=whole["x"][:200], y=whole["y"][:200])
    return file


@pytest.fixture(scope="module", params=BOARDS)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Any]:
    board = request.param
    compiled: Compiled = compile_and_build(tmp_path_factory.mktemp("scenarios") / board, HAR, board, adapt="last:2")
    emulator: Emulator = emulators.create(compiled.program.board, BOARDS[board])
    try:
        yield emulator, emulator.start(compiled.result.elf), library(compiled.folder, data)
    finally:
        emulator.stop()


@pytest.mark.slow
def test_scenarios(machine: tuple[Emulator, str, Any]) -> None:
    """One boot serves all: what a scenario leaves behind must not disturb the next."""
    emulator, url, run = machine
    run.boots_and_answers_hello(url)
    run.trains_one_step(url)
    run.trains_twenty_steps(url)
    run.names_a_garbled_frame(url)
    run.saves_an_adapter(url)
    run.finds_the_adapter(emulator.reset())
    run.reboots_when_asked(url)
    run.finds_the_adapter(url)


def in_renode(compiled: Compiled, data: Path, flash: Path) -> None:
    """All scenarios, the saved adapter found by the machine that is switched on again with the same flash file."""
    run = library(compiled.folder, data)
    emulator = emulators.create(compiled.program.board, "renode", flash=flash)
    try:
        url = emulator.start(compiled.result.elf)
        run.boots_and_answers_hello(url)
        run.trains_one_step(url)
        run.trains_twenty_steps(url)
        run.names_a_garbled_frame(url)
        run.saves_an_adapter(url)
        run.finds_the_adapter(emulator.reset())
    finally:
        emulator.stop()


@pytest.mark.slow
@pytest.mark.parametrize("board", [name for name in BOARDS if "renode" in boards.load(name).emulators])
def test_scenarios_in_renode(board: str, data: Path, tmp_path: Path) -> None:
    try:
        find_renode()
    except ToolError:
        pytest.skip("Renode is not installed (unpack its portable release, set RENODE to its renode)")
    in_renode(compile_and_build(tmp_path / board, HAR, board, adapt="last:2"), data, tmp_path / "flash.bin")


@pytest.mark.slow
def test_the_launcher_of_renode(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line, ports, flash file and end, with a program that takes Renode's place."""
    stand_in = tmp_path / "renode"
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("renode_stand_in.py")} "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("RENODE", str(stand_in))
    compiled = compile_and_build(tmp_path / "my project", HAR, "nucleo_f446re", adapt="last:2")
    in_renode(compiled, data, tmp_path / "flash.bin")
    assert len((tmp_path / "flash.bin").read_bytes().rstrip(b"\xff")) > 2000


def test_without_renode_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RENODE", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="renode is not on PATH: unpack Renode's portable release"):
        emulators.create(boards.load("netduinoplus2"), "renode").start(tmp_path / "firmware.elf")
    broken = tmp_path / "renode"
    broken.write_text("#!/bin/sh\necho no such platform >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("RENODE", str(broken))
    with pytest.raises(ToolError, match="renode ended .exit code 3.: no such platform"):
        emulators.create(boards.load("netduinoplus2"), "renode").start(tmp_path / "firmware.elf")

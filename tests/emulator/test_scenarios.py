# SPDX-License-Identifier: Apache-2.0
"""The five scenarios of renode/scenarios.py: on every board that Renode is to run, in QEMU or Unicorn."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import HAR, Compiled, compile_and_build

from lora_mcu import emulators, resources
from lora_mcu.emulators import Emulator

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

# SPDX-License-Identifier: Apache-2.0
"""Merging on the device, as a user types it: what it computes, what it costs, what it refuses, what comes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import HAR, Compiled, assert_report_is_image, compile_and_build

import lora_mcu
from lora_mcu import boards
from lora_mcu.adapters import Adapter
from lora_mcu.emulators import create
from lora_mcu.errors import DeviceError

LORA_MCU = Path(sys.executable).parent / "lora-mcu"
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def resident(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("resident") / "stm32"
    return compile_and_build(folder, HAR, "netduinoplus2", adapt="all", weights="sram")


@pytest.fixture(scope="module")
def windows() -> tuple[Array, Array]:
    with np.load(HAR.with_name("har.npz")) as har:
        return har["x"][:24], har["y"][:24]


def adapter(program: lora_mcu.Program) -> Adapter:
    values = np.random.default_rng(7).uniform(-0.2, 0.2, program.info.parameters)
    return Adapter.from_factors(program.info, values.astype("<f2").tobytes())


def test_the_report_is_the_image(resident: Compiled) -> None:
    assert_report_is_image(resident)
    report = resident.program.report()
    assert report.sram["lmcu_weights"] == report.constants["lmcu_base_weights"] == 17120
    code = resident.result.flash_bytes - report.constant_bytes
    assert abs(report.code_estimate - code) < 0.15 * code


def command(*arguments: object) -> str:
    done = subprocess.run([LORA_MCU, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_merge_and_unmerge_on_an_stm32(resident: Compiled, windows: tuple[Array, Array], tmp_path: Path) -> None:
    x, y = windows
    program, mine = resident.program, adapter(resident.program)
    merged = lora_mcu.merge(HAR, mine)
    merged.save(tmp_path / "merged.tflite")
    wanted = lora_mcu.compile(tmp_path / "merged.tflite", board="native", adapt="none").twin().infer(x)
    twin = program.twin()
    base = twin.infer(x)
    twin.load(mine)
    with lora_mcu.emulate(resident.folder) as url:
        mine.save(tmp_path / "mine")
        command("adapter", "push", tmp_path / "mine", "--port", url)
        said = command("adapter", "merge-device", "--port", url)
        assert said == "merged on har (netduinoplus2); `lora-mcu adapter unmerge-device` takes it out again\n"
        with lora_mcu.Device(url) as device:
            assert device.statistics().merged == 1
            assert np.array_equal(device.infer(x), wanted) and not np.array_equal(wanted, twin.infer(x))
            for refused in (lambda: device.train(x, y), lambda: device.load(mine)):
                with pytest.raises(DeviceError, match="the adapter is merged into the weights: UNMERGE first"):
                    refused()
            assert device.adapter() == mine
        assert "the base's weights are back" in command("adapter", "unmerge-device", "--port", url)
        with lora_mcu.Device(url) as device:
            assert device.statistics().merged == 0
            assert np.array_equal(device.infer(x), twin.infer(x))
            device.merge()
            device.reset()
            assert np.array_equal(device.infer(x), base) and device.statistics().merged == 0


def test_a_firmware_with_weights_in_flash_says_so(har: Compiled) -> None:
    with lora_mcu.emulate(har.folder) as url:
        said = command("adapter", "merge-device", "--port", url)
    assert said == (
        "error: har on netduinoplus2 has its weights in flash: compile it with --weights sram (weights='sram') to merge"
        " on the device\n"
    )


def instructions(compiled: Compiled, x: Array, *, load: Adapter | None = None, merge: bool = False) -> int:
    """Of one inference, counted by the emulator's clock."""
    emulator = create(boards.load("netduinoplus2"), icount=True)
    try:
        with lora_mcu.Device(emulator.start(compiled.result.elf)) as device:
            if load is not None:
                device.load(load)
            if merge:
                device.merge()
            device.infer(x[:1])
            return round(device.statistics().work_ticks * (emulator.instructions_per_tick or 1))
    finally:
        emulator.stop()


def test_merged_inference_costs_what_the_base_costs(
    resident: Compiled, windows: tuple[Array, Array], tmp_path: Path
) -> None:
    """Against the base, and the merged file, compiled without adapters; beside the weights the adapter costs more."""
    x, mine = windows[0], adapter(resident.program)
    lora_mcu.merge(HAR, mine).save(tmp_path / "merged.tflite")
    alone = compile_and_build(tmp_path / "alone", tmp_path / "merged.tflite", "netduinoplus2", adapt="none")
    base = instructions(compile_and_build(tmp_path / "base", HAR, "netduinoplus2", adapt="none"), x)
    merged, beside = instructions(resident, x, load=mine, merge=True), instructions(resident, x, load=mine)
    assert merged < 1.01 * base and abs(merged - instructions(alone, x)) < 0.01 * base
    assert beside > 1.1 * base

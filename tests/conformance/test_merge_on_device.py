# SPDX-License-Identifier: Apache-2.0
"""An adapter merged into weights in SRAM: the numbers of the merged .tflite, and the base again afterwards."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.oracle import Oracle, differing
from conformance.test_merge import LOSS, MADE, inputs, random_adapter, without_b

import lora_mcu
from lora_mcu import resources
from lora_mcu.adapters import Adapter
from lora_mcu.codegen import quantmath, rounding
from lora_mcu.errors import DeviceError, ModelError
from lora_mcu.twin import Twin

Array = np.ndarray[Any, np.dtype[Any]]


def compiled(model: Path, **options: Any) -> lora_mcu.Program:
    return lora_mcu.compile(model, board="netduinoplus2", sram=None, weights="sram", **options)


def held(twin: Twin, name: str, nbytes: int) -> bytes:
    """An object in the twin's memory."""
    return bytes((ctypes.c_uint8 * nbytes).in_dll(twin._lib, name))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("size, alpha", [(0.2, None), (0.003, 5.0), (30.0, 1.7)])
def test_the_numbers_are_those_of_the_merged_file(
    made_models: dict[str, Path], tmp_path: Path, name: str, size: float, alpha: float | None
) -> None:
    """Weights, biases, multipliers and shifts byte for byte, also with a gamma that no float32 is."""
    options = {"adapt": "all", "rank": 3, "alpha": alpha, "loss": LOSS.get(name, "auto")}
    program = compiled(made_models[name], **options)
    adapter = random_adapter(program.info, size, 1)
    merged = lora_mcu.merge(made_models[name], adapter, loss=LOSS.get(name, "auto"))
    merged.save(tmp_path / "merged.tflite")
    twin, nbytes = program.twin(), program.residents.nbytes
    base = held(twin, "lmcu_weights", nbytes)
    assert base == held(twin, "lmcu_base_weights", nbytes)
    twin.load(adapter)
    twin.merge()
    other = compiled(tmp_path / "merged.tflite", **options)
    wanted = held(other.twin(), "lmcu_base_weights", nbytes)
    assert other.residents.nbytes == nbytes and wanted != base
    assert held(twin, "lmcu_weights", nbytes) == wanted
    x = inputs(program.info)
    outputs = twin.infer(x)
    assert differing(outputs, Oracle(merged.content).infer(x)) == 0
    twin.unmerge()
    assert held(twin, "lmcu_weights", nbytes) == base
    assert differing(outputs, Oracle(made_models[name]).infer(x)) > 0


def test_b_of_zero_changes_no_number(made_models: dict[str, Path]) -> None:
    program = compiled(made_models["convolutions"], adapt="all")
    twin = program.twin()
    twin.load(without_b(random_adapter(program.info, 1)))
    base = held(twin, "lmcu_weights", program.residents.nbytes)
    twin.merge()
    assert held(twin, "lmcu_weights", program.residents.nbytes) == base


def test_training_and_other_adapters_wait_until_it_is_unmerged(har_model: Path) -> None:
    program = compiled(har_model, adapt="last:2")
    twin, x = program.twin(), inputs(program.info, 30)
    labels = np.arange(30) % 6
    base = twin.infer(x)
    twin.configure(lr=0.1)
    twin.store(x, labels)
    twin.run_epochs(3)
    before, factors = twin.infer(x), twin.adapter()
    twin.merge()
    merged = twin.infer(x)
    twin.merge()
    for refused in (
        lambda: twin.train(x, labels),
        lambda: twin.run_epochs(1),
        lambda: twin.load(factors),
        lambda: twin.gradients(x[0], 0),
        lambda: twin.guard(x, labels).__enter__(),
    ):
        with pytest.raises(DeviceError, match="MERGED"):
            refused()
    assert np.array_equal(twin.infer(x), merged) and twin.adapter() == factors and (merged != base).any()
    twin.configure(lr=0.2)  # settings and evaluation are no part of it
    twin.evaluate(x, labels)
    twin.unmerge()
    twin.unmerge()
    assert np.array_equal(twin.infer(x), before)
    twin.merge()
    twin.reset()
    assert np.array_equal(twin.infer(x), base)
    assert held(twin, "lmcu_weights", program.residents.nbytes) == held(
        twin, "lmcu_base_weights", program.residents.nbytes
    )
    twin.run_epochs(1)


def test_a_sum_beyond_the_outputs_scale_is_refused_whole(har_model: Path) -> None:
    program = compiled(har_model, adapt="last:1", rank=64)
    twin = program.twin()
    huge = Adapter.from_factors(program.info, np.full(program.info.parameters, 60000, "<f2").tobytes())
    twin.load(huge)
    base = held(twin, "lmcu_weights", program.residents.nbytes)
    with pytest.raises(DeviceError, match="SCALE_RANGE"):
        twin.merge()
    assert held(twin, "lmcu_weights", program.residents.nbytes) == base
    twin.load(without_b(huge))  # not merged: adapters are taken
    twin.merge()


def test_weights_in_flash_are_refused_with_the_way_out(har_model: Path) -> None:
    twin = lora_mcu.compile(har_model, board="native", adapt="last:1").twin()
    for call in (twin.merge, twin.unmerge):
        with pytest.raises(
            DeviceError, match=r"har on native has its weights in flash: compile it with --weights sram"
        ):
            call()
    with pytest.raises(ModelError, match="weights 'ram' is unknown; there are flash and sram"):
        lora_mcu.compile(har_model, board="native", weights="ram")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runtime, folder = resources.path("firmware") / "runtime", tmp_path_factory.mktemp("merge")
    config = (runtime / "lmcu_config.h").read_text().replace("LMCU_SRAM_WEIGHTS 0", "LMCU_SRAM_WEIGHTS 1")
    (folder / "lmcu_config.h").write_text(config)
    for file in (*runtime.glob("*.h"), runtime / "merge.c"):
        if file.name != "lmcu_config.h":
            (folder / file.name).write_bytes(file.read_bytes())
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = Path(__file__).with_name("merge_driver.c")
    command = ["gcc", *flags, *sanitize, f"-I{folder}", str(source), "-o", str(folder / "driver")]
    subprocess.run(command, check=True, timeout=120)
    return folder / "driver"


def roundings(driver: Path, ratios: Array, *arguments: str) -> bytes:
    return subprocess.run(
        [driver, *arguments], input=ratios.astype("<f8").tobytes(), capture_output=True, check=True, timeout=300
    ).stdout


def test_the_device_finds_the_compilers_multipliers(driver: Path) -> None:
    """Where double arithmetic rounds a threshold to the other side, too: ratios a step beside (n - 1/2) / acc."""
    rng = np.random.default_rng(3)
    n, acc = rng.integers(1, 256, 3000), rng.integers(2, 2**31, 3000) >> rng.integers(0, 30, 3000)
    exact = (n - 0.5) / np.maximum(acc, 1)
    near = np.concatenate([exact, np.nextafter(exact, 0), np.nextafter(exact, np.inf)])
    plain = 2.0 ** rng.uniform(-60, 19.9, 500)
    ratios = np.concatenate([near, plain, 2.0 ** np.arange(-100, 20)])
    ratios = ratios[ratios < 2**20]
    found = np.frombuffer(roundings(driver, ratios), np.dtype([("m", "<u8"), ("s", "u1"), ("fits", "u1")]))
    moved = refused = quick = 0
    for ratio, row in zip(ratios.tolist(), found, strict=True):
        try:
            wanted = rounding.pair(ratio)
        except ModelError:  # two thresholds that no integer serves both
            assert not row["fits"], ratio.hex()
            refused += 1
            continue
        assert (int(row["m"]), int(row["s"]), bool(row["fits"])) == (*wanted, True), ratio.hex()
        quick += wanted[1] == 0
        moved += wanted[1] != 0 and wanted[0] != int(ratio * 2.0 ** wanted[1])
    assert quick > 100 and moved > 100 and refused > 0  # no case is rare among these


def test_the_device_finds_the_compilers_requantization(driver: Path) -> None:
    rng = np.random.default_rng(5)
    edges = 2.0 ** np.arange(-40, 20)
    ratios = np.concatenate(
        [2.0 ** rng.uniform(-40, 19.9, 2000), edges, np.nextafter(edges, 0), np.nextafter(edges, 1)]
    )
    found = np.frombuffer(roundings(driver, ratios, "conv"), np.dtype([("m", "<i4"), ("s", "i1"), ("fits", "u1")]))
    fraction, right = quantmath.double_rounding(ratios.tolist())
    assert np.array_equal(found["m"], fraction) and np.array_equal(found["s"], right)

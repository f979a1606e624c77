# SPDX-License-Identifier: Apache-2.0
"""Promise 2: equal model, data, seed and settings give equal adapter bytes on twin, native process, emulated cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import same_bytes
from numpy.typing import NDArray
from projects import HAR, Compiled, compile_and_build

import lora_mcu
from lora_mcu.passes.blocks import NUMERICS
from lora_mcu.session.learner import Learner
from lora_mcu.twin import Twin

EPOCHS = 38  # of 60 samples in batches of 8: 304 steps
SETTINGS: dict[str, Any] = {"lr": 0.003, "momentum": 0.5, "clip_norm": 4.0, "batch_size": 8, "seed": 7}
STACK = 4096

Samples = tuple[NDArray[np.int8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def windows() -> Samples:
    """Ten windows of each activity of one person who wears the device at another angle."""
    data = np.load(HAR.with_suffix(".npz"), allow_pickle=False)
    mine = np.flatnonzero((data["subject"] == data["people"][0]) & (data["part"] == 0))
    chosen = np.concatenate([mine[data["y"][mine] == label][:10] for label in range(6)])
    return data["x"][chosen], data["y"][chosen]


def tune(learner: Learner, windows: Samples) -> bytes:
    learner.configure(**SETTINGS)
    learner.store(*windows)
    stats = learner.run_epochs(EPOCHS)
    assert (stats.steps, stats.skipped) == (8 * EPOCHS, 0)
    return learner.adapter().to_factors(learner.info)


@pytest.fixture(scope="module")
def tuned(har: Compiled, windows: Samples) -> bytes:
    """The twin's factors; they must be worth comparing: the loss fell and the factors moved."""
    twin = har.program.twin()
    before, initial = twin.evaluate(*windows), twin.adapter()
    factors = tune(twin, windows)
    assert twin.evaluate(*windows).loss < 0.7 * before.loss
    for name, (a, b) in twin.adapter().layers.items():
        initial_a, initial_b = initial.layers[name]
        assert not initial_b.any()
        assert np.count_nonzero(b) > 0.75 * b.size, name  # outputs that never fire keep their zeros
        assert np.count_nonzero(a != initial_a) > 0.5 * a.size, name
    return factors


def test_cortex_m4_gives_the_twins_bytes(har: Compiled, windows: Samples, tuned: bytes) -> None:
    with lora_mcu.emulate(har.folder) as url, lora_mcu.Device(url) as device:
        assert tune(device, windows) == tuned
        assert 0 < device.statistics().stack_used < STACK


def test_native_process_gives_the_twins_bytes(har_native: Compiled, windows: Samples, tuned: bytes) -> None:
    with lora_mcu.emulate(har_native.folder) as url, lora_mcu.Device(url) as device:
        assert tune(device, windows) == tuned


def test_a_reset_twin_gives_the_same_bytes_again(har: Compiled, windows: Samples, tuned: bytes) -> None:
    twin = har.program.twin()
    assert tune(twin, windows) == tuned
    twin.reset()
    twin.clear_store()
    assert tune(twin, windows) == tuned


@pytest.mark.parametrize(
    ("numerics", "file", "old", "new"),
    [
        ("i16", "include/random.h", "0x846ca68bu", "0x846ca68au"),  # the generator: one bit of a constant
        ("i16", "src/runtime/lora_i16.c", "(int16_t)(t[j] >> shift)", "(int16_t)((t[j] >> shift) ^ 1)"),  # kernels
        ("i16", "src/runtime/block.c", "add_high(s3, t3, g)", "add_high(s3, t3, g) ^ 1"),
        ("f32", "src/runtime/lora.c", "return lmcu_nearest(l)", "return lmcu_nearest(l) ^ 1"),
    ],
)
def test_one_planted_bit_changes_the_bytes(numerics: str, file: str, old: str, new: str, windows: Samples) -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2", adapt="all", numerics=numerics)
    files = program.files()
    assert files[file].count(old.encode()) >= 1
    planted = Twin.from_files({**files, file: files[file].replace(old.encode(), new.encode())}, program.info)
    assert tune(planted, windows) != tune(program.twin(), windows)


# ---- a thousand steps of a small model on every kind of core ----

CORES = ("netduinoplus2", "mps2_an500", "mps3_an547", "esp32_c3_devkitm_1", "native")  # M4, M7, M55, RV32, this one


@pytest.fixture(scope="module", params=NUMERICS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """The small model built for each of CORES, in each mode."""
    mode = request.param
    folder = tmp_path_factory.mktemp("small")
    model = folder / "small.tflite"
    model.write_bytes(same_bytes.small_model())
    with ThreadPoolExecutor(2) as pool:
        built = pool.map(
            lambda board: compile_and_build(folder / board, model, board, adapt="all", rank=2, numerics=mode), CORES
        )
        return dict(zip(CORES, built, strict=True))


@pytest.fixture(scope="module")
def thousand(small: dict[str, Compiled]) -> same_bytes.History:
    """The twin's factors after each step; training goes on to the end of it."""
    twin, data = small["netduinoplus2"].program.twin(), same_bytes.samples()
    before, initial = twin.evaluate(*data), twin.adapter()
    found = same_bytes.history(twin, data)
    assert twin.evaluate(*data).loss < 0.5 * before.loss
    for name, (a, b) in twin.adapter().layers.items():
        assert b.all() and np.count_nonzero(a != initial.layers[name][0]) > 0.9 * a.size, name
    assert len(set(found)) == same_bytes.STEPS + 1, "every step changes something"
    return found


@pytest.mark.parametrize("board", CORES)
def test_a_thousand_steps_give_the_twins_bytes(
    board: str, small: dict[str, Compiled], thousand: same_bytes.History
) -> None:
    with lora_mcu.emulate(small[board].folder) as url, lora_mcu.Device(url) as device:
        assert same_bytes.parting(device, same_bytes.samples(), thousand) is None
        if board != "native":
            assert 0 < device.statistics().stack_used < STACK


def test_where_they_part_is_told(small: dict[str, Compiled], thousand: same_bytes.History) -> None:
    """One bit of one parameter, from one step on: the planted code is another device's."""
    program = small["netduinoplus2"].program
    files, file = program.files(), "src/runtime/sgd.c"
    old = b"    return true;\n}\n"
    new = b"    lmcu_model.factors[77] ^= (uint16_t)(lmcu_context.step == 437u);\n" + old
    assert files[file].endswith(old)  # of lmcu_update
    planted = Twin.from_files({**files, file: files[file].removesuffix(old) + new}, program.info)
    names = program.info.layers
    at = 77 - 2 * (names[0].k + names[0].m)
    was = int(np.frombuffer(thousand[438], "<u2")[77])
    assert same_bytes.parting(planted, same_bytes.samples(), thousand) == (
        f"after step 438: 1 of 146 parameters differ, the first is {names[1].name}.lora_A[0, {at}] (parameter 77):"
        f" 0x{was ^ 1:04x}, not 0x{was:04x}"
    )


def keyword_samples(program: lora_mcu.Program) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (4, *program.info.input.shape), np.int8)
    return x, rng.integers(0, program.info.logit_count, 4)


def machine_samples(program: lora_mcu.Program) -> tuple[NDArray[Any], NDArray[Any]]:
    x = np.random.default_rng(6).integers(-128, 128, (4, *program.info.input.shape), np.int8)
    info = program.info.input
    assert info.scale is not None
    return x, ((x.astype(np.int32) - info.zero_point) * np.float32(info.scale)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "samples"),
    [("mlperf_kws_ref_model.tflite", keyword_samples), ("mlperf_ad01_int8.tflite", machine_samples)],
)
def test_real_models_train_on_the_emulated_part(
    model: str,
    samples: Callable[[lora_mcu.Program], tuple[NDArray[Any], NDArray[Any]]],
    models_dir: Path,
    tmp_path: Path,
) -> None:
    compiled = compile_and_build(tmp_path / "project", models_dir / model, "netduinoplus2")
    x, labels = samples(compiled.program)
    twin = compiled.program.twin()
    with lora_mcu.emulate(compiled.folder) as url, lora_mcu.Device(url) as device:
        results = []
        for learner in (twin, device):
            outputs = learner.infer(x[:2])
            learner.configure(lr=0.001, batch_size=2, seed=3, clip_norm=1.0)
            stats = learner.train(x, labels)
            assert (stats.steps, stats.skipped) == (2, 0)
            results.append((outputs.tobytes(), stats, learner.adapter().to_factors(learner.info)))
        assert results[0] == results[1]
        assert 0 < device.statistics().stack_used < STACK
    assert results[0][2] != compiled.program.twin().adapter().to_factors(compiled.program.info)

# SPDX-License-Identifier: Apache-2.0
"""Promise 2: equal model, data, seed and settings give equal adapter bytes on twin, native process, emulated cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from projects import HAR, Compiled, compile_and_build

import lora_mcu
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


@pytest.mark.parametrize("board", ["mps2_an500", "mps3_an547"])
def test_other_cores_give_the_same_bytes(
    board: str, har: Compiled, windows: Samples, tuned: bytes, tmp_path: Path
) -> None:
    """Cores whose FPUs and compiler choices differ from the M4's."""
    compiled = compile_and_build(tmp_path / board, HAR, board, adapt="all")
    assert compiled.program.info.layout_sha256 == har.program.info.layout_sha256
    with lora_mcu.emulate(compiled.folder) as url, lora_mcu.Device(url) as device:
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
    ("file", "old", "new"),
    [
        ("include/random.h", "0x846ca68bu", "0x846ca68au"),  # the generator: one bit of a constant
        (
            "src/runtime/lora.c",
            "(int64_t)acc[i] + ",
            "(int64_t)(acc[i] ^ 1) + ",
        ),  # a kernel: its sum
    ],
)
def test_one_planted_bit_changes_the_bytes(
    file: str, old: str, new: str, har: Compiled, windows: Samples, tuned: bytes
) -> None:
    files = har.program.files()
    assert files[file].count(old.encode()) >= 1
    planted = Twin.from_files({**files, file: files[file].replace(old.encode(), new.encode())}, har.program.info)
    assert tune(planted, windows) != tuned


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

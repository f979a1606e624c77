# SPDX-License-Identifier: Apache-2.0
"""The demo's data: the foreign pickle cannot run anything, no sample serves twice, the baselines can be made again."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "har"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("har_prepare", EXAMPLE / "prepare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class _Runs:
    """Pickles to a call of os.system that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_something_is_refused_by_name(prepare: ModuleType, tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "ran"
    packed = gzip.compress(pickle.dumps({1: _Runs(trace)}, protocol))
    with pytest.raises(pickle.UnpicklingError, match="asks for posix.system, which is not allowed"):
        prepare.read_recordings(packed)
    assert not trace.exists()


@pytest.mark.parametrize("value", [np.zeros(3), np.float64(1.5), eval, pickle.loads, Path("x")])
def test_nothing_else_is_admitted_either(prepare: ModuleType, value: object) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        prepare.read_recordings(gzip.compress(pickle.dumps({1: value})))


def test_windows_to_adapt_and_to_test_share_no_sample(prepare: ModuleType) -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([1, 7, 2, 1, 5], [1000, 50, 700, 300, 129])
    signal = np.repeat(np.arange(len(label), dtype=np.float32)[:, None], 6, axis=1)  # each sample is its own number
    windows = prepare.cut_windows([prepare.Recording(5, signal, label)])
    used = [set(windows.x[windows.part == part].ravel().astype(int).tolist()) for part in (0, 1)]
    assert used[0] and used[1] and not used[0] & used[1]
    for x, y in zip(windows.x[..., 0].astype(int), windows.y, strict=True):
        assert set(label[x].tolist()) == {y + 1}
    turned = prepare.rotate(rng.normal(size=(4, 128, 6)).astype(np.float32))
    assert turned.shape == (4, 128, 6)
    assert np.allclose(prepare.rotation_matrix() @ prepare.rotation_matrix().T, np.eye(3))


def test_the_packed_data_is_what_the_licence_and_the_demo_need() -> None:
    assert (EXAMPLE / "har.tflite").stat().st_size < 60_000
    assert (EXAMPLE / "har.npz").stat().st_size < 1_500_000
    with np.load(EXAMPLE / "har.npz", allow_pickle=False) as data:
        assert sorted(data["people"].tolist()) == [3, 5, 11, 12, 22, 27]
        for person in data["people"]:
            mine = data["y"][(data["subject"] == person) & (data["part"] == 0)]
            assert np.bincount(mine, minlength=6).min() >= 10
    text = (EXAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text and "Reyes-Ortiz" in text


@pytest.mark.slow
def test_one_person_of_the_recorded_baselines_comes_out_again() -> None:
    code = (
        "import tensorflow as tf; tf.config.experimental.enable_op_determinism(); import baselines; "
        "print(baselines.recompute(3, 0, ('last_layer', 'lora_float')))"
    )
    methods = json.loads((EXAMPLE / "baselines.json").read_text())["methods"]
    assert {"last_layer", "lora_float"} <= set(methods)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLE, capture_output=True, text=True, timeout=280, check=True
    )
    again = ast.literal_eval(done.stdout.splitlines()[-1])
    for method, by_steps in again.items():
        for steps, accuracy in by_steps.items():
            recorded = methods[method][str(steps)]["test_accuracy_per_person"]["3"][0]
            assert abs(accuracy - recorded) <= 2 / 149, (
                method,
                steps,
            )  # two of 149 windows: another CPU rounds otherwise

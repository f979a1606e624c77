# SPDX-License-Identifier: Apache-2.0
"""The command line against an emulated board, as a user types it: each command a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme

LORA_MCU = Path(sys.executable).parent / "lora-mcu"
TRAINING = ("--epochs", "6", "--lr", "0.02", "--batch-size", "8", "--seed", "4")


def lora_mcu(folder: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints on standard output (on standard error where it must fail)."""
    done = subprocess.run([LORA_MCU, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module", params=["netduinoplus2", "native"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's files and the project `mine`, built."""
    made = tmp_path_factory.mktemp(request.param)
    readme.prepare(made)
    lora_mcu(made, "compile", "model.tflite", "--board", request.param, "--adapt", "all", "-o", "mine")
    lora_mcu(made, "build", "mine")
    return made


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([LORA_MCU, "emulate", "mine"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.fixture
def port(folder: Path) -> Iterator[str]:
    """The port of a freshly started emulator, ended by Ctrl-C."""
    process, url = start(folder)
    yield url
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


def test_train_pull_push_and_reset(folder: Path, port: str) -> None:
    """The adapter of the device is the twin's, survives a file, and goes away without a trace."""
    lora_mcu(folder, "infer", "mine", "held_out.npz", "--port", port, "-o", "base.npz")
    trained = json.loads(
        lora_mcu(folder, "train", "mine", "data.npz", "--port", port, *TRAINING, "-o", "alice", "--json")
    )
    simulated = json.loads(lora_mcu(folder, "simulate", "mine", "data.npz", *TRAINING, "-o", "twin", "--json"))
    assert trained["epochs"] == simulated["seeds"][0]["epochs"] and trained["steps"] == 6 * 8
    lora_mcu(folder, "adapter", "pull", "--port", port, "-o", "again")
    weights = {name: (folder / name / "adapter_model.safetensors").read_bytes() for name in ("alice", "twin", "again")}
    assert weights["alice"] == weights["twin"] == weights["again"]
    lora_mcu(folder, "infer", "mine", "held_out.npz", "--port", port, "-o", "adapted.npz")
    lora_mcu(folder, "adapter", "reset", "--port", port)
    lora_mcu(folder, "infer", "mine", "held_out.npz", "--port", port, "-o", "reset.npz")
    lora_mcu(folder, "adapter", "push", "alice", "--port", port)
    lora_mcu(folder, "infer", "mine", "held_out.npz", "--port", port, "-o", "pushed.npz")
    base, adapted, reset, pushed = (np.load(folder / f"{n}.npz")["y"] for n in ("base", "adapted", "reset", "pushed"))
    assert np.array_equal(base, reset) and np.array_equal(adapted, pushed) and not np.array_equal(base, adapted)


def test_another_project_is_refused(folder: Path, port: str) -> None:
    lora_mcu(folder, "compile", "model.tflite", "--board", "native", "--rank", "2", "-o", "other", "--force")
    before = sorted(folder.rglob("*"))
    said = lora_mcu(folder, "train", "other", "data.npz", "--port", port, "-o", "bob", code=1)
    assert said.startswith("error: the device runs model (") and "flash that project" in said and said.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_explosion_leaves_a_device_that_resets(folder: Path, port: str) -> None:
    lora_mcu(folder, "infer", "mine", "data.npz", "--port", port, "-o", "sane.npz", "--force")
    command = ("train", "mine", "data.npz", "--port", port, "--epochs", "4", "--lr", "1000", "-o", "bob")
    said = lora_mcu(folder, *command, code=1)
    assert "diverged" in said and "adapter reset" in said and not (folder / "bob").exists()
    lora_mcu(folder, "adapter", "reset", "--port", port)
    lora_mcu(folder, "infer", "mine", "data.npz", "--port", port, "-o", "restored.npz", "--force")
    assert np.array_equal(np.load(folder / "sane.npz")["y"], np.load(folder / "restored.npz")["y"])


def test_interrupted_training_says_what_is_kept(folder: Path, port: str) -> None:
    command = [LORA_MCU, "train", "mine", "data.npz", "--port", port, "--epochs", "100000", "-o", "bob"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=6)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == (
        "stopped: the device keeps the adapter of its last executed step; `lora-mcu adapter reset` restores the base\n"
    )
    assert not (folder / "bob").exists()
    lora_mcu(folder, "adapter", "reset", "--port", port)


def test_emulate_ends_on_a_termination_signal(folder: Path) -> None:
    process, url = start(folder)
    assert "/" in url
    process.terminate()
    assert process.wait(timeout=20) == 0

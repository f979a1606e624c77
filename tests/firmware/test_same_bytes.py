# SPDX-License-Identifier: Apache-2.0
"""300 steps on real windows: the adapter's bytes repeat, are trained, and one changed bit of code shows in them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lora_mcu
from lora_mcu.program import Program
from lora_mcu.reference import Reference
from lora_mcu.session.stats import TrainStats
from lora_mcu.twin import Twin

HAR = Path(__file__).resolve().parents[2] / "examples" / "har"
STEPS, BATCH, WINDOWS = 300, 8, 60
EPOCHS = 40  # of 60 windows: 7 full batches and one of 4
SETTINGS: dict[str, Any] = {"lr": 0.01, "batch_size": BATCH, "seed": 11}


@cache
def _program() -> Program:
    return lora_mcu.compile(HAR / "har.tflite", board="netduinoplus2", adapt="all")


@cache
def _windows() -> tuple[Any, Any]:
    """10 windows a class of one rotated person's adaptation part."""
    with np.load(HAR / "har.npz", allow_pickle=False) as data:
        mine = (data["subject"] == 5) & (data["part"] == 0)
        chosen = np.concatenate([np.flatnonzero(mine & (data["y"] == c))[:10] for c in range(6)])
        assert len(chosen) == WINDOWS
        return data["x"][chosen], data["y"][chosen]


def _dead_outputs() -> dict[str, set[int]]:
    """Outputs that a fused RELU holds at its bound in every window of the base: they let no gradient through."""
    program, reference = _program(), Reference(_program())
    found: dict[str, set[int]] = {}
    runs = [reference.activations(x) for x in _windows()[0]]
    for layer in program.adaptation.layers:
        tensor = program.graph.tensors[layer.op.output]
        low = tensor.clamp(layer.op.activation)[0] if layer.op.activation.low is not None else -129
        alive = np.any([(run[layer.op.output].reshape(-1, layer.m) > low).any(axis=0) for run in runs], axis=0)
        found[layer.name] = set(np.flatnonzero(~alive).tolist())
    return found


def _train(twin: Twin) -> tuple[bytes, TrainStats, list[TrainStats]]:
    twin.configure(**SETTINGS)
    twin.store(*_windows())
    epochs: list[TrainStats] = []
    stats = twin.run_epochs(EPOCHS, progress=lambda _, one: epochs.append(one))
    return twin._read_factors(), stats, epochs


@cache
def _good() -> bytes:
    return _train(_program().twin())[0]


def _changed(files: dict[str, bytes], file: str, pattern: str, replacement: str) -> dict[str, bytes]:
    source, count = re.subn(pattern, replacement, files[file].decode())
    assert count == 1, f"{pattern!r} must meet {file} once, not {count} times"
    return {**files, file: source.encode()}


def test_every_b_and_half_of_a_changed_and_the_loss_fell() -> None:
    twin = _program().twin()
    start = {name: (a.copy(), b.copy()) for name, (a, b) in twin.adapter().layers.items()}
    before, dead = twin.evaluate(*_windows()).loss, _dead_outputs()
    factors, stats, epochs = _train(twin)
    assert stats.steps >= STEPS and stats.skipped == 0
    assert twin.evaluate(*_windows()).loss < 0.7 * before
    assert epochs[-1].loss < 0.7 * epochs[0].loss
    for name, (a, b) in twin.adapter().layers.items():
        untouched = set(np.flatnonzero((b == 0).any(axis=1)).tolist())
        assert untouched <= dead[name], f"{name}: B of living outputs {sorted(untouched - dead[name])} is still 0"
        assert (b != 0).mean() >= 0.8 and (a != start[name][0]).mean() >= 0.5, name
    assert _good() == factors, "a second twin gives the same bytes"


@pytest.mark.parametrize(
    "file, pattern, replacement",
    [
        ("include/random.h", r"0x7feb352du", "0x7feb352cu"),
        ("include/random.h", r"0x9E3779B9u", "0x9E3779B8u"),
        ("include/requant.h", r"\(int64_t\)1 << 30", "(int64_t)1 << 29"),
        ("src/runtime/lmcu_math.c", r"0x1\.555556p-3f", "0x1.554556p-3f"),
    ],
    ids=["generator's mix", "generator's index", "convolution's rounding", "a coefficient of exp"],
)
def test_one_changed_bit_shows(file: str, pattern: str, replacement: str) -> None:
    program = _program()
    files = _changed(program.files(), file, pattern, replacement)
    assert _train(Twin.from_files(files, program.info))[0] != _good()

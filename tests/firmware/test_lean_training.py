# SPDX-License-Identifier: Apache-2.0
"""Builds without a momentum buffer, or for batches of one: the same steps in less memory, the rest refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lora_mcu
from lora_mcu.session import Settings

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"
X = np.random.default_rng(0).integers(-128, 128, (12, 128, 6)).astype(np.int8)
Y = np.arange(12) % 6


def _program(**options: object) -> lora_mcu.Program:
    return lora_mcu.compile(HAR, board="netduinoplus2", adapt="all", **options)


def _factors(program: lora_mcu.Program, batch_size: int) -> bytes:
    twin = program.twin()
    twin.configure(lr=0.1, batch_size=batch_size, seed=3)
    assert twin.train(X, Y).steps == 12 // batch_size
    return twin._read_factors()


def test_without_momentum_the_steps_are_the_same() -> None:
    plain, lean = _program(), _program(momentum=False)
    sizes = [p.report().training_sram_bytes for p in (plain, lean)]
    assert sizes[0] - sizes[1] == 4 * 2008
    assert _factors(plain, 4) == _factors(lean, 4)


def test_batches_of_one_share_memory_and_make_the_same_steps() -> None:
    plain, lean = _program(), _program(max_batch=1)
    assert lean.plan.gradients_in_arena and "lmcu_gradients" not in lean.report().sram
    assert lean.report().training_sram_bytes < plain.report().training_sram_bytes
    assert _factors(plain, 1) == _factors(lean, 1)


@pytest.mark.parametrize(
    ("options", "settings", "host", "device"),
    [
        ({"momentum": False}, {"momentum": 0.5}, "compiled with --no-momentum: use 0", "NO_MOMENTUM"),
        ({"max_batch": 1}, {"batch_size": 2}, "compiled with --max-batch 1: use 1", "BATCH_LIMIT"),
    ],
)
def test_what_was_left_out_is_refused_by_host_and_device(
    options: dict[str, object], settings: dict[str, object], host: str, device: str
) -> None:
    twin = _program(**options).twin()
    with pytest.raises(lora_mcu.DataError, match=host):
        twin.configure(**settings)
    with pytest.raises(lora_mcu.DeviceError, match=device):
        twin._configure(Settings(**settings))
    twin.train(X[:1], Y[:1])


def test_an_adapter_survives_that_its_transfer_shares_memory_with_the_forward_pass() -> None:
    twin = _program(max_batch=1).twin()
    before = twin.infer(X)
    twin.configure(lr=0.1, batch_size=1)
    twin.train(X, Y)
    trained, after = twin.adapter(), twin.infer(X)
    twin.reset()
    assert np.array_equal(twin.infer(X), before) and not np.array_equal(after, before)
    twin.load(trained)
    assert np.array_equal(twin.infer(X), after)


def test_max_batch_is_one_or_any() -> None:
    with pytest.raises(lora_mcu.ModelError, match="max_batch 2 is neither 0"):
        _program(max_batch=2)

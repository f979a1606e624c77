# SPDX-License-Identifier: Apache-2.0
"""The twin's losses over 20 steps against the curve that TensorFlow recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from conformance.record_loss_curve import BATCH, RECORD, SETTINGS, STEPS, windows

import lora_mcu

TOLERANCE = 1e-3


def test_losses_follow_tensorflow(har_model: Path) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    program = lora_mcu.compile(har_model, board="native", adapt="all", numerics="f32")
    assert recorded["model_sha256"] == program.info.model_sha256, f"record again: {recorded['command']}"
    assert recorded["settings"] == SETTINGS
    twin = program.twin()
    twin.configure(**SETTINGS)
    x, labels = windows()
    losses = []
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        stats = twin.train(x[batch], labels[batch])
        assert stats.steps == 1
        losses.append(stats.loss)
    difference = np.abs(np.array(losses) - recorded["losses"])
    assert difference.max() <= TOLERANCE, f"step {difference.argmax()}: {difference.max():.2e}"
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), "the curve must fall, or following it says little"

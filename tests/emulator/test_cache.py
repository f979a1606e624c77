# SPDX-License-Identifier: Apache-2.0
"""A store of features, emulated part and native process: the bytes of the twin, and of a store of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import HAR, compile_and_build

import lora_mcu
from lora_mcu.session.learner import Learner

SETTINGS: dict[str, Any] = {"lr": 0.003, "momentum": 0.5, "batch_size": 8, "seed": 7}


def tune(learner: Learner) -> tuple[bytes, list[int]]:
    with np.load(HAR.with_suffix(".npz"), allow_pickle=False) as data:
        mine = np.flatnonzero((data["subject"] == 5) & (data["part"] == 0))[::3][:40]
        x, y = data["x"][mine], data["y"][mine]
    learner.configure(**SETTINGS)
    learner.store(x, y)
    stats = learner.run_epochs(8)
    assert stats.steps == 40
    return learner.adapter().to_factors(learner.info), learner.infer(x[:4]).ravel().tolist()


@pytest.mark.parametrize("board", ["netduinoplus2", "native"])
def test_features_on_the_device_train_the_twins_bytes(board: str, tmp_path: Path) -> None:
    compiled = compile_and_build(tmp_path / board, HAR, board, adapt="last:2", cache="on")
    plain = lora_mcu.compile(HAR, board=board, adapt="last:2", cache="off").twin()
    with lora_mcu.emulate(compiled.folder) as url, lora_mcu.Device(url) as device:
        assert device.info.cached
        assert tune(device) == tune(compiled.program.twin()) == tune(plain)

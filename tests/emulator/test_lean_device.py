# SPDX-License-Identifier: Apache-2.0
"""The leanest build on an emulated Cortex-M4: row by row, gradients in the arena, no momentum; the twin's bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.mobile_model import SHAPE, mobile_classifier
from conformance.oracle import Oracle, differing
from projects import compile_and_build

import lora_mcu
from lora_mcu.session import Settings

_RNG = np.random.default_rng(3)
X = np.clip(_RNG.normal(0, 40, (24, *SHAPE)) + _RNG.uniform(-90, 90, (24, 1, 1, 3)), -128, 127).astype(np.int8)
Y = _RNG.integers(0, 5, 24)


def test_lean_build_trains_the_twins_bytes_and_refuses_what_it_left_out(tmp_path: Path) -> None:
    model = tmp_path / "mobile.tflite"
    model.write_bytes(mobile_classifier())
    compiled = compile_and_build(
        tmp_path / "lean", model, "netduinoplus2", adapt="last:2", momentum=False, max_batch=1, cache="off"
    )
    assert compiled.program.plan.stripes
    twin = compiled.program.twin()
    with lora_mcu.emulate(compiled.folder) as url, lora_mcu.Device(url) as device:
        base = device.infer(X)
        assert differing(base, Oracle(model).infer(X)) == 0
        for learner in (device, twin):
            learner.configure(lr=0.2, batch_size=1, seed=1)
            learner.store(X, Y)
            assert learner.run_epochs(2).steps == 48
        trained = device.adapter()
        assert trained.to_factors(device.info) == twin.adapter().to_factors(twin.info)
        after = device.infer(X)
        assert differing(after, base) > 0
        device.reset()
        device.load(trained)  # received in memory that the forward pass uses too
        assert differing(device.infer(X), after) == 0
        for settings, name in ((Settings(batch_size=1, momentum=0.5), "NO_MOMENTUM"), (Settings(), "BATCH_LIMIT")):
            with pytest.raises(lora_mcu.DeviceError, match=name):
                device._configure(settings)

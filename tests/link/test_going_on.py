# SPDX-License-Identifier: Apache-2.0
"""Another host goes on where one stopped: the same adapter bytes, or a refusal that says why not."""

from __future__ import annotations

import numpy as np
import pytest

from link.fake_device import FakeDevice, Model
from lora_mcu.cli.training import fit, go_on
from lora_mcu.datasets import Dataset
from lora_mcu.errors import DataError
from lora_mcu.session import Settings
from lora_mcu.session.device import Device

RNG = np.random.default_rng(3)
DATA = Dataset(RNG.integers(-128, 128, (22, 4)).astype(np.int8), np.arange(22) % 3)
SETTINGS = Settings(0.02, 1.0, 0.5, 0.0, 0.0, 4, "stochastic", 9)
EPOCHS = 3
STREAMED, STORED = Model(window=8, capacity=10), Model(window=8, capacity=40)


def whole(model: Model) -> bytes:
    device = Device(FakeDevice(model))
    fit(device, DATA, SETTINGS, EPOCHS, lambda epoch, stats: None)
    return device.adapter().to_factors(device.info)


class DiesError(Exception):
    pass


class Dying(FakeDevice):
    """The host dies when it has sent so many frames; what it sent is executed."""

    left = 10**9

    def write(self, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise DiesError
        super().write(data)


@pytest.mark.parametrize("model", [STREAMED, STORED], ids=["streamed", "stored"])
def test_a_host_that_died_anywhere_is_replaced(model: Model) -> None:
    clean, trained_on, frames = whole(model), 0, 4
    while True:
        line = Dying(model)
        first = Device(line)
        line.left = frames
        try:
            fit(first, DATA, SETTINGS, EPOCHS, lambda epoch, stats: None)
            break
        except DiesError:
            line.left = 10**9
            line.read()  # what it had sent is executed
        second = Device(line)
        try:
            result = go_on(second, DATA, SETTINGS, EPOCHS)
        except DataError as refused:
            assert "--epochs 3 asks for no more" in str(refused)
        else:
            trained_on += 1
            assert 0 < len(result.epochs) <= EPOCHS
        assert second.adapter().to_factors(second.info) == clean, f"after {frames} frames"
        frames += 1
    assert trained_on > 20


def test_another_training_is_refused() -> None:
    device = Device(FakeDevice(STREAMED))
    device.configure(lr=0.02, momentum=0.5, batch_size=4, seed=9)
    device.train(DATA.x[:9], DATA.labels[:9])
    for settings, said in (
        (Settings(0.03, 1.0, 0.5, 0.0, 0.0, 4, "stochastic", 9), "--lr 0.02, not 0.03"),
        (Settings(0.02, 1.0, 0.5, 0.0, 0.0, 4, "stochastic", 8), "--seed 9, not 8"),
        (Settings(0.02, 1.0, 0.5, 0.0, 0.0, 4, "nearest", 9), "--rounding stochastic, not nearest"),
        (SETTINGS, "open batch"),
    ):
        with pytest.raises(DataError, match=said):
            go_on(device, DATA, settings, EPOCHS)

# SPDX-License-Identifier: Apache-2.0
"""Five scenarios that every board must pass, as keywords of Robot Framework and as functions of Python.

What is expected comes from the twin of the same project. ``url`` is the device's line, as pyserial opens it.
`tests/emulator/test_scenarios.py` runs them in QEMU and Unicorn, `renode/scenarios.robot` in Renode.
"""

from __future__ import annotations

import numpy as np

import lora_mcu
from lora_mcu.link import frames
from lora_mcu.link.client import StatusError
from lora_mcu.link.codes import PROTOCOL_VERSION, Message, ResetCause, Status
from lora_mcu.link.transport import SerialTransport
from lora_mcu.session.learner import Learner

SLOT = "scenario"


class scenarios:  # Robot Framework wants the file's name
    """Of a built project and the .npz (x, y) that it is trained on."""

    ROBOT_LIBRARY_SCOPE = "SUITE"

    def __init__(self, project: str, data: str) -> None:
        self._twin = lora_mcu.load_project(project).twin()
        with np.load(data, allow_pickle=False) as loaded:
            self._x, self._y = loaded["x"], loaded["y"]

    def _train(self, learner: Learner, steps: int) -> tuple[float, bytes]:
        """Mean loss and factors after so many steps from the initial adapter."""
        learner.reset()
        learner.configure(lr=0.01, batch_size=1, seed=5)
        chosen = np.linspace(0, len(self._x) - 1, steps).astype(int)
        stats = learner.train(self._x[chosen], self._y[chosen])
        assert (stats.steps, stats.skipped) == (steps, 0), stats
        return float(stats.loss), learner.adapter().to_factors(learner.info)

    def boots_and_answers_hello(self, url: str) -> None:
        """The image runs, and it is this project's."""
        with lora_mcu.Device(url) as device:
            assert device.info == self._twin.info, "another model, board or layout"
            assert device.hello.total_steps == 0, f"{device.hello.total_steps} steps since boot"

    def trains_one_step(self, url: str) -> None:
        """The loss of one step is the twin's, to the bit."""
        with lora_mcu.Device(url) as device:
            got, want = self._train(device, 1)[0], self._train(self._twin, 1)[0]
        assert got == want > 0, f"loss {got} instead of {want}"

    def trains_twenty_steps(self, url: str) -> None:
        """The adapter after twenty steps has the twin's bytes."""
        with lora_mcu.Device(url) as device:
            got, want = self._train(device, 20)[1], self._train(self._twin, 20)[1]
        assert got == want, f"{sum(a != b for a, b in zip(got, want, strict=True))} of {len(want)} bytes differ"

    def saves_an_adapter(self, url: str) -> None:
        """Trained, saved as the default of boot, and listed."""
        with lora_mcu.Device(url) as device:
            self._train(device, 20)
            device.save_slot(SLOT)
            device.select_slot(SLOT)
            assert [slot.name for slot in device.slots().slots] == [SLOT]

    def finds_the_adapter(self, url: str) -> None:
        """After a reset the saved adapter is in use, unasked."""
        with lora_mcu.Device(url) as device:
            assert device.hello.total_steps == 0, "the device was not reset"
            got = device.adapter().to_factors(device.info)
        assert got == self._train(self._twin, 20)[1], "another adapter is in use"

    def reboots_when_asked(self, url: str) -> None:
        """The firmware resets its own part and says why."""
        with lora_mcu.Device(url) as device:
            device.reboot()
            cause = device.statistics().reset_cause
        assert cause == ResetCause.REQUEST, f"cause {cause}"

    def names_a_garbled_frame(self, url: str) -> None:
        """Noise is dropped and counted; a frame that checks out and makes no sense is refused by name."""
        with lora_mcu.Device(url) as device:
            before = device.statistics().bad_frames
        line = SerialTransport(url)
        try:
            whole = frames.encode(frames.Frame(PROTOCOL_VERSION, Message.STATISTICS, 1))
            line.write(b"\x00boot text\x00" + bytes([whole[0], whole[1] ^ 0x55]) + whole[2:])
        finally:
            line.close()
        with lora_mcu.Device(url) as device:
            assert device.statistics().bad_frames >= before + 2, "noise was not counted"
            try:
                device._client.request(Message.TRAIN, b"\xff" * 3)
            except StatusError as error:
                assert error.status == Status.BAD_LENGTH, error
            else:
                raise AssertionError("a request of a wrong length was accepted")

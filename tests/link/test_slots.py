# SPDX-License-Identifier: Apache-2.0
"""The adapter store through the protocol and the host: slots by name, refusals that change nothing, boot."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from link.fake_device import SMALL, FakeDevice, Faults, FaultyLine
from lora_mcu.adapters import Adapter
from lora_mcu.errors import DataError, DeviceError
from lora_mcu.link.codes import Message, Status
from lora_mcu.link.commands import Slot, Slots
from lora_mcu.session.device import Device

PARAMETERS = SMALL.info.parameters


def adapter(seed: int) -> Adapter:
    values = np.random.default_rng(seed).uniform(-0.1, 0.1, PARAMETERS)
    return Adapter.from_factors(SMALL.info, values.astype("<f2").tobytes())


def crc32(made: Adapter) -> int:
    import zlib

    return zlib.crc32(made.to_factors(SMALL.info))


def fill(device: Device) -> dict[str, Adapter]:
    made = {name: adapter(n) for n, name in enumerate(("alice", "bob", "carol"))}
    for name, one in made.items():
        device.load(one)
        device.save_slot(name)
    return made


def test_adapters_come_back_by_name() -> None:
    with Device(FakeDevice()) as device:
        initial = device.adapter()
        assert device.slots() == Slots(None, 28, ())
        made = fill(device)
        listed = tuple(Slot(name, crc32(one), True, True) for name, one in made.items())
        assert device.slots() == Slots(None, 28, listed)
        for name in ("bob", "alice", "carol", "bob"):
            device.load_slot(name)
            assert device.adapter() == made[name] != initial
        device.reset()
        device.save_slot("bob")
        device.load_slot("alice")
        device.load_slot("bob")
        assert device.adapter() == initial
        device.delete_slot("alice")
        assert [slot.name for slot in device.slots().slots] == ["carol", "bob"]


def test_the_default_is_loaded_at_boot_and_none_is_the_initial_adapter() -> None:
    fake = FakeDevice()
    with Device(fake) as device:
        initial = device.adapter()
        made = fill(device)
        device.reboot()
        assert device.adapter() == initial
        device.select_slot("bob")
        assert device.slots().default == "bob"
        fake.boot()
        device.reboot()
        assert device.adapter() == made["bob"] and device.hello.adapter_crc32 == crc32(made["bob"])
        device.select_slot(None)
        device.reboot()
        assert device.adapter() == initial and device.slots().default is None
        device.select_slot("carol")
        device.delete_slot("carol")
        device.reboot()
        assert device.adapter() == initial


def test_loading_begins_training_anew_and_saving_does_not() -> None:
    with Device(FakeDevice()) as device:
        x, y = np.zeros((4, SMALL.inputs), np.int8), np.zeros(4, np.int64)
        device.configure(batch_size=2, momentum=0.5)
        device.train(x, y)
        device.save_slot("a")
        assert device.statistics().step == 2
        device.load_slot("a")
        assert device.statistics().step == 0 and device.statistics().total_steps == 2


def test_refusals_say_what_to_do_and_change_nothing() -> None:
    fake = FakeDevice()
    with Device(fake) as device:
        made = fill(device)
        before = fake.state()
        for call in (device.load_slot, device.delete_slot, device.select_slot):
            with pytest.raises(DeviceError, match="no slot 'dave' on native; there are: alice, bob, carol"):
                call("dave")
        for name in ("", "sixteen-letters-", "two words", "é"):
            for call in (device.save_slot, device.load_slot, device.delete_slot, device.select_slot):
                with pytest.raises(DataError, match="1 to 15 printable"):
                    call(name)
        for n in range(28 - len(made)):
            device.save_slot(f"more{n}")
        with pytest.raises(DeviceError, match="the adapter store of native is full: 28 of this model fit"):
            device.save_slot("one-more")
        device.save_slot("bob")
        assert fake.state() == before
        ctypes.c_uint32.in_dll(fake.library, "fake_half_bytes").value = 0
        for refused in (lambda: device.save_slot("a"), lambda: device.load_slot("a"), device.slots,
                        lambda: device.delete_slot("a"), lambda: device.select_slot(None)):  # fmt: skip
            with pytest.raises(DeviceError, match="native has no flash driver for adapters: .* pull"):
                refused()
        assert fake.state() == before


def test_raw_frames_of_wrong_length_or_name() -> None:
    device = FakeDevice()
    device.hello()
    messages = (Message.SLOT_SAVE, Message.SLOT_LOAD, Message.SLOT_DELETE, Message.SLOT_DEFAULT)
    before = device.state()
    for message in messages:
        for size in (0, 15, 17, 1024):
            assert device.run(message, b"a" * size).payload == bytes([Status.BAD_LENGTH])
        for name in (b"a" * 16, b"a\0b" + bytes(13), b"\x7f" + bytes(15)):
            assert device.run(message, name).payload == bytes([Status.BAD_ARGUMENT])
    assert device.run(Message.SLOT_LIST, bytes(3)).payload == bytes([Status.BAD_LENGTH])
    assert device.run(Message.SLOT_LIST, b"\xff" * 4).payload == bytes([Status.OK]) + bytes(16) + b"\x1c\0\0\0"
    assert device.state() == before


def test_a_noisy_line_saves_once() -> None:
    line = FaultyLine(FakeDevice(), 3, Faults(drop=0.1, flip=0.1, stall=0))
    with Device(line, timeout=0.01, retries=60) as device:
        made = fill(device)
        for name, one in made.items():
            device.load_slot(name)
            assert device.adapter() == one
        assert [slot.name for slot in device.slots().slots] == list(made)
    assert sum(line.faults.seen.values()) > 5

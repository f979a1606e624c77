# SPDX-License-Identifier: Apache-2.0
"""The line's speed, what may be in flight, and a core that announces that it stands still."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest

from link.fake_device import SMALL, FakeDevice, Model
from lora_mcu.link import client as link_client
from lora_mcu.link.client import Client, StatusError
from lora_mcu.link.codes import Message, Status
from lora_mcu.link.frames import Frame, encode
from lora_mcu.session.device import Device

X = np.random.default_rng(2).integers(-128, 128, (40, 600)).astype(np.int8)
Y = np.arange(40) % 3


class SpeedLine(FakeDevice):
    """A line on which bytes arrive only where both ends have the same speed; otherwise zeros do."""

    def __init__(self, model: Model = SMALL, deaf_above: int = 10**9) -> None:
        super().__init__(model)
        self.baud = self.own_baud
        self.deaf_above = deaf_above  # the cable, not the port

    def _agree(self) -> bool:
        device = ctypes.c_uint32.in_dll(self.library, "fake_baud").value or self.own_baud
        return device == self.baud and self.baud <= self.deaf_above

    def set_baud(self, baud: int) -> None:
        self.baud = baud

    def pass_time(self) -> None:
        ticks = ctypes.c_uint64.in_dll(self.library, "fake_ticks")
        ticks.value += 50_000  # of 1,000,000 a second

    def write(self, data: bytes) -> None:
        self.pass_time()
        super().write(data if self._agree() else bytes(len(data)))

    def read(self) -> bytes:
        self.pass_time()
        agreed = self._agree()  # an answer goes out before the device changes its speed
        data = super().read()
        return data if agreed else bytes(len(data))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_client, "BAUD_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(link_client, "_GREET_SECONDS", 0.02)


def test_both_sides_change_and_the_session_goes_on() -> None:
    line = SpeedLine()
    client = Client(line, "line", timeout=0.05)
    client.open()
    client.request(Message.PASS_BEGIN)
    assert client.change_baud(921600)
    assert line.baud == 921600 and ctypes.c_uint32.in_dll(line.library, "fake_baud").value == 921600
    client.request(Message.STATISTICS)
    client.leave_baud()
    assert line.baud == line.own_baud
    client.request(Message.STATISTICS)


def test_a_cable_that_cannot_falls_back_on_both_sides() -> None:
    line = SpeedLine(deaf_above=500_000)
    client = Client(line, "line", timeout=0.05, retries=60)
    client.open()
    assert not client.change_baud(921600)
    assert line.baud == line.own_baud and ctypes.c_uint32.in_dll(line.library, "fake_baud").value == 0
    client.request(Message.PASS_BEGIN)


def test_a_host_that_knows_nothing_of_the_speed_is_answered() -> None:
    """The first host dies at the other speed; the next one says HELLO at the board's own."""
    line = SpeedLine()
    first = Client(line, "line", timeout=0.05)
    first.open()
    assert first.change_baud(460800)
    line.set_baud(line.own_baud)
    Client(line, "line", timeout=0.02, retries=60).open()


def test_a_device_that_gave_the_speed_up_is_found_again() -> None:
    line = SpeedLine()
    client = Client(line, "line", timeout=0.02, retries=60)
    client.open()
    assert client.change_baud(460800)
    ctypes.c_uint32.in_dll(line.library, "fake_baud").value = 0  # noise made it go back
    client.request(Message.PASS_BEGIN)
    assert line.baud == line.own_baud


@pytest.mark.parametrize("baud", [0, 9599, 2_100_000, 30_000_000])
def test_a_speed_that_the_port_cannot_have_is_refused(baud: int) -> None:
    line = SpeedLine()
    client = Client(line, "line")
    client.open()
    with pytest.raises(StatusError, match="BAD_ARGUMENT"):
        client.change_baud(baud)
    assert line.baud == line.own_baud
    client.request(Message.PASS_BEGIN)


def test_no_more_is_in_flight_than_the_device_takes() -> None:
    """Behind the request that is being run wait at most rx_bytes, whatever the window."""
    model = Model(inputs=600, window=8, capacity=1)
    line = FakeDevice(model)
    unanswered: list[int] = []
    most = [0]
    write, read = line.write, line.read

    def count(data: bytes) -> None:
        if len(data) > 600:
            unanswered.append(len(data))
        most[0] = max(most[0], sum(unanswered[1:]))
        write(data)

    def answer() -> bytes:
        data = read()
        unanswered.clear()
        return data

    line.write, line.read = count, answer  # type: ignore[method-assign]
    device = Device(line)
    assert device.hello.rx_bytes == 2048
    device.evaluate(X, Y)
    assert 2048 - 700 < most[0] <= 2048


def test_a_lost_answer_is_asked_for_at_once() -> None:
    line = FakeDevice(Model(window=8))
    client = Client(line, "line", timeout=30)
    client.open()
    read = line.read
    lost = [0]

    def lose_the_first_answer() -> bytes:
        data = read()
        if data and not lost[0]:
            lost[0] = 1
            return data[data.index(0) + 1 :]
        return data

    line.read = lose_the_first_answer  # type: ignore[method-assign]
    requests = [(Message.STORE, struct.pack("<I", n % 3) + bytes([n] * 4)) for n in range(8)]
    assert [int.from_bytes(fields, "little") for fields in client.pipeline(requests)] == list(range(1, 9))
    assert client.resent == 1


def test_two_gaps_in_a_row_cost_two_rounds_and_no_timeout() -> None:
    line = FakeDevice(Model(window=8))
    client = Client(line, "line", timeout=30)
    client.open()
    write = line.write
    sent = [0]

    def lose_two(data: bytes) -> None:
        sent[0] += data != b"\0"
        if sent[0] not in (2, 10):  # the second request, and again when it is sent anew
            write(data)

    line.write = lose_two  # type: ignore[method-assign]
    requests = [(Message.STORE, struct.pack("<I", n % 3) + bytes([n] * 4)) for n in range(20)]
    assert [int.from_bytes(fields, "little") for fields in client.pipeline(requests)] == list(range(1, 21))


def test_an_erase_is_announced_and_waited_for() -> None:
    """The store fills up until it is compacted: BUSY(ms) goes out before the answer, whose wait is that much longer."""
    line = FakeDevice()
    client = Client(line, "line", timeout=0.01, retries=0)
    client.open()
    read, notices = line.read, 0

    def listen() -> bytes:
        nonlocal notices
        data = read()
        notices += data.count(bytes([Message.SLOT_SAVE | 0x80])) > 1
        return data

    line.read = listen  # type: ignore[method-assign]
    for n in range(40):
        client.request(Message.SLOT_SAVE, bytes([ord("a") + n % 2]).ljust(16, b"\0"))
    assert notices >= 1
    device = FakeDevice()
    device.hello()
    for _ in range(40):
        device._sequence += 1
        answers = device.exchange(encode(Frame(1, Message.SLOT_SAVE, device._sequence, b"a".ljust(16, b"\0"))))
        if len(answers) == 2:
            notice, answer = answers
            assert (notice.type, notice.sequence) == (answer.type, answer.sequence)
            assert notice.payload[0] == Status.BUSY and int.from_bytes(notice.payload[1:], "little") == 40 + 512 // 10
            assert answer.payload == bytes([Status.OK])
            return
    raise AssertionError("no erase in 40 saves")

# SPDX-License-Identifier: Apache-2.0
"""A device with a key: whoever has it is served as by any device, and to all others it is deaf (docs/security.md)."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

from link.fake_device import SMALL, WIDE, FakeDevice, Faults, FaultyLine
from link.test_protocol import CONFIGURE, TRAIN, ok, refused
from link.test_session import X, Y, use_everything
from lora_mcu.errors import DataError
from lora_mcu.link.auth import CHALLENGE_BYTES, TAG_BYTES, Tags, read_key
from lora_mcu.link.client import AuthError, Client
from lora_mcu.link.codes import PROTOCOL_VERSION, RESPONSE, Message, Status
from lora_mcu.link.frames import Decoder, Frame, decode, encode
from lora_mcu.session.device import Device

KEY = bytes(range(100, 132))
OTHER = bytes(range(32))
LOCKED = dataclasses.replace(SMALL, key=KEY)
LOCKED_WIDE = dataclasses.replace(WIDE, key=KEY)


class Host:
    """Raw frames of a host that has a key, well formed or not."""

    def __init__(self, device: FakeDevice, nonce: int = 1, key: bytes = KEY) -> None:
        self.device = device
        fields = ok(device.ask(Message.HELLO, 0, struct.pack("<I", nonce)))
        self.tags = Tags(key, fields[-CHALLENGE_BYTES:], nonce)

    def prove(self) -> Host:
        answer = ok(self.device.ask(Message.AUTH, 0, self.tags.proof))
        assert self.tags.proves(answer)
        return self

    def line(self, number: int, message: int, payload: bytes = b"", tag: bytes | None = None) -> bytes:
        tag = self.tags.tag(number, message, payload) if tag is None else tag
        return encode(Frame(PROTOCOL_VERSION, message, number & 0xFFFF, payload + tag))

    def ask(self, number: int, message: int, payload: bytes = b"", tag: bytes | None = None) -> Frame:
        (answer,) = self.device.exchange(self.line(number, message, payload, tag))
        return answer


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(LOCKED)


def untouched(device: FakeDevice, before: tuple[bytes, ...]) -> None:
    assert device.state() == before


def test_hello_offers_a_challenge_and_opens_nothing(device: FakeDevice) -> None:
    fields = ok(device.ask(Message.HELLO, 0, struct.pack("<I", 7)))
    assert len(fields) == 105 + 1 + CHALLENGE_BYTES and fields[105] == 1
    before = device.state()
    for message in Message:
        if message not in (Message.HELLO, Message.AUTH):
            refused(device.ask(message, 1, TRAIN), Status.NO_SESSION)
    untouched(device, before)
    assert ok(device.ask(Message.HELLO, 0, struct.pack("<I", 7))) == fields
    assert ok(device.ask(Message.HELLO, 0, struct.pack("<I", 8)))[106:] != fields[106:]


def test_challenges_never_come_again(device: FakeDevice) -> None:
    seen = set()
    for _ in range(3):
        for nonce in (1, 2, 1, 2, 0):
            seen.add(ok(device.ask(Message.HELLO, 0, struct.pack("<I", nonce)))[-CHALLENGE_BYTES:])
        device.boot()
    assert len(seen) == 15


@pytest.mark.parametrize("key", [OTHER, bytes(32)])
def test_a_wrong_key_opens_nothing(device: FakeDevice, key: bytes) -> None:
    host = Host(device, 1, key)
    before = device.state()
    refused(device.ask(Message.AUTH, 0, host.tags.proof), Status.AUTH)
    refused(host.ask(1, Message.PASS_BEGIN), Status.NO_SESSION)
    untouched(device, before)


def test_a_used_offer_is_none(device: FakeDevice) -> None:
    """What stands where an offer stood proves nothing, neither as it was nor as zeros."""
    host = Host(device, 0).prove()
    ok(host.ask(1, Message.PASS_BEGIN))
    zeros = Tags(KEY, bytes(CHALLENGE_BYTES), 0)
    zeros._key = bytes(32)
    refused(device.ask(Message.AUTH, 0, zeros.proof), Status.AUTH)
    ok(device.ask(Message.AUTH, 0, host.tags.proof))  # its answer was lost: the session goes on
    ok(host.ask(2, Message.PASS_BEGIN))


def test_auth_of_another_length_opens_nothing(device: FakeDevice) -> None:
    host = Host(device)
    for payload in (b"", host.tags.proof[:-1], host.tags.proof + b"\0", bytes(1024)):
        refused(device.ask(Message.AUTH, 0, payload), Status.AUTH)
    refused(host.ask(1, Message.PASS_BEGIN), Status.NO_SESSION)


def test_no_message_is_served_without_its_tag(device: FakeDevice) -> None:
    host = Host(device).prove()
    ok(host.ask(1, Message.CONFIGURE, CONFIGURE))
    before = device.state()
    payloads = {Message.TRAIN: TRAIN, Message.CONFIGURE: CONFIGURE, Message.SAMPLE_DATA: bytes(5)}
    for message in Message:
        if message in (Message.HELLO, Message.AUTH):
            continue
        payload = payloads.get(message, b"")
        right = host.tags.tag(2, message, payload)
        for length in range(TAG_BYTES):
            refused(host.ask(2, message, payload, right[:length]), Status.AUTH)
        refused(host.ask(2, message, payload, right + b"\0"), Status.AUTH)
        refused(host.ask(2, message, payload, bytes(TAG_BYTES)), Status.AUTH)
    untouched(device, before)
    ok(host.ask(2, Message.TRAIN, TRAIN))


def test_every_bit_of_tag_payload_and_type_counts(device: FakeDevice) -> None:
    host = Host(device).prove()
    ok(host.ask(1, Message.CONFIGURE, CONFIGURE))
    before = device.state()
    whole = TRAIN + host.tags.tag(2, Message.TRAIN, TRAIN)
    for bit in range(8 * len(whole)):
        spoiled = bytearray(whole)
        spoiled[bit // 8] ^= 1 << bit % 8
        refused(device.ask(Message.TRAIN, 2, bytes(spoiled)), Status.AUTH)
    for message in range(2, 128):
        if message not in (Message.AUTH, Message.TRAIN):
            refused(device.ask(message, 2, whole), Status.AUTH)
    untouched(device, before)
    ok(device.ask(Message.TRAIN, 2, whole))


def test_a_forged_request_does_not_take_the_place_of_the_real_one(device: FakeDevice) -> None:
    host = Host(device).prove()
    ok(host.ask(1, Message.CONFIGURE, CONFIGURE))
    refused(host.ask(2, Message.PASS_BEGIN, b"", bytes(TAG_BYTES)), Status.AUTH)
    refused(host.ask(2, Message.STATISTICS, b"", bytes(TAG_BYTES)), Status.AUTH)
    assert ok(host.ask(2, Message.TRAIN, TRAIN)) == struct.pack("<I", 1)


def test_an_old_frame_runs_no_second_time(device: FakeDevice) -> None:
    host = Host(device).prove()
    ok(host.ask(1, Message.CONFIGURE, CONFIGURE))
    old = [host.line(n, Message.TRAIN, TRAIN) for n in range(2, 14)]
    answers = [device.exchange(line)[0] for line in old]
    before = device.state()
    assert device.exchange(old[-1]) == [answers[-1]]  # as it is: a retransmission
    for line in old[:-1]:
        assert device.exchange(line)[0].payload == bytes([Status.NAK, 14, 0])
    for line in old:  # as the next one
        frame = decode(line[:-1])
        assert frame is not None
        refused(device.ask(Message.TRAIN, 14, frame.payload), Status.AUTH)
    untouched(device, before)


def test_a_repeat_needs_its_tag_too(device: FakeDevice) -> None:
    """A stranger is not told the last answer."""
    host = Host(device).prove()
    ok(host.ask(1, Message.ADAPTER_READ, struct.pack("<IH", 0, 8)))
    refused(device.ask(Message.ADAPTER_READ, 1, struct.pack("<IH", 0, 8)), Status.AUTH)


def test_the_sequence_wraps_and_old_frames_stay_old(device: FakeDevice) -> None:
    host = Host(device).prove()
    first = host.line(5, Message.STATE_RESET)
    lines = [host.line(n, Message.STATE_RESET) for n in range(1, 0x10000 + 5)]
    for start in range(0, len(lines), 2000):
        device.write(b"".join(lines[start : start + 2000]))
        for _ in range(20):
            answers = list(Decoder().feed(device.read()))
            if not answers:
                break
            assert all(answer.payload == bytes([Status.UNSUPPORTED]) for answer in answers)
    refused(device.exchange(first)[0], Status.AUTH)
    refused(host.ask(0x10000 + 5, Message.STATE_RESET), Status.UNSUPPORTED)


def test_a_frame_of_another_session_is_refused(device: FakeDevice) -> None:
    first = Host(device, 1).prove()
    moved = first.line(1, Message.PASS_BEGIN)
    second = Host(device, 2).prove()
    before = device.state()
    refused(device.exchange(moved)[0], Status.AUTH)
    refused(device.ask(Message.AUTH, 0, first.tags.proof), Status.AUTH)
    untouched(device, before)
    ok(second.ask(1, Message.PASS_BEGIN))


def test_a_strangers_hello_disturbs_no_session(device: FakeDevice) -> None:
    host = Host(device, 1).prove()
    ok(host.ask(1, Message.ADAPTER_BEGIN, bytes.fromhex("aa" * 32 + "bb" * 32) + struct.pack("<I", 28)))
    ok(host.ask(2, Message.ADAPTER_DATA, bytes(4 + 14)))
    before = device.state()
    for nonce in range(2, 50):
        Host(device, nonce, OTHER)
        refused(device.ask(Message.AUTH, 0, bytes(8)), Status.AUTH)
    untouched(device, before)
    ok(host.ask(3, Message.ADAPTER_DATA, struct.pack("<I", 14) + bytes(14)))


class Recorded:
    """A Transport that keeps what the host wrote."""

    def __init__(self, inner: FakeDevice) -> None:
        self._inner, self.lines, self.own_baud = inner, list[bytes](), inner.own_baud
        self.read, self.line_seconds = inner.read, inner.line_seconds
        self.set_baud, self.close = inner.set_baud, inner.close

    def write(self, data: bytes) -> None:
        self.lines.append(data)
        self._inner.write(data)


@pytest.mark.parametrize("booted", [False, True], ids=["in the same boot", "after a reset"])
def test_a_captured_session_is_worth_nothing(device: FakeDevice, booted: bool) -> None:
    line = Recorded(device)
    host = Device(line, key=KEY)
    host.configure(lr=0.02, batch_size=4)
    host.train(X, Y)
    host.save_slot("mine")
    if booted:
        device.boot()
    else:
        Device(device, key=KEY)  # another host's session has followed
    before = device.state()
    for captured in line.lines:
        for answer in device.exchange(captured):
            hello = answer.type == Message.HELLO | RESPONSE
            assert answer.payload[0] in ((Status.OK,) if hello else (Status.AUTH, Status.NO_SESSION, Status.NAK))
    untouched(device, before)


def test_a_captured_live_session_can_only_be_repeated(device: FakeDevice) -> None:
    line = Recorded(device)
    host = Device(line, key=KEY)
    host.configure(lr=0.02, batch_size=4)
    host.train(X, Y)
    before = device.state()
    for captured in line.lines:
        device.exchange(captured)
    untouched(device, before)
    host.train(X, Y)


@pytest.mark.parametrize("seed", range(2))
def test_with_the_key_all_is_as_without_one(seed: int) -> None:
    open_line, locked_line = FakeDevice(WIDE), FakeDevice(LOCKED_WIDE)
    clean = use_everything(Device(open_line))
    bad = FaultyLine(locked_line, seed, Faults())
    device = Device(bad, timeout=0.004, retries=60, key=KEY)
    assert use_everything(device) == clean
    assert locked_line.state()[1:3] == open_line.state()[1:3]
    statistics = device.statistics()
    assert statistics.total_steps == 3 * 8 + 4 * 5 + 8
    assert statistics.repeats > 0 and statistics.naks > 0, "the line was not bad enough to matter"


def test_a_reset_is_noticed_with_a_key_too(device: FakeDevice) -> None:
    from lora_mcu.link.client import DeviceResetError

    host = Device(device, key=KEY)
    host.train(X, Y)
    device.boot()
    with pytest.raises(DeviceResetError, match="training steps"):
        host.train(X, Y)
    host.train(X, Y)


# ---- what the host says ----


def test_a_missing_wrong_or_needless_key_is_one_line() -> None:
    cases = [
        (FakeDevice(LOCKED), None, "asks for its key: give the file with --key"),
        (FakeDevice(LOCKED), OTHER, "has another key"),
        (FakeDevice(SMALL), KEY, "asks for no key: leave --key out"),
    ]
    for line, key, said in cases:
        with pytest.raises(AuthError, match=said) as caught:
            Client(line, "port", key=key).open()
        assert "\n" not in str(caught.value) and KEY.hex() not in str(caught.value)


def test_a_device_without_the_key_is_found_out() -> None:
    """An impostor that takes any proof, and one that answers with an old proof."""

    class Impostor(FakeDevice):
        def read(self) -> bytes:
            out = b""
            for frame in Decoder().feed(super().read()):
                if frame.type == Message.AUTH | RESPONSE:
                    frame = dataclasses.replace(frame, payload=bytes([Status.OK]) + bytes(8))
                out += encode(frame)
            return out

    with pytest.raises(AuthError, match="does not have the key"):
        Client(Impostor(dataclasses.replace(SMALL, key=OTHER)), "port", timeout=0.01, key=KEY).open()


def test_key_files(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content in (KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n"):
        file.write_bytes(content)
        assert read_key(file) == KEY
    for content in (b"", KEY[:-1], KEY + b"\n", KEY.hex()[:-1].encode(), b"z" * 64, "é".encode() * 32, bytes(10000)):
        file.write_bytes(content)
        with pytest.raises(DataError, match="holds no key: 32 bytes") as caught:
            read_key(file)
        assert "\n" not in str(caught.value)
    file.write_bytes(bytes(32))
    with pytest.raises(DataError, match="one byte 32 times"):
        read_key(file)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_key(tmp_path / "none")

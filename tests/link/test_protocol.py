# SPDX-License-Identifier: Apache-2.0
"""The device's rules, frame by frame: session, sequence, cache, staging, refusals that change nothing."""

from __future__ import annotations

import struct
import zlib

import pytest

from link.fake_device import LARGE, SMALL, WIDE, FakeDevice, Model
from lora_mcu.link.codes import PROTOCOL_VERSION, RESPONSE, Message, Status
from lora_mcu.link.frames import Decoder, Frame, encode

TARGETS = Model(inputs=4, outputs=3, loss="mse")
SAMPLE = bytes([10, 20, 30, 40])
TRAIN = struct.pack("<I", 1) + SAMPLE
CONFIGURE = struct.pack("<fffffIII", 0.05, 1, 0, 0, 0, 1, 3, 0)
BEGIN = bytes.fromhex("aa" * 32 + "bb" * 32)
STATISTICS_STEPS = 1 + 20 + 40 + 8  # offset of total_steps in the payload


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(SMALL)


def steps(answer: Frame) -> int:
    assert answer.payload[0] == Status.OK
    return int.from_bytes(answer.payload[STATISTICS_STEPS : STATISTICS_STEPS + 4], "little")


def ok(answer: Frame) -> bytes:
    assert answer.payload[0] == Status.OK, Status(answer.payload[0]).name
    return answer.payload[1:]


def refused(answer: Frame, status: int) -> None:
    assert answer.payload == bytes([status])


# ---- session ----


def test_nothing_runs_before_hello(device: FakeDevice) -> None:
    before = device.state()
    for message in Message:
        if message != Message.HELLO:
            refused(device.ask(message, 1, TRAIN), Status.NO_SESSION)
    assert device.state() == before


def test_hello_says_who_it_is(device: FakeDevice) -> None:
    fields = ok(device.hello(0x12345678))
    assert len(fields) == 105
    assert fields[:4] == bytes.fromhex("78563412")
    assert fields[8:16] == bytes([PROTOCOL_VERSION, 0, 1, 0, 1, 1, 0, 4])
    assert fields[16:80] == BEGIN
    assert struct.unpack("<IIIIIBI", fields[80:])[1:3] == (0, SMALL.capacity)


def test_the_same_nonce_goes_on_and_a_new_one_starts_anew(device: FakeDevice) -> None:
    first = device.hello(5)
    ok(device.ask(Message.PASS_BEGIN, 1))
    ok(device.ask(Message.PASS_BEGIN, 2))
    assert device.hello(5) == first
    ok(device.ask(Message.PASS_BEGIN, 3))
    ok(device.hello(6))
    assert device.ask(Message.PASS_BEGIN, 4).payload == bytes([Status.NAK, 1, 0])
    ok(device.ask(Message.PASS_BEGIN, 1))


def test_a_reset_needs_a_new_hello(device: FakeDevice) -> None:
    device.hello()
    ok(device.ask(Message.PASS_BEGIN, 1))
    device.boot()
    refused(device.ask(Message.PASS_BEGIN, 2), Status.NO_SESSION)


def test_hello_with_another_length_opens_nothing(device: FakeDevice) -> None:
    for size in (0, 3, 5, 1024):
        refused(device.ask(Message.HELLO, 0, bytes(size)), Status.BAD_LENGTH)
    refused(device.ask(Message.PASS_BEGIN, 1), Status.NO_SESSION)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_protocol_version_is_answered_by_name(device: FakeDevice, version: int) -> None:
    device.hello()
    before = device.state()
    for message in (Message.HELLO, Message.TRAIN):
        answer = device.ask(message, 1, TRAIN, version)
        assert answer.version == PROTOCOL_VERSION
        assert answer.payload == bytes([Status.VERSION, PROTOCOL_VERSION, 0, 1, 0])
    assert device.state() == before


def test_an_echo_of_its_own_answers_is_ignored(device: FakeDevice) -> None:
    device.hello()
    assert device.exchange(encode(Frame(1, Message.TRAIN | RESPONSE, 1, TRAIN))) == []


# ---- sequence and cache ----


def test_a_retried_train_runs_once(device: FakeDevice) -> None:
    device.hello()
    ok(device.ask(Message.CONFIGURE, 1, CONFIGURE))
    first = device.ask(Message.TRAIN, 2, TRAIN)
    after = device.state()
    assert device.ask(Message.TRAIN, 2, TRAIN) == first
    assert device.ask(Message.TRAIN, 2, TRAIN) == first
    assert device.state() == after
    assert steps(device.ask(Message.STATISTICS, 3)) == 1


def test_out_of_sequence_is_refused_with_what_is_expected(device: FakeDevice) -> None:
    device.hello()
    ok(device.ask(Message.CONFIGURE, 1, CONFIGURE))
    before = device.state()
    for sequence in (0, 3, 4, 1000, 0x8001, 0xFFFF):
        assert device.ask(Message.TRAIN, sequence, TRAIN).payload == bytes([Status.NAK, 2, 0])
    assert device.state() == before
    ok(device.ask(Message.TRAIN, 2, TRAIN))


def test_a_long_answer_is_repeated_too(device: FakeDevice) -> None:
    device.hello()
    first = device.ask(Message.INFO, 1, bytes(4))
    assert first.payload[1:] == SMALL.info.to_json().encode()[:1023]
    device.hello(1)
    device.ask(Message.TRAIN, 77)
    assert device.ask(Message.INFO, 1, bytes(4)) == first


def test_the_window_keeps_its_answers() -> None:
    device = FakeDevice(WIDE)
    device.hello()
    answers = {1: device.ask(Message.CONFIGURE, 1, CONFIGURE)}
    for sequence in range(2, 12):
        answers[sequence] = device.ask(Message.TRAIN, sequence, TRAIN)
    assert len({answer.payload for answer in answers.values()}) == 11
    after = device.state()
    for sequence in (11, 8, 10, 9, 11):
        assert device.ask(Message.TRAIN, sequence, TRAIN) == answers[sequence]
    assert device.ask(Message.TRAIN, 7, TRAIN).payload == bytes([Status.NAK, 12, 0])
    assert device.state() == after


def test_pipelined_requests_run_in_order_and_a_gap_stops_them() -> None:
    device = FakeDevice(WIDE)
    device.hello()
    device.ask(Message.CONFIGURE, 1, CONFIGURE)
    lines = [encode(Frame(1, Message.TRAIN, n, TRAIN)) for n in (2, 3, 4, 5)]
    answers = device.exchange(lines[0] + lines[2] + lines[3])
    assert [a.payload[0] for a in answers] == [Status.OK, Status.NAK, Status.NAK]
    answers = device.exchange(b"".join(lines[1:]))
    assert [int.from_bytes(ok(a), "little") for a in answers] == [2, 3, 4]


@pytest.mark.parametrize("window", [1, 3])
def test_the_sequence_wraps(window: int) -> None:
    """65535 is followed by 0, and the answers kept across the wrap are all there."""
    device = FakeDevice(Model(window=window))
    device.hello()
    line = b"".join(encode(Frame(1, Message.EVALUATE_BEGIN, n & 0xFFFF)) for n in range(1, 65538))
    decoder, answers = Decoder(), []
    for at in range(0, len(line), 2048):
        device.write(line[at : at + 2048])
        answers += list(decoder.feed(device.read()))
    assert len(answers) == 65537
    assert {a.payload for a in answers} == {bytes([Status.OK])}
    for back in range(window):
        ok(device.ask(Message.EVALUATE_BEGIN, 65537 - back & 0xFFFF))
    assert device.ask(Message.EVALUATE_BEGIN, 65537 - window & 0xFFFF).payload == bytes([Status.NAK, 2, 0])
    ok(device.ask(Message.EVALUATE_BEGIN, 2))


def test_what_comes_later_is_unsupported_and_counts(device: FakeDevice) -> None:
    device.hello()
    later = [Message.AUTH, Message.MERGE, Message.UNMERGE, 7, 47, 127]
    for sequence, message in enumerate(later, 1):
        refused(device.ask(message, sequence, SAMPLE), Status.UNSUPPORTED)


def test_a_model_without_state_has_none_to_reset_or_advance(device: FakeDevice) -> None:
    device.hello()
    refused(device.run(Message.STATE_RESET), Status.UNSUPPORTED)
    refused(device.run(Message.ADVANCE, SAMPLE), Status.UNSUPPORTED)
    refused(device.run(Message.STATE_RESET, b"x"), Status.BAD_LENGTH)


# ---- samples ----

LABEL = struct.pack("<I", 1)


@pytest.mark.parametrize("message", [Message.TRAIN, Message.EVALUATE, Message.STORE, Message.INFER])
def test_a_staged_sample_is_whole_and_serves_once(device: FakeDevice, message: Message) -> None:
    payload = b"" if message == Message.INFER else LABEL
    device.hello()
    refused(device.run(message, payload), Status.NO_SAMPLE)
    ok(device.run(Message.SAMPLE_DATA, bytes(4) + SAMPLE[:3]))
    refused(device.run(message, payload), Status.NO_SAMPLE)
    ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 3) + SAMPLE[3:]))
    ok(device.run(message, payload))
    refused(device.run(message, payload), Status.NO_SAMPLE)
    ok(device.run(message, payload + SAMPLE))
    refused(device.run(message, payload), Status.NO_SAMPLE)


def test_staged_and_inline_are_the_same(device: FakeDevice) -> None:
    factors = []
    for inline in (True, False):
        device.boot()
        device.hello()
        ok(device.run(Message.CONFIGURE, CONFIGURE))
        for _ in range(3):
            if not inline:
                ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 0) + SAMPLE))
            ok(device.run(Message.TRAIN, LABEL + (SAMPLE if inline else b"")))
        factors.append(device.state()[1])
    assert factors[0] == factors[1]
    assert factors[0][16:] != bytes(12), "B has not moved"


def test_pieces_may_come_again_but_leave_no_gap(device: FakeDevice) -> None:
    device.hello()
    for _ in range(2):
        ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 0) + SAMPLE[:2]))
    before = device.state()
    refused(device.run(Message.SAMPLE_DATA, struct.pack("<I", 3) + SAMPLE[3:]), Status.BAD_ARGUMENT)
    refused(device.run(Message.SAMPLE_DATA, struct.pack("<I", 2) + SAMPLE[:3]), Status.BAD_ARGUMENT)
    refused(device.run(Message.SAMPLE_DATA, struct.pack("<I", 0xFFFFFFFF) + SAMPLE), Status.BAD_ARGUMENT)
    assert device.state() == before
    ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 2) + SAMPLE[2:]))
    ok(device.run(Message.TRAIN, LABEL))


def test_a_target_is_staged_and_serves_once() -> None:
    device = FakeDevice(TARGETS)
    device.hello()
    refused(device.run(Message.TRAIN, SAMPLE), Status.NO_SAMPLE)
    ok(device.run(Message.TARGET_DATA, bytes(4) + struct.pack("<3f", 1, 2, 3)))
    ok(device.run(Message.TRAIN, SAMPLE))
    refused(device.run(Message.TRAIN, SAMPLE), Status.NO_SAMPLE)
    ok(device.run(Message.TARGET_DATA, bytes(4) + struct.pack("<3f", 1, float("nan"), 3)))
    before = device.state()[:3]
    refused(device.run(Message.TRAIN, SAMPLE), Status.BAD_LABEL)
    assert device.state()[:3] == before


def test_classes_take_no_target(device: FakeDevice) -> None:
    device.hello()
    refused(device.run(Message.TARGET_DATA, bytes(16)), Status.UNSUPPORTED)


def test_an_output_is_read_in_pieces() -> None:
    device = FakeDevice(LARGE)
    device.hello()
    refused(device.run(Message.OUTPUT_READ, struct.pack("<IH", 0, 4)), Status.NO_OUTPUT)
    sample = bytes(i % 251 for i in range(LARGE.inputs))
    ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 0) + sample[:1000]))
    ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 1000) + sample[1000:]))
    assert ok(device.run(Message.INFER)) == b"", "1200 bytes do not fit into an answer"
    whole = ok(device.run(Message.OUTPUT_READ, struct.pack("<IH", 0, 1023)))
    whole += ok(device.run(Message.OUTPUT_READ, struct.pack("<IH", 1023, 177)))
    assert len(whole) == LARGE.outputs
    assert ok(device.run(Message.OUTPUT_READ, struct.pack("<IH", 100, 50))) == whole[100:150]
    for offset, count in ((0, 1024), (1023, 178), (1201, 0), (0xFFFFFFFF, 2)):
        refused(device.run(Message.OUTPUT_READ, struct.pack("<IH", offset, count)), Status.BAD_ARGUMENT)
    ok(device.run(Message.SAMPLE_DATA, struct.pack("<I", 0) + sample[:1000]))
    refused(device.run(Message.OUTPUT_READ, struct.pack("<IH", 0, 4)), Status.NO_OUTPUT)


# ---- refusals change nothing ----

NOT_AN_ADAPTER = {
    "another model": (b"\x01" + BEGIN[1:] + struct.pack("<I", 28), Status.WRONG_MODEL),
    "another layout": (BEGIN[:-1] + b"\x01" + struct.pack("<I", 28), Status.WRONG_LAYOUT),
    "another size": (BEGIN + struct.pack("<I", 30), Status.WRONG_LAYOUT),
}
RIGHT_LENGTHS = {
    Message.HELLO: {4}, Message.INFO: {4}, Message.STATISTICS: {0}, Message.REBOOT: {0}, Message.CONFIGURE: {32},
    Message.PASS_BEGIN: {0}, Message.TRAIN: {4, 8}, Message.PASS_END: {0}, Message.EVALUATE_BEGIN: {0},
    Message.EVALUATE: {4, 8}, Message.EVALUATE_END: {0}, Message.INFER: {0, 4}, Message.OUTPUT_READ: {6},
    Message.STORE: {4, 8}, Message.STORE_CLEAR: {0}, Message.RUN_EPOCHS: {4}, Message.RUN_STOP: {0},
    Message.ADAPTER_READ: {6}, Message.ADAPTER_BEGIN: {68}, Message.ADAPTER_COMMIT: {4}, Message.ADAPTER_RESET: {0},
    Message.SAMPLE_DATA: set(range(5, 1025)), Message.ADAPTER_DATA: set(range(5, 1025)),
    Message.BAUD: {4}, Message.STORE_POLICY: {0, 12}, Message.STATE_RESET: {0},
    Message.STORE_SAVE: {0},
}  # fmt: skip
LENGTHS = [*range(80), 255, 256, 1023, 1024]


@pytest.mark.parametrize("message", RIGHT_LENGTHS, ids=lambda m: m.name)
def test_every_other_length_is_refused(device: FakeDevice, message: Message) -> None:
    """0x01 in every byte: a label in range only by its first byte, offsets beyond every end."""
    device.hello()
    ok(device.run(Message.STORE, TRAIN))
    before = device.state()
    wrong = [n for n in LENGTHS if n not in RIGHT_LENGTHS[message]]
    assert wrong
    for size in wrong:
        payload = (LABEL + b"\x01" * 1020)[:size]
        refused(device.ask(message, 0, payload) if message == Message.HELLO else device.run(message, payload),
                Status.BAD_LENGTH)  # fmt: skip
        assert device.state() == before, size


@pytest.mark.parametrize(
    "message, payload, status",
    [
        (Message.TRAIN, struct.pack("<I", 3) + SAMPLE, Status.BAD_LABEL),
        (Message.EVALUATE, struct.pack("<I", 0xFFFFFFFF) + SAMPLE, Status.BAD_LABEL),
        (Message.STORE, struct.pack("<I", 3) + SAMPLE, Status.BAD_LABEL),
        (Message.CONFIGURE, CONFIGURE[:20] + bytes(12), Status.BAD_ARGUMENT),
        (Message.CONFIGURE, struct.pack("<f", float("nan")) + CONFIGURE[4:], Status.NOT_FINITE),
        (Message.CONFIGURE, CONFIGURE[:28] + struct.pack("<I", 2), Status.BAD_ARGUMENT),
        (Message.INFO, struct.pack("<I", 100000), Status.BAD_ARGUMENT),
        (Message.RUN_EPOCHS, struct.pack("<I", 0), Status.BAD_ARGUMENT),
        (Message.ADAPTER_READ, struct.pack("<IH", 0, 29), Status.BAD_ARGUMENT),
        (Message.ADAPTER_READ, struct.pack("<IH", 0xFFFFFFFF, 2), Status.BAD_ARGUMENT),
        (Message.ADAPTER_DATA, bytes(8), Status.NO_TRANSFER),
        (Message.ADAPTER_COMMIT, bytes(4), Status.NO_TRANSFER),
        *((Message.ADAPTER_BEGIN, payload, status) for payload, status in NOT_AN_ADAPTER.values()),
    ],
)
def test_a_refused_argument_changes_nothing(device: FakeDevice, message: int, payload: bytes, status: int) -> None:
    device.hello()
    ok(device.run(Message.STORE, TRAIN))
    ok(device.run(Message.TRAIN, TRAIN))
    before = device.state()
    refused(device.run(message, payload), status)
    assert device.state() == before


def test_a_full_store_is_refused(device: FakeDevice) -> None:
    device.hello()
    for n in range(SMALL.capacity):
        assert ok(device.run(Message.STORE, TRAIN)) == struct.pack("<I", n + 1)
    before = device.state()[:3]
    refused(device.run(Message.STORE, TRAIN), Status.STORE_FULL)
    assert device.state()[:3] == before
    ok(device.run(Message.STORE_CLEAR))
    refused(device.run(Message.RUN_EPOCHS, struct.pack("<I", 1)), Status.STORE_EMPTY)


# ---- adapters ----


def transfer(device: FakeDevice, factors: bytes, crc: int, pieces: int = 1) -> Frame:
    size = -(-len(factors) // pieces)
    ok(device.run(Message.ADAPTER_BEGIN, BEGIN + struct.pack("<I", 28)))
    for at in range(0, len(factors), size):
        ok(device.run(Message.ADAPTER_DATA, struct.pack("<I", at) + factors[at : at + size]))
    return device.run(Message.ADAPTER_COMMIT, struct.pack("<I", crc))


def test_an_adapter_arrives_whole_or_not_at_all(device: FakeDevice) -> None:
    factors = struct.pack("<14e", *(0.25 * n for n in range(14)))
    device.hello()
    before = device.state()[1]
    refused(transfer(device, factors, zlib.crc32(factors) ^ 1), Status.BAD_CRC)
    infinite = factors[:-2] + struct.pack("<H", 0x7C00)
    refused(transfer(device, infinite, zlib.crc32(infinite)), Status.NOT_FINITE)
    refused(transfer(device, factors[:-2], zlib.crc32(factors[:-2])), Status.BAD_LENGTH)
    assert device.state()[1] == before
    ok(transfer(device, factors, zlib.crc32(factors), pieces=3))
    assert device.state()[1] == factors
    assert ok(device.run(Message.ADAPTER_READ, struct.pack("<IH", 4, 20))) == factors[4:24]
    ok(device.run(Message.ADAPTER_RESET))
    assert device.state()[1] == before


def test_a_new_session_forgets_an_open_transfer(device: FakeDevice) -> None:
    device.hello(1)
    ok(device.run(Message.ADAPTER_BEGIN, BEGIN + struct.pack("<I", 28)))
    refused(device.run(Message.TRAIN, TRAIN), Status.BUSY)
    device.hello(2)
    refused(device.run(Message.ADAPTER_DATA, bytes(8)), Status.NO_TRANSFER)
    ok(device.run(Message.TRAIN, TRAIN))


# ---- runs ----

IN_A_RUN = {Message.INFO, Message.STATISTICS, Message.REBOOT, Message.RUN_STOP, Message.BAUD}


def start_run(device: FakeDevice) -> None:
    device.hello()
    for _ in range(3):
        ok(device.run(Message.STORE, TRAIN))
    ok(device.run(Message.RUN_EPOCHS, struct.pack("<I", 0xFFFFFFFF)))


def test_a_run_answers_and_owns_arena_and_factors(device: FakeDevice) -> None:
    start_run(device)
    epochs = [int.from_bytes(ok(device.run(Message.STATISTICS))[4:8], "little") for _ in range(3)]
    assert 0 < epochs[0] < epochs[1] < epochs[2]
    implemented = RIGHT_LENGTHS.keys() | {Message.TARGET_DATA}
    for message in implemented - IN_A_RUN - {Message.HELLO}:
        refused(device.run(message, bytes(min(RIGHT_LENGTHS.get(message, {8})))), Status.BUSY)
    ok(device.run(Message.RUN_STOP))
    assert ok(device.run(Message.STATISTICS))[:4] == bytes(4)
    ok(device.run(Message.TRAIN, TRAIN))


def test_a_new_session_finds_the_run_going_on(device: FakeDevice) -> None:
    start_run(device)
    device.hello(9)
    assert ok(device.run(Message.STATISTICS))[:4] != bytes(4)


def test_reboot_answers_and_resets(device: FakeDevice) -> None:
    device.hello()
    boot = ok(device.hello())[4:8]
    ok(device.run(Message.REBOOT))
    refused(device.run(Message.STATISTICS), Status.NO_SESSION)
    assert ok(device.hello())[4:8] != boot

# SPDX-License-Identifier: Apache-2.0
"""The host's session over good and bad lines: the same bytes as a clean run, nothing twice, losses said by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from link.fake_device import LARGE, SMALL, WIDE, FakeDevice, Faults, FaultyLine, Model
from lora_mcu.adapters import Adapter
from lora_mcu.errors import DataError, DeviceError
from lora_mcu.link import commands, ports
from lora_mcu.link.client import Client, DeviceResetError, NoAnswerError, StatusError
from lora_mcu.link.codes import PROTOCOL_VERSION, RESPONSE, Message, Status
from lora_mcu.link.frames import Decoder, Frame, encode
from lora_mcu.link.transport import SerialTransport
from lora_mcu.session import EvalStats, StorePolicy, StoreState
from lora_mcu.session.device import Device
from lora_mcu.session.shuffle import epoch_order

RNG = np.random.default_rng(1)
X = RNG.integers(-128, 128, (30, 4)).astype(np.int8)
Y = (X.astype(float) @ RNG.standard_normal((4, 3))).argmax(1)


def use_everything(device: Device) -> tuple[Adapter, bytes, EvalStats]:
    """Every kind of request; what comes back depends on each of them having run exactly once."""
    device.configure(lr=0.02, momentum=0.5, batch_size=4, seed=5)
    for _ in range(3):
        device.train(X, Y)
    device.store(X[:10], Y[:10])
    device.store(X[10:20], Y[10:20])
    device.run_epochs(4)
    half = device.adapter()
    device.reset()
    device.load(half)
    device.train(X[::-1], Y[::-1])
    return device.adapter(), device.infer(X).tobytes(), device.evaluate(X, Y)


@pytest.mark.parametrize("model", [SMALL, WIDE], ids=["window 1", "window 4"])
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_line_changes_no_byte(model: Model, seed: int) -> None:
    clean_line = FakeDevice(model)
    clean = use_everything(Device(clean_line))
    clean_state = clean_line.state()
    base = Device(FakeDevice(model)).adapter()
    assert clean[0] != base and np.all(clean[0].layers["dense"][1] != 0), "the run has trained nothing"

    line = FakeDevice(model)
    faults = Faults()
    device = Device(FaultyLine(line, seed, faults), timeout=0.004, retries=60)
    assert use_everything(device) == clean
    statistics = device.statistics()
    assert line.state()[1:3] == clean_state[1:3]
    assert statistics.total_steps == 3 * 8 + 4 * 5 + 8
    assert faults.seen.keys() == {"drop", "flip", "duplicate", "lose_byte", "noise", "stall"}
    assert statistics.repeats > 0 and statistics.bad_frames > 0, "the line was not bad enough to matter"
    if model.window > 1:
        assert statistics.naks > 0


def test_staged_targets_and_long_outputs_survive_a_bad_line() -> None:
    x = RNG.integers(-128, 128, (3, LARGE.inputs)).astype(np.int8)
    y = RNG.standard_normal((3, LARGE.outputs)).astype(np.float32)

    def run(device: Device) -> tuple[Adapter, bytes, float]:
        device.configure(lr=0.001, batch_size=2)
        device.store(x, y)
        device.run_epochs(2)
        device.train(x, y)
        return device.adapter(), device.infer(x).tobytes(), device.evaluate(x, y).loss

    clean = run(Device(FakeDevice(LARGE)))
    faults = Faults(flip=0.1, drop=0.1)
    assert run(Device(FaultyLine(FakeDevice(LARGE), 3, faults), timeout=0.004, retries=60)) == clean
    assert sum(faults.seen.values()) > 20


def test_the_window_is_used() -> None:
    """Requests reach the device before the answers to earlier ones are read."""
    line = FakeDevice(WIDE)
    written: list[int] = []
    reads = [0]
    write, read = line.write, line.read
    line.write = lambda data: (written.append(reads[0]), write(data))[1]  # type: ignore[method-assign]
    line.read = lambda: (reads.__setitem__(0, reads[0] + 1), read())[1]  # type: ignore[method-assign]
    device = Device(line)
    written.clear()
    device.evaluate(X, Y)
    assert max(written.count(n) for n in set(written)) == 4


def test_a_gap_in_the_window_costs_one_round() -> None:
    """One request of four is lost: it and the three refused behind it are sent again once, not once a NAK."""
    line = FakeDevice(WIDE)
    client = Client(line, "line")
    client.open()
    requests = [(Message.STORE, struct.pack("<I", n % 3) + bytes([n] * 4)) for n in range(8)]
    write = line.write
    sent = [0]

    def lose_the_first(data: bytes) -> None:
        sent[0] += 1
        if sent[0] != 1:
            write(data)

    line.write = lose_the_first  # type: ignore[method-assign]
    assert [int.from_bytes(fields, "little") for fields in client.pipeline(requests)] == list(range(1, 9))
    assert client.resent == 4


def test_streamed_epochs_in_the_devices_order_equal_stored_ones() -> None:
    stored, streamed = Device(FakeDevice()), Device(FakeDevice(WIDE))
    for device in (stored, streamed):
        device.configure(lr=0.02, batch_size=7, seed=11)
    stored.store(X, Y)
    losses: list[float] = []
    last = stored.run_epochs(3, lambda epoch, stats: losses.append(stats.loss))
    for epoch in range(3):
        order = epoch_order(len(X), 11, epoch)
        stats = streamed.train(X[order], Y[order])
        assert stats.loss == losses[epoch]
    assert (last.loss, last.steps) == (stats.loss, 15)
    assert stored.adapter().layers["dense"][1].tobytes() == streamed.adapter().layers["dense"][1].tobytes()


def test_statistics_tell_what_was_configured() -> None:
    device = Device(FakeDevice())
    device.configure(lr=0.5, lr_b_ratio=2, momentum=0.25, weight_decay=0.125, clip_norm=4, batch_size=3,
                     rounding="nearest", seed=9)  # fmt: skip
    device.train(X, Y)
    seen = device.statistics()
    assert (seen.settings.lr, seen.settings.lr_b_ratio, seen.settings.momentum) == (0.5, 2.0, 0.25)
    assert (seen.settings.weight_decay, seen.settings.clip_norm, seen.settings.batch_size) == (0.125, 4.0, 3)
    assert (seen.settings.rounding, seen.settings.seed) == ("nearest", 9)
    assert (seen.last_pass.samples, seen.last_pass.steps + seen.last_pass.skipped) == (30, 10)
    assert (seen.stack_used, seen.ticks, seen.stored) == (123, 7, 0)


def test_a_loss_that_explodes_is_seen() -> None:
    device = Device(FakeDevice())
    base = device.evaluate(X, Y)
    device.configure(lr=1e30)
    stats = device.train(X, Y)
    assert stats.skipped + stats.steps == 4
    assert stats.loss > base.loss + 1 and device.evaluate(X, Y).loss > base.loss + 1
    device.reset()
    assert device.evaluate(X, Y) == base


# ---- what goes wrong is said ----


def test_a_reset_in_a_pass_says_what_was_lost() -> None:
    line = FakeDevice()
    device = Device(line)
    device.configure(batch_size=2)

    def pull_the_plug(sent: int) -> None:
        if sent == 21:
            line.boot()

    with pytest.raises(
        DeviceResetError,
        match=r"was reset \(the reset pin\): 10 training steps and the .* are lost.*CRC-32 [0-9a-f]{8}",
    ) as caught:
        device.train(X, Y, progress=pull_the_plug)
    assert caught.value.lost_steps == 10
    assert device.train(X, Y).steps == 4, "a new session is open, settings are the default ones"


def test_a_reset_between_two_calls_is_noticed() -> None:
    line = FakeDevice()
    device = Device(line)
    device.train(X, Y)
    line.boot()
    with pytest.raises(DeviceResetError, match="4 training steps"):
        device.infer(X)


def test_a_broken_off_pass_leaves_a_usable_session() -> None:
    device = Device(FakeDevice(WIDE))

    def stop(sent: int) -> None:
        if sent == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.train(X, Y, progress=stop)
    device.configure()
    device.reset()
    fresh = Device(FakeDevice(WIDE))
    assert device.train(X, Y) == fresh.train(X, Y)


def test_a_broken_off_run_is_stopped() -> None:
    device = Device(FakeDevice())
    device.store(X, Y)

    def stop(epoch: int, stats: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run_epochs(100, stop)
    assert device.statistics().epochs_left == 0
    assert device.train(X, Y).steps == 4


def test_a_refusal_in_the_window_is_named_and_nothing_more_is_sent() -> None:
    line = FakeDevice(WIDE)
    client = Client(line, "line")
    client.open()
    bad = struct.pack("<I", 7) + bytes(4)
    good = struct.pack("<I", 1) + bytes(4)
    sent: list[int] = []

    def requests():  # type: ignore[no-untyped-def]
        for n in range(20):
            sent.append(n)
            yield Message.STORE, bad if n == 5 else good

    with pytest.raises(StatusError, match="refused STORE: BAD_LABEL: the label is not below") as caught:
        client.pipeline(requests())
    assert caught.value.status == Status.BAD_LABEL
    assert len(sent) == 9, "the refused one and three in flight behind it"
    assert client.request(Message.STORE, good) == struct.pack("<I", 9)


def test_a_silent_line_is_named() -> None:
    class Silent(FakeDevice):
        def read(self) -> bytes:
            return b""

    with pytest.raises(NoAnswerError, match="no answer from the line to 4 HELLOs: is a lora_mcu device running there"):
        Device(Silent(), timeout=0.01, retries=3)


def test_a_device_that_falls_silent_is_named() -> None:
    line = FakeDevice()
    device = Device(line, timeout=0.005, retries=2)
    line.read = lambda: b""  # type: ignore[method-assign]
    with pytest.raises(NoAnswerError, match="no answer from the line to CONFIGURE, sent 3 times"):
        device.configure()


def test_another_host_is_noticed() -> None:
    line = FakeDevice()
    first = Device(line)
    first.train(X, Y)
    Device(line)
    with pytest.raises(DeviceError, match="another program opened a session"):
        first.infer(X)


class OtherVersion(FakeDevice):
    """A device of protocol version 2, whose layout of everything else this host cannot know."""

    def write(self, data: bytes) -> None:
        self.asked = list(Decoder().feed(data))

    def read(self) -> bytes:
        answers = [Frame(2, f.type | RESPONSE, f.sequence, bytes([Status.VERSION, 2, 0, 3, 0])) for f in self.asked]
        self.asked = []
        return b"".join(map(encode, answers))


def test_another_version_names_both_and_the_way_out() -> None:
    with pytest.raises(DeviceError) as caught:
        Device(OtherVersion())
    text = str(caught.value)
    assert "protocol version 2" in text and f"this lora_mcu version {PROTOCOL_VERSION}" in text
    assert "`lora-mcu compile`" in text and "`lora-mcu build`" in text and "\n" not in text


def test_boot_text_and_noise_cost_nothing() -> None:
    class Chatty(FakeDevice):
        def read(self) -> bytes:
            data = super().read()
            return b"boot v3\r\n\x00\x07ok\x00" + data if data else b"noise\x00"

    device = Device(Chatty(), timeout=0.02)
    assert device.train(X, Y) == Device(FakeDevice()).train(X, Y)


def test_reboot_starts_anew() -> None:
    line = FakeDevice()
    device = Device(line)
    boot = device.hello.boot_id
    device.train(X, Y)
    device.store(X, Y)
    device.reboot()
    assert device.hello.boot_id != boot
    assert (device.stored, device.hello.total_steps) == (0, 0)
    assert device.train(X, Y).steps == 4


# ---- the Learner's own rules ----


def test_the_store_says_its_capacity() -> None:
    device = Device(FakeDevice())
    device.store(X, Y)
    with pytest.raises(DataError, match="11 samples do not fit: the store holds 40, 30 of them used"):
        device.store(X[:11], Y[:11])
    assert device.stored == 30
    device.store(X[:10], Y[:10])
    device.clear_store()
    with pytest.raises(DataError, match="no samples are stored"):
        device.run_epochs(1)
    with pytest.raises(DataError, match="at least one epoch"):
        device.run_epochs(0)


def test_evaluation_and_inference_change_nothing() -> None:
    line = FakeDevice()
    device = Device(line)
    device.train(X, Y)
    device.store(X, Y)
    before = line.state()[:3]
    first = device.infer(X)
    device.evaluate(X, Y)
    assert np.array_equal(device.infer(X), first)
    assert line.state()[:3] == before


# ---- what a device says of itself is checked ----


@pytest.mark.parametrize(
    "change",
    [
        {"rank": "2"}, {"rank": 0}, {"rank": True}, {"rank": 2**40}, {"logit_count": -1}, {"alpha": float("nan")},
        {"alpha": "4"}, {"name": None}, {"loss": "hinge"}, {"rslora": 1}, {"label_names": [1]},
        {"store_capacity": "many"}, {"layout_sha256": 7},
        {"input": {"shape": [2**30, 2**30], "dtype": "int8", "scale": 1.0, "zero_point": 0}},
        {"input": {"shape": [-4], "dtype": "int8", "scale": 1.0, "zero_point": 0}},
        {"input": {"shape": [4], "dtype": "int4", "scale": 1.0, "zero_point": 0}},
        {"input": {"shape": [4], "dtype": "int8", "scale": 0.0, "zero_point": 0}},
        {"input": None}, {"layers": [{"name": "dense", "m": 3, "k": 0, "kernel": None}]}, {"layers": 3}, {"more": 1},
        {"layers": [{"name": "dense", "m": 3, "k": 4, "kernel": [1, "x", 4]}]},
    ],
)  # fmt: skip
def test_a_broken_description_is_refused_in_one_line(change: dict[str, object]) -> None:
    class Strange(FakeDevice):
        def read(self) -> bytes:
            frames = Decoder().feed(super().read())
            return b"".join(encode(self.rewrite(frame)) for frame in frames)

        def rewrite(self, frame: Frame) -> Frame:
            if frame.type != Message.INFO | RESPONSE:
                return frame
            text = json.dumps({**json.loads(self.model.info.to_json()), **change})
            padded = text + " " * (len(self.model.info.to_json()) - len(text))
            return Frame(frame.version, frame.type, frame.sequence, b"\0" + padded.encode())

    with pytest.raises(DeviceError, match="description of its model is broken: rebuild and flash its project"):
        Device(Strange())


def test_a_description_of_another_model_is_refused() -> None:
    line = FakeDevice()
    client = Client(line, "line")
    hello = client.open()
    client._hello = dataclasses.replace(hello, model_sha256="00" * 32)
    with pytest.raises(DeviceError, match="names another model than HELLO"):
        commands.read_info(client)


# ---- ports ----


def test_ports_that_cannot_be_opened_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DeviceError, match="port /dev/ttyNONE7 cannot be opened: there is no such port"):
        Device("/dev/ttyNONE7")
    with pytest.raises(DeviceError, match=r"port socket://127.0.0.1:9 cannot be opened: connection refused"):
        Device("socket://127.0.0.1:9")
    with pytest.raises(DeviceError, match=r"port nonsense://x cannot be opened: "):
        Device("nonsense://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be opened: ") as caught:
        Device(str(tmp_path / "file"))
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def on_a_pty(line: FakeDevice) -> Iterator[str]:
    """The path of a pseudo-terminal whose other end is ``line``."""
    master, slave = pty.openpty()
    stop = threading.Event()

    def pump() -> None:
        os.set_blocking(master, False)
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                line.write(os.read(master, 4096))
            if data := line.read():
                os.write(master, data)
            stop.wait(0.0005)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        stop.set()
        thread.join()
        os.close(master)
        os.close(slave)


def test_a_pty_carries_a_session_and_is_exclusive() -> None:
    with on_a_pty(FakeDevice()) as path, Device(path, timeout=0.5) as device:
        assert device.train(X, Y) == Device(FakeDevice()).train(X, Y)
        with pytest.raises(DeviceError, match="another program uses it"):
            SerialTransport(path)


class Listed:
    def __init__(self, device: str, description: str = "UART") -> None:
        self.device, self.description = device, description

    def __lt__(self, other: Listed) -> bool:
        return self.device < other.device


def test_a_device_is_found_by_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Listed] = []
    monkeypatch.setattr(ports.list_ports, "comports", lambda: listed)
    monkeypatch.setattr(ports, "_TIMEOUT", 0.05)
    with pytest.raises(DeviceError, match=r"no device answers on the serial ports \(there are none\)"):
        ports.find_one()
    master, silent = pty.openpty()
    with on_a_pty(FakeDevice()) as first, on_a_pty(FakeDevice(WIDE)) as second:
        listed += [Listed(os.ttyname(silent)), Listed("/dev/ttyNONE7")]
        with pytest.raises(DeviceError, match=r"no device answers on the serial ports \(/dev/"):
            ports.find_one()
        listed.append(Listed(first))
        assert ports.find_one() == first
        assert {port.url: port.device for port in ports.scan()} == {
            first: "fake", os.ttyname(silent): "", "/dev/ttyNONE7": ""
        }  # fmt: skip
        listed.append(Listed(second))
        with pytest.raises(DeviceError, match="2 devices answer"):
            ports.find_one()
    os.close(master)
    os.close(silent)


def test_the_store_policy_goes_over_the_line() -> None:
    line = FakeDevice(SMALL)
    device = Device(line)
    assert device.store_state() == StoreState(StorePolicy(), 0, 0, 0)
    device.configure_store(policy="ring", balance=True, hold_out=5)
    device.store(np.concatenate([X, X]), np.concatenate([Y, Y]))
    held = sum(i % 5 == 4 for i in range(60 - SMALL.capacity, 60))
    state = device.store_state()
    assert (state.policy, state.stored, state.seen) == (StorePolicy("ring", True, 5), SMALL.capacity, 60)
    assert abs(state.held_out - held) <= 8
    device.configure_store(policy="ring")
    assert device.store_state() == dataclasses.replace(state, policy=StorePolicy("ring"))


@pytest.mark.parametrize("payload", [(3, 0, 0), (0, 1, 0), (1, 2, 0)])
def test_a_policy_out_of_range_is_refused_and_changes_nothing(payload: tuple[int, int, int]) -> None:
    line = FakeDevice(SMALL)
    line.hello()
    line.run(Message.STORE_POLICY, struct.pack("<III", 2, 1, 7))
    before = line.state()
    assert line.run(Message.STORE_POLICY, struct.pack("<III", *payload)).payload == bytes([Status.BAD_ARGUMENT])
    assert line.run(Message.STORE_POLICY, bytes(11)).payload == bytes([Status.BAD_LENGTH])
    assert line.state() == before

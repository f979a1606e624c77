# SPDX-License-Identifier: Apache-2.0
"""Traces: what was recorded is what went over the line, replays on a device to the same answers, and reads in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from link.fake_device import SMALL, FakeDevice, Faults, FaultyLine, Model
from lora_mcu.errors import DataError, DeviceError
from lora_mcu.link.trace import read_trace, words
from lora_mcu.session.device import Device

X = np.random.default_rng(1).integers(-128, 128, (12, 4)).astype(np.int8)
Y = np.arange(12) % 3


def record(line: FakeDevice | FaultyLine, path: Path) -> None:
    with Device(line, timeout=0.01, retries=60, trace=path) as device:
        device.configure(lr=0.02, batch_size=4, seed=5)
        device.train(X, Y)
        device.store(X, Y)
        device.run_epochs(2)
        device.adapter()


@pytest.mark.parametrize("bad", [False, True], ids=["clean", "bad line"])
def test_a_trace_replays_to_the_same_answers_and_state(tmp_path: Path, bad: bool) -> None:
    """All that a host sent goes to a device that has just booted: what comes back is what the trace has."""
    model, path = Model(window=8), tmp_path / "trace.jsonl"
    recorded = FakeDevice(model)
    record(FaultyLine(recorded, 4, Faults(noise=0.0, stall=0.0)) if bad else recorded, path)
    pieces = list(read_trace(path))
    assert [p.t for p in pieces] == sorted(p.t for p in pieces)
    if bad:  # the device saw other bytes than the host sent
        assert any("no frames" in line or "NAK" in line for line in words(pieces))
        return
    fresh, answers = FakeDevice(model), b""
    for piece in pieces:
        if piece.to_device:
            fresh.write(piece.data)
        else:
            while len(answers) < len(piece.data):
                more = fresh.read()
                assert more, "the device has nothing to say where the trace has an answer"
                answers += more
            assert answers[: len(piece.data)] == piece.data
            answers = answers[len(piece.data) :]
    assert answers == b"" and fresh.state() == recorded.state()


def test_words_name_messages_statuses_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    record(FakeDevice(SMALL), path)
    lines = list(words(read_trace(path)))
    assert lines[0].split()[1:] == ["->", "#0", "HELLO,", "4", "bytes:", *lines[0].split()[-4:]]
    assert "<-  #0     HELLO OK, 105 bytes: " in lines[1]
    assert sum("-> " in line and " TRAIN, 8 bytes: " in line for line in lines) == 12
    assert sum("<- " in line and " TRAIN OK, 4 bytes: " in line for line in lines) == 12
    assert lines[-1].endswith("...") and "ADAPTER_READ OK, 28 bytes" in lines[-1]


def test_an_existing_file_is_kept_and_others_are_no_traces(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("mine")
    with pytest.raises(DeviceError, match="exists: choose another name for the trace"):
        Device(FakeDevice(), trace=path)
    assert path.read_text() == "mine"
    for content in ("mine", "[]", "{}", '{"lora_mcu_trace": 2}', '{"lora_mcu_trace": 1}\n{"t": 0, "to": "moon"}',
                    '{"lora_mcu_trace": 1}\n{"t": 0, "to": "host", "bytes": "zz"}', "[" * 100000):  # fmt: skip
        path.write_text(content)
        with pytest.raises(DataError, match=r"line [12]: not a trace that `--trace` wrote"):
            list(read_trace(path))

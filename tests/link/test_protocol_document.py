# SPDX-License-Identifier: Apache-2.0
"""docs/protocol.md against the header, the host's structs and the device's answers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from link.fake_device import SMALL, FakeDevice
from lora_mcu.link import client, commands
from lora_mcu.link.codes import MESSAGE_TEXT, PROTOCOL_VERSION, STATUS_TEXT, Message, ResetCause, Status

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
HEADER = (ROOT / "firmware" / "runtime" / "lmcu_codes.h").read_text()
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "f32": 4, "stats": 20, "3 x u8": 3, "16 bytes": 16, "32 bytes": 32}


def rows(title: str) -> list[list[str]]:
    """Cells of the first table after ``title``, its head left out."""
    lines = DOCUMENT[DOCUMENT.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_every_message_and_status_has_its_row() -> None:
    assert [(name, int(number)) for name, number, *_ in rows("## Messages")] == [(m.name, int(m)) for m in Message]
    assert [(n, int(k), text) for n, k, text in rows("## Statuses")] == [
        (s.name, int(s), STATUS_TEXT[s]) for s in Status
    ]  # fmt: skip


def test_the_host_reads_the_whole_header() -> None:
    """Every X(...) line of the header, counted without the parser that the host uses."""
    listed = re.findall(r"^    X\((\w+), (\d+),", HEADER, re.MULTILINE)
    assert sorted(listed) == sorted((c.name, str(int(c))) for c in [*Message, *Status, *ResetCause])
    assert len(set(map(int, Message))) == len(Message) == len(MESSAGE_TEXT) and max(Message) < 128
    assert len(set(map(int, Status))) == len(Status) == len(STATUS_TEXT)
    assert f"# The wire protocol, version {PROTOCOL_VERSION}" in DOCUMENT


def fields(title: str, width: int) -> int:
    """Check that offsets follow from sizes; return the whole size."""
    offset = 0
    for at, field, *_ in rows(title):
        assert int(at) == offset, field
        offset += SIZES[field.split(" ", 1)[1]]
    assert offset == width
    return offset


def test_offsets_are_those_of_host_and_device() -> None:
    assert fields("`settings`, 32 bytes", 32) == commands._SETTINGS.size
    assert fields("HELLO's response:", 122) == client._HELLO.size
    assert fields("STATISTICS' response:", 146) == commands._STATISTICS.size
    device = FakeDevice(SMALL)
    assert len(device.hello().payload) == 1 + 105
    assert len(device.run(Message.STATISTICS).payload) == 1 + 145
    assert len(FakeDevice(dataclasses.replace(SMALL, key=bytes(32))).hello().payload) == 1 + 122
    assert "105 bytes, 122 with a key, below" in DOCUMENT and "145 bytes (146 with weights in SRAM), below" in DOCUMENT


STREAM = (Message.STATE_RESET, Message.ADVANCE)  # of models with state, which this one is not


def test_what_the_document_says_of_weights_in_flash_and_of_runs_is_so() -> None:
    notes = {name: note.split("; ") for name, _, _, _, note in rows("## Messages")}
    device = FakeDevice(SMALL)
    device.hello()
    asked = [m for m in Message if m not in (Message.HELLO, Message.AUTH, Message.REBOOT, Message.TARGET_DATA, *STREAM)]
    assert "UNSUPPORTED without a key" in notes["AUTH"]
    assert device.run(Message.AUTH, bytes(8)).payload == bytes([Status.UNSUPPORTED])
    for message in asked:
        unsupported = device.run(message).payload[0] == Status.UNSUPPORTED
        assert unsupported == ("UNSUPPORTED with weights in flash" in notes[message.name]), message.name
    device.run(Message.STORE, b"\1\0\0\0" + bytes(4))
    assert device.run(Message.RUN_EPOCHS, b"\xff\xff\xff\x7f").payload == bytes([Status.OK])
    for message in asked:
        if "UNSUPPORTED with weights in flash" not in notes[message.name]:
            busy = device.run(message, bytes(9)).payload[0] == Status.BUSY
            assert busy == ("in a run" not in notes[message.name]), message.name

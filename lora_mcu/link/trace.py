# SPDX-License-Identifier: Apache-2.0
"""What goes over a line, written to a file while it happens, read back, and put into words.

A trace is JSON Lines: a head ``{"lora_mcu_trace": 1}``, then ``{"t": seconds, "to": "device" | "host", "bytes": hex}``
for every piece as it was written or as it arrived.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_mcu.errors import DataError, DeviceError
from lora_mcu.link.codes import RESPONSE, Message, Status
from lora_mcu.link.frames import Decoder, Frame
from lora_mcu.link.transport import Transport

_FORMAT = 1
_SHOWN = 16  # bytes of a payload


@dataclass(frozen=True)
class Piece:
    """Bytes at a time, seconds since the trace began; ``to_device`` or to the host."""

    t: float
    to_device: bool
    data: bytes


class Traced:
    """A Transport that writes down what goes through another one. Raises DeviceError where the file exists."""

    def __init__(self, inner: Transport, path: str | Path) -> None:
        self._inner = inner
        self.own_baud = inner.own_baud
        try:
            self._file = Path(path).open("x", encoding="ascii", buffering=1)  # noqa: SIM115 (closed with the line)
        except FileExistsError:
            raise DeviceError(f"{path} exists: choose another name for the trace") from None
        self._start = time.monotonic()
        self._put({"lora_mcu_trace": _FORMAT})

    def _put(self, record: dict[str, object]) -> None:
        self._file.write(json.dumps(record) + "\n")

    def note(self, to_device: bool, data: bytes) -> None:
        """Write a piece down."""
        seconds = round(time.monotonic() - self._start, 6)
        self._put({"t": seconds, "to": "device" if to_device else "host", "bytes": data.hex()})

    def write(self, data: bytes) -> None:
        self.note(True, data)
        self._inner.write(data)

    def read(self) -> bytes:
        data = self._inner.read()
        if data:
            self.note(False, data)
        return data

    def line_seconds(self, count: int) -> float:
        return self._inner.line_seconds(count)

    def set_baud(self, baud: int) -> None:
        self._inner.set_baud(baud)

    def close(self) -> None:
        self._inner.close()
        self._file.close()


def read_trace(path: str | Path) -> Iterator[Piece]:
    """Yield the pieces of a trace file. Raises DataError for anything else, with the line's number."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    if record.get("lora_mcu_trace") != _FORMAT:
                        raise ValueError
                    continue
                yield Piece(float(record["t"]), {"device": True, "host": False}[record["to"]],
                            bytes.fromhex(record["bytes"]))  # fmt: skip
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise DataError(f"{path}, line {number}: not a trace that `--trace` wrote") from None


class Words:
    """Puts the frames of both directions into lines."""

    def __init__(self) -> None:
        self._decoders = {True: Decoder(), False: Decoder()}

    def lines(self, piece: Piece) -> Iterator[str]:
        """Yield a line for every frame that the piece completes, and one for blocks that are none."""
        decoder = self._decoders[piece.to_device]
        bad = decoder.bad
        for frame in decoder.feed(piece.data):
            yield f"{piece.t:10.6f}  {'->' if piece.to_device else '<-'}  {describe_frame(frame)}"
        if decoder.bad > bad:
            yield f"{piece.t:10.6f}  {'->' if piece.to_device else '<-'}  {decoder.bad - bad} blocks that are no frames"


def words(pieces: Iterable[Piece]) -> Iterator[str]:
    """Yield a line for every frame of a trace."""
    writer = Words()
    for piece in pieces:
        yield from writer.lines(piece)


def describe_frame(frame: Frame) -> str:
    """Return a frame as ``#sequence MESSAGE status, length, first bytes``."""
    number, payload = frame.type & ~RESPONSE, frame.payload
    name = Message(number).name if number in list(Message) else f"message {number}"
    text = f"#{frame.sequence:<5} {name}"
    if frame.type & RESPONSE and payload:
        status, payload = payload[0], payload[1:]
        text += f" {Status(status).name if status in list(Status) else f'status {status}'}"
        if status == Status.NAK and len(payload) == 2:
            return f"{text}, expects #{int.from_bytes(payload, 'little')}"
        if status == Status.BUSY and len(payload) == 4:
            return f"{text}, at most {int.from_bytes(payload, 'little')} ms"
    if payload:
        more = "..." if len(payload) > _SHOWN else ""
        text += f", {len(payload)} bytes: {payload[:_SHOWN].hex(' ')}{more}"
    return text

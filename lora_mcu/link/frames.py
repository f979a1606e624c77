# SPDX-License-Identifier: Apache-2.0
"""Frames on the line: COBS(header | payload | crc32) 00 (docs/protocol.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cobs import cobs

HEADER = struct.Struct("<BBH")  # protocol version, type, sequence
CRC = struct.Struct("<I")
MAX_PAYLOAD = 65535  # more than any firmware sends; bounds what a noisy line can make us keep


@dataclass(frozen=True)
class Frame:
    """One frame; ``type`` has bit 7 set in a response."""

    version: int
    type: int
    sequence: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """Return the bytes for the line, the ending 00 included."""
    body = HEADER.pack(frame.version, frame.type, frame.sequence) + frame.payload
    return bytes(cobs.encode(body + CRC.pack(zlib.crc32(body)))) + b"\0"


def decode(block: bytes) -> Frame | None:
    """Return the frame between two 00, or None for anything that does not check out."""
    try:
        raw = bytes(cobs.decode(block))
    except cobs.DecodeError:
        return None
    body, crc = raw[: -CRC.size], raw[-CRC.size :]
    if len(body) < HEADER.size or CRC.pack(zlib.crc32(body)) != crc:
        return None
    version, kind, sequence = HEADER.unpack_from(body)
    return Frame(version, kind, sequence, body[HEADER.size :])


class Decoder:
    """Takes bytes as they come, yields the frames among them and resynchronizes at every 00."""

    def __init__(self) -> None:
        self._open = bytearray()
        self.bad = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield every complete frame; blocks that are none are counted in ``bad`` and dropped."""
        *blocks, rest = data.split(b"\0")
        for block in blocks:
            self._open += block
            whole = bytes(self._open)
            self._open.clear()
            if not whole:
                continue
            frame = decode(whole)
            if frame is None:
                self.bad += 1
            else:
                yield frame
        if len(self._open) + len(rest) <= 2 * MAX_PAYLOAD:
            self._open += rest
        else:
            self._open[:] = b"\1"  # never valid: what follows up to the next 00 is dropped

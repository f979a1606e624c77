# SPDX-License-Identifier: Apache-2.0
"""The host's side of a device with a key: key files, session key and tags (docs/protocol.md, docs/security.md)."""

from __future__ import annotations

import hmac
import struct
from pathlib import Path

from lora_mcu.errors import DataError
from lora_mcu.link.codes import RESPONSE, Message

KEY_BYTES = 32
TAG_BYTES = 8
CHALLENGE_BYTES = 16
HMAC = 1  # the one kind of authentication that HELLO can ask for; 0: none
_COUNTER = struct.Struct("<QB")


def read_key(path: str | Path) -> bytes:
    """Read a key file: 32 bytes, raw or as 64 hexadecimal digits. Raises DataError in one line."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(4096)
    except OSError as error:
        raise DataError(f"key file {path} cannot be read: {error.strerror}") from None
    if len(content) != KEY_BYTES:
        try:
            content = bytes.fromhex(content.decode("ascii").strip())
        except ValueError:
            content = b""
    if len(content) != KEY_BYTES:
        raise DataError(
            f"{path} holds no key: 32 bytes, raw or as 64 hexadecimal digits (`openssl rand -hex 32` makes them)"
        )
    if len(set(content)) == 1:
        raise DataError(f"{path} holds one byte 32 times, which is no key: `openssl rand -hex 32` makes one")
    return content


class Tags:
    """Tags of one session: HMAC-SHA-256(session key, counter u64 | type u8 | payload), its first 8 bytes.

    The session key is HMAC-SHA-256(key, "S" | challenge | nonce u32).
    """

    def __init__(self, key: bytes, challenge: bytes, nonce: int) -> None:
        self._key = hmac.digest(key, b"S" + challenge + struct.pack("<I", nonce), "sha256")

    def tag(self, counter: int, kind: int, payload: bytes = b"") -> bytes:
        """Return the tag of request number ``counter`` of the session."""
        return hmac.digest(self._key, _COUNTER.pack(counter, kind) + payload, "sha256")[:TAG_BYTES]

    @property
    def proof(self) -> bytes:
        """AUTH's payload."""
        return self.tag(0, Message.AUTH)

    def proves(self, answer: bytes) -> bool:
        """Whether AUTH's answer comes from a device that has the key."""
        return hmac.compare_digest(answer, self.tag(0, Message.AUTH | RESPONSE))

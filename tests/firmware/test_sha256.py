# SPDX-License-Identifier: Apache-2.0
"""sha256.c against the published vectors, on this computer and on an emulated Cortex-M4."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import subprocess
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from benchmarks.auth import RUNTIME, CortexM4

# FIPS 180-4's examples (SHA-2 examples of NIST's Cryptographic Standards and Guidelines).
SHA256 = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
    b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu": (
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
    ),
}
# RFC 4231, section 4: key, data, HMAC-SHA-256 (case 5 is cut to 128 bits there).
RFC4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be"
        b" hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


class Core(Protocol):
    def sha256(self, message: bytes) -> bytes: ...

    def hmac(self, key: bytes, message: bytes) -> bytes: ...


class Host:
    """The same file built for this computer."""

    def __init__(self, folder: Path) -> None:
        library = folder / "sha256.so"
        flags = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all")
        command = ["gcc", *flags, "-shared", "-fPIC", str(RUNTIME / "sha256.c"), str(RUNTIME / "mem.c")]
        subprocess.run([*command, "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._state, self._digest = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)

    def sha256(self, message: bytes) -> bytes:
        self._library.lmcu_sha256_begin(self._state)
        for piece in (message[:1], message[1:70], message[70:]):
            self._library.lmcu_sha256_add(self._state, piece, len(piece))
        self._library.lmcu_sha256_end(self._state, self._digest)
        return self._digest.raw

    def hmac(self, key: bytes, message: bytes) -> bytes:
        self._library.lmcu_hmac_begin(self._state, key, len(key))
        self._library.lmcu_hmac_add(self._state, message, len(message))
        self._library.lmcu_hmac_end(self._state, self._digest)
        return self._digest.raw


@pytest.fixture(scope="module", params=["host", "cortex-m4"])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Core:
    return CortexM4() if request.param == "cortex-m4" else Host(tmp_path_factory.mktemp("sha256"))


def test_fips_180_4(core: Core) -> None:
    for message, digest in SHA256.items():
        assert core.sha256(message).hex() == digest


def test_rfc_4231(core: Core) -> None:
    for key, data, digest in RFC4231:
        assert core.hmac(key, data).hex()[: len(digest)] == digest


def test_every_length_around_a_block(core: Core) -> None:
    rng = np.random.default_rng(1)
    for length in (*range(52, 68), *range(116, 132), 1023, 1024, 1025):
        message, key = rng.bytes(length), rng.bytes(32)
        assert core.sha256(message) == hashlib.sha256(message).digest()
        assert core.hmac(key, message) == hmac.digest(key, message, "sha256")

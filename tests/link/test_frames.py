# SPDX-License-Identifier: Apache-2.0
"""Frames: round trips, damage, and that the decoders of firmware and host agree on any bytes."""

from __future__ import annotations

import ctypes
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from link.fake_device import FLAGS, RUNTIME
from lora_mcu.link.frames import MAX_PAYLOAD, Decoder, Frame, decode, encode

MAX_C_PAYLOAD = 1024
PORT = """
#include "lmcu_port.h"
#include "frame.h"
static unsigned char sent[4096];
static unsigned count;
void lmcu_port_write(const uint8_t *bytes, uint32_t n) { while (n-- > 0) sent[count++] = *bytes++; }
unsigned send_frame(const uint8_t *frame, unsigned n, uint8_t *line)
{
    uint8_t sealed[LMCU_FRAME_BYTES];
    for (unsigned i = 0; i < n; i++) sealed[i] = frame[i];
    count = 0;
    lmcu_frame_send(sealed, lmcu_frame_seal(sealed, n));
    for (unsigned i = 0; i < count; i++) line[i] = sent[i];
    return count;
}
unsigned decoder_bytes(void) { return sizeof(lmcu_decoder_t); }
"""

payloads = st.one_of(
    st.binary(max_size=MAX_C_PAYLOAD),
    st.integers(0, MAX_C_PAYLOAD).map(bytes),
    st.integers(240, 270).map(lambda n: b"\x01" * n),
    st.integers(500, 530).map(lambda n: b"\x02" * n + b"\0"),
)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), payloads)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("frame")
    (folder / "port.c").write_text(PORT)
    sources = [str(RUNTIME / "frame.c"), str(RUNTIME / "crc32.c"), str(folder / "port.c")]
    target = folder / "frame.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", *FLAGS, f"-I{RUNTIME}", *sources, "-o", str(target)], check=True
    )  # fmt: skip
    return ctypes.CDLL(str(target))


def c_encode(library: ctypes.CDLL, frame: Frame) -> bytes:
    body = bytes([frame.version, frame.type]) + frame.sequence.to_bytes(2, "little") + frame.payload
    line = ctypes.create_string_buffer(4096)
    count = library.send_frame(body, len(body), line)
    return line.raw[:count]


class CDecoder:
    """lmcu_decoder_t between two guard areas that must stay as they are."""

    GUARD = 64

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._size = library.decoder_bytes()
        self._memory = (ctypes.c_uint8 * (self._size + 2 * self.GUARD))()
        ctypes.memset(self._memory, 0xA5, len(self._memory))
        ctypes.memset(ctypes.addressof(self._memory) + self.GUARD, 0, self._size)

    def feed(self, data: bytes) -> list[Frame]:
        found = []
        at = ctypes.addressof(self._memory) + self.GUARD
        for byte in data:
            if self._library.lmcu_decoder_push(ctypes.c_void_p(at), ctypes.c_uint8(byte)) == 1:
                raw = bytes(self._memory[self.GUARD : self.GUARD + self._size])
                count = int.from_bytes(raw[:2], "little")
                body = raw[8 : 8 + count - 4]
                found.append(Frame(body[0], body[1], int.from_bytes(body[2:4], "little"), body[4:]))
        guards = bytes(self._memory[: self.GUARD]) + bytes(self._memory[-self.GUARD :])
        assert guards == b"\xa5" * (2 * self.GUARD)
        return found


@given(frames)
def test_round_trip(frame: Frame) -> None:
    line = encode(frame)
    assert line.count(0) == 1 and line[-1] == 0
    assert decode(line[:-1]) == frame


def test_a_known_frame() -> None:
    """The example of docs/protocol.md, by hand: the CRC-32 of 01 01 00 00 33 22 00 11 is 0xBC183170."""
    line = encode(Frame(1, 1, 0, bytes.fromhex("33220011")))
    assert line.hex(" ") == "03 01 01 01 03 33 22 06 11 70 31 18 bc 00"


@given(frames)
def test_both_encoders_send_the_same_bytes(library: ctypes.CDLL, frame: Frame) -> None:
    assert c_encode(library, frame) == encode(frame)


@settings(max_examples=300)
@given(frames, st.data())
def test_damage_is_noticed(frame: Frame, data: st.DataObject) -> None:
    """A damaged frame yields nothing, or the frame itself where the damage left it whole: never another one."""
    line = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(line) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "set"]))
        if kind == "flip":
            line[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut" and len(line) > 1:
            del line[at]
        elif kind == "insert":
            line.insert(at, data.draw(st.integers(0, 255)))
        else:
            line[at] = data.draw(st.integers(0, 255))
    assert all(found == frame for found in Decoder().feed(bytes(line) + b"\0"))


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=60), frames.map(encode)), max_size=8))
def test_decoders_agree(library: ctypes.CDLL, parts: list[bytes]) -> None:
    stream = b"".join(parts)
    assert CDecoder(library).feed(stream) == list(Decoder().feed(stream))


@given(st.binary(max_size=300), frames)
def test_resynchronizes_after_the_next_00(library: ctypes.CDLL, noise: bytes, frame: Frame) -> None:
    for found in (
        CDecoder(library).feed(noise + b"\0" + encode(frame)),
        list(Decoder().feed(noise + b"\0" + encode(frame))),
    ):
        assert found[-1] == frame


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_pieces_do_not_matter(sent: list[Frame], sizes: list[int]) -> None:
    stream = b"".join(map(encode, sent))
    decoder, found, at, i = Decoder(), [], 0, 0
    while at < len(stream):
        size = sizes[i % len(sizes)]
        found += decoder.feed(stream[at : at + size])
        at, i = at + size, i + 1
    assert found == sent
    assert decoder.bad == 0


def test_too_long_for_the_device_is_dropped_whole(library: ctypes.CDLL) -> None:
    after = Frame(1, 2, 3, b"x")
    for size in (MAX_C_PAYLOAD + 1, 5000):
        stream = encode(Frame(1, 1, 1, b"\x07" * size)) + encode(after)
        assert CDecoder(library).feed(stream) == [after]
    assert CDecoder(library).feed(encode(Frame(1, 1, 1, b"\x07" * MAX_C_PAYLOAD))) != []


def test_the_host_keeps_no_endless_line() -> None:
    decoder = Decoder()
    for _ in range(40):
        assert list(decoder.feed(b"\x01" * 10000)) == []
        assert len(decoder._open) <= 2 * MAX_PAYLOAD
    frame = Frame(1, 2, 3)
    assert list(decoder.feed(b"\0" + encode(frame))) == [frame]

# SPDX-License-Identifier: Apache-2.0
"""One session with a device: HELLO, the sequence rule, go-back-N for any window, retries."""

from __future__ import annotations

import secrets
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lora_mcu.errors import DeviceError
from lora_mcu.link.auth import CHALLENGE_BYTES, HMAC, TAG_BYTES, Tags
from lora_mcu.link.codes import (
    CONFIG,
    PROTOCOL_VERSION,
    RESET_TEXT,
    RESPONSE,
    Message,
    ResetCause,
    Status,
    describe,
)
from lora_mcu.link.frames import Decoder, Frame, encode
from lora_mcu.link.transport import Transport

Request = tuple[Message, bytes]

TIMEOUT = 1.0  # seconds until the first retry
RETRIES = 6
_MAX_BACKOFF = 8  # times the timeout
BAUD_WAIT_SECONDS = CONFIG["BAUD_WAIT_MS"] / 1000
_GREET_SECONDS = 1.0  # at a new speed, before it is given up
_HELLO = struct.Struct(f"<IIBBBBBBH32s32sIIIIIBIB{CHALLENGE_BYTES}s")
_RESET_CAUSE = 144  # offset in STATISTICS' answer
_FIRST_HELLO = 101  # bytes that every firmware of this protocol version sends


class StatusError(DeviceError):
    """The device answered a request with a status other than OK."""

    def __init__(self, message: Message, status: int) -> None:
        super().__init__(f"the device refused {message.name}: {describe(status)}")
        self.status = status


class AuthError(DeviceError):
    """The device asks for a key that was not given, or has none or another one than that which was."""


class NoAnswerError(DeviceError):
    """The device did not answer in time, all retries included."""


class DeviceResetError(DeviceError):
    """The device was reset during the session. A new session is open; ``lost_steps`` training steps are gone.

    ``cause`` says why in a few words, "" where the device does not tell; ``adapter_crc32`` is that of the adapter now.
    """

    def __init__(self, name: str, lost_steps: int, cause: str, adapter_crc32: int) -> None:
        why = f" ({cause})" if cause else ""
        super().__init__(
            f"the device at {name} was reset{why}: {lost_steps} training steps and the stored samples are lost, its"
            f" adapter is the one that it starts with (CRC-32 {adapter_crc32:08x}): load an adapter or train again"
        )
        self.lost_steps, self.cause, self.adapter_crc32 = lost_steps, cause, adapter_crc32


def unpack_grown(layout: struct.Struct, message: Message, fields: bytes, first: int) -> tuple[Any, ...]:
    """Unpack an answer that has grown at its end since its first ``first`` bytes: what is missing is 0, what is
    unknown is ignored. Raises DeviceError when it is shorter than it ever was."""
    if len(fields) < first:
        raise DeviceError(f"{message.name}'s answer has {len(fields)} bytes instead of {first}: rebuild the firmware")
    return layout.unpack(fields[: layout.size].ljust(layout.size, b"\0"))


@dataclass(frozen=True)
class Hello:
    """HELLO's answer (docs/protocol.md)."""

    nonce: int
    boot_id: int
    protocol: int
    firmware: tuple[int, int, int]
    float_ok: bool  # False: the float environment is wrong, the device does not train
    window: int
    max_payload: int
    model_sha256: str
    layout_sha256: str
    adapter_crc32: int
    total_steps: int  # training steps executed since boot
    store_capacity: int
    info_bytes: int
    clock_hz: int
    clock_source: int  # 0 internal, 1 external crystal
    rx_bytes: int  # that the device takes while it computes
    auth: int  # 0 none, 1 HMAC-SHA-256 with the challenge
    challenge: bytes

    @classmethod
    def unpack(cls, fields: bytes) -> Hello:
        nonce, boot, protocol, major, minor, patch, float_ok, window, payload, model, layout, *rest = unpack_grown(
            _HELLO, Message.HELLO, fields, _FIRST_HELLO
        )
        hello = cls(
            nonce,
            boot,
            protocol,
            (major, minor, patch),
            bool(float_ok),
            window,
            payload,
            model.hex(),
            layout.hex(),
            *rest,
        )
        if not 1 <= window <= 16 or payload < 64:
            raise DeviceError(
                f"the device offers a window of {window} and payloads of {payload} bytes: broken firmware"
            )
        return hello


@dataclass
class _Pending:
    sequence: int
    message: Message
    line: bytes
    answer: bytes | None = None
    asked_again: bool = False  # after a later answer arrived without this one


class Client:
    """Requests over a transport. Not thread-safe. Every method raises DeviceError in one line."""

    def __init__(
        self, transport: Transport, name: str, *, timeout: float = TIMEOUT, retries: int = RETRIES,
        key: bytes | None = None,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._key = key
        self._tags: Tags | None = None  # of the session, with a device that asks for a key
        self._name = name
        self._timeout = timeout
        self._retries = retries
        self._decoder = Decoder()
        self._next = 1  # number of the next request in the session; its low 16 bits are the sequence
        self._refused: set[int] = set()  # sequences whose NAK is due from a gap that was repaired already
        self._busy_until = 0.0  # the device announced that it stands still
        self._other_baud = False
        self._settled = False  # False: requests may be under way whose fate is unknown; a new session sorts it out
        self._hello: Hello | None = None
        self.total_steps = 0  # executed since the device's boot, as far as its answers told
        self.resent = 0  # frames sent again

    @property
    def hello(self) -> Hello:
        """The answer that opened the session."""
        assert self._hello is not None, "open() first"
        return self._hello

    @property
    def max_payload(self) -> int:
        """Bytes of a request's payload at most; a tag needs some of the device's own limit."""
        return self.hello.max_payload - (TAG_BYTES if self._tags else 0)

    # ---- session ----

    def open(self) -> Hello:
        """Open a new session: the sequence starts anew, nothing else changes on the device.

        Raises AuthError where the device and this client do not have the same key.
        """
        self._settled = False
        hello = self._say_hello()
        if not self._is_proven(hello) and not self._is_proven(hello := self._say_hello()):  # another host came between
            raise AuthError(f"the device at {self._name} has another key: name the one that it was compiled with")
        self._hello = hello
        self._next = 1
        self._refused.clear()
        self._settled = True
        return hello

    def _say_hello(self) -> Hello:
        nonce = secrets.randbits(32)
        start = struct.pack("<I", nonce)
        return Hello.unpack(self._ask(Message.HELLO, start, lambda fields: fields[:4] == start))

    def _is_proven(self, hello: Hello) -> bool:
        """Whether device and host have the same key, if the device has one."""
        self._tags = None
        if hello.auth == 0 and self._key is not None:
            raise AuthError(
                f"the device at {self._name} asks for no key: leave --key out, or compile its firmware with --key"
            )
        if hello.auth == 0:
            return True
        if hello.auth != HMAC:
            raise AuthError(f"the device at {self._name} asks for a proof of kind {hello.auth}: update lora_mcu")
        if self._key is None:
            raise AuthError(f"the device at {self._name} asks for its key: give the file with --key")
        tags = Tags(self._key, hello.challenge, hello.nonce)
        seen: list[bytes] = []  # a late answer to an earlier AUTH may be among them

        def fits(fields: bytes) -> bool:
            seen.append(fields)
            return tags.proves(fields)

        try:
            self._ask(Message.AUTH, tags.proof, fits)
        except StatusError as error:
            if error.status != Status.AUTH:
                raise
            return False
        except NoAnswerError:
            if not seen:
                raise
            raise AuthError(f"what answers at {self._name} does not have the key: it is not the device") from None
        self._tags = tags
        return True

    def _ask(self, message: Message, payload: bytes, fits: Callable[[bytes], bool]) -> bytes:
        """Send a request outside the sequence until it is answered; returns the fields of the answer that fits."""
        line = b"\0" + encode(Frame(PROTOCOL_VERSION, message, 0, payload))
        for attempt in range(self._retries + 1):
            self.resent += attempt > 0
            self._transport.write(line)
            deadline = time.monotonic() + self._timeout + self._transport.line_seconds(256)
            fields = self._await_outside(message, fits, deadline)
            if fields is not None:
                return fields
        raise NoAnswerError(
            f"no answer from {self._name} to {self._retries + 1} {message.name}s: is a lora_mcu device running there?"
            " reset it, check port and cable"
        )

    def _await_outside(self, message: Message, fits: Callable[[bytes], bool], deadline: float) -> bytes | None:
        while time.monotonic() < deadline:
            for frame in self._frames():
                if frame.type != message | RESPONSE:
                    continue
                if frame.payload[:1] != bytes([Status.OK]):
                    raise StatusError(message, frame.payload[0] if frame.payload else -1)
                if fits(frame.payload[1:]):
                    return frame.payload[1:]
        return None

    def _reopen(self) -> None:
        """A new session after a broken one; says what a reset in between has lost."""
        known, boot = self.total_steps, self.hello.boot_id
        hello = self.open()
        self.total_steps = hello.total_steps
        if hello.total_steps < known or hello.boot_id != boot:
            raise self._lost(known)

    def expect_reset(self) -> None:
        """Forget the device's steps and boot: a reset that the host asked for loses nothing unexpectedly."""
        self.total_steps = 0
        self.total_steps = self.open().total_steps

    # ---- requests ----

    def request(self, message: Message, payload: bytes = b"") -> bytes:
        """Run one request with nothing else in flight; returns the fields of its answer."""
        return self.pipeline([(message, payload)])[0]

    def pipeline(self, requests: Iterable[Request], on_answer: Callable[[bytes], None] | None = None) -> list[bytes]:
        """Run requests in order, up to the device's window in flight; returns the fields of every answer.

        All but a lone request must have answers of at most 32 bytes. After the first refusal nothing more is sent,
        what is in flight is awaited, and StatusError says which it was.
        """
        if not self._settled:
            self._reopen()
        self._settled = False
        answers: list[bytes] = []
        failure: StatusError | None = None
        flight: deque[_Pending] = deque()
        source = iter(requests)
        held: _Pending | None = None  # the next one, for which there is no room yet
        while True:
            while failure is None and len(flight) < self.hello.window:
                if held is None:
                    request = next(source, None)
                    held = None if request is None else self._prepare(*request)
                if held is None or not self._has_room(flight, held):
                    break
                self._next += 1
                self._transport.write(held.line)
                flight.append(held)
                held = None
            if not flight:
                break
            self._await(flight)
            pending = flight.popleft()
            assert pending.answer is not None
            status, fields = pending.answer[0], pending.answer[1:]
            if status != Status.OK:
                failure = failure or StatusError(pending.message, status)
            elif on_answer is not None:
                on_answer(fields)
            answers.append(fields)
        self._settled = True
        if failure is not None:
            raise failure
        return answers

    def _prepare(self, message: Message, payload: bytes) -> _Pending:
        if len(payload) > self.max_payload:
            raise DeviceError(f"{message.name} has {len(payload)} bytes; the device takes {self.max_payload}")
        tag = self._tags.tag(self._next, message, payload) if self._tags else b""
        sequence = self._next & 0xFFFF
        return _Pending(sequence, message, encode(Frame(PROTOCOL_VERSION, message, sequence, payload + tag)))

    def _has_room(self, flight: deque[_Pending], more: _Pending) -> bool:
        """Whether the device can take the frame while it runs the oldest request, whose bytes it has taken already."""
        behind = sum(len(p.line) for p in flight) - (len(flight[0].line) if flight else 0)
        return not flight or behind + len(more.line) <= self.hello.rx_bytes

    def _await(self, flight: deque[_Pending]) -> None:
        """Return when the oldest request is answered; sends again what is not, as often as it takes."""
        for attempt in range(self._retries + 1):
            if attempt:
                if attempt > 1:
                    self._own_baud()
                self._send_again(flight)
            wait = self._timeout * min(2**attempt, _MAX_BACKOFF)
            wait += self._transport.line_seconds(sum(len(p.line) for p in flight) + self.hello.max_payload)
            if self._collect(flight, time.monotonic() + wait):
                return
        oldest = flight[0]
        raise NoAnswerError(
            f"no answer from {self._name} to {oldest.message.name}, sent {self._retries + 1} times: was it unplugged or"
            " stopped? reset the device, or give slow steps a longer timeout (--timeout)"
        )

    def _send_again(self, some: Iterable[_Pending]) -> None:
        self._refused.clear()
        self._transport.write(b"\0")  # ends whatever arrived in part
        for pending in some:
            if pending.answer is None:
                self.resent += 1
                self._transport.write(pending.line)

    def _collect(self, flight: deque[_Pending], deadline: float) -> bool:
        """Take answers until the oldest request has one (True) or the deadline passes (False)."""
        while flight[0].answer is None:
            if time.monotonic() >= max(deadline, self._busy_until):
                return False
            for frame in self._frames():
                self._take(frame, flight)
        return True

    def _take(self, frame: Frame, flight: deque[_Pending]) -> None:
        """Give an answer to the request that awaits it; repair the gap that a NAK or an early answer tells of."""
        for place, pending in enumerate(flight):
            if (frame.sequence, frame.type) != (pending.sequence, pending.message | RESPONSE) or not frame.payload:
                continue
            status = frame.payload[0]
            if status == Status.NO_SESSION:
                self._reopen_after_reset()
            elif status == Status.NAK and len(frame.payload) == 3:
                self._go_back(flight, place, int.from_bytes(frame.payload[1:], "little"))
            elif status == Status.BUSY and len(frame.payload) == 5:
                self._busy_until = time.monotonic() + int.from_bytes(frame.payload[1:], "little") / 1000 + self._timeout
            else:
                pending.answer = frame.payload
                self._ask_again(list(flight)[:place])
            return

    def _ask_again(self, overtaken: list[_Pending]) -> None:
        """Answers come in order, so those to older requests are lost; the device keeps them."""
        lost = [p for p in overtaken if p.answer is None and not p.asked_again]
        if lost:
            for pending in lost:
                pending.asked_again = True
            self._send_again(lost)

    def _go_back(self, flight: deque[_Pending], place: int, expected: int) -> None:
        """Send again from ``expected`` on, once a gap: what was in flight behind the refused one is refused too."""
        refused = flight[place].sequence
        ahead = (expected - flight[0].sequence + 0x8000 & 0xFFFF) - 0x8000
        if refused in self._refused or -self.hello.window <= ahead < 0:
            self._refused.discard(refused)  # of a gap that is repaired
            return
        if not 0 <= ahead < len(flight):
            raise DeviceError(
                f"the device at {self._name} expects request {expected}, this host is at {flight[0].sequence}: another"
                " program opened a session with it; close that first"
            )
        self._send_again(flight)
        self._refused = {p.sequence for p in list(flight)[place + 1 :]}

    # ---- the line's speed ----

    def change_baud(self, baud: int) -> bool:
        """Ask for another speed of the line; False: both sides are back at the device's own, the session goes on.

        Raises StatusError where the device cannot have that speed.
        """
        self.request(Message.BAUD, struct.pack("<I", baud))
        changed = time.monotonic()
        self._transport.set_baud(baud)
        self._other_baud = True
        if self._greet(changed + _GREET_SECONDS):
            return True
        self._own_baud()
        time.sleep(max(0.0, changed + BAUD_WAIT_SECONDS + _GREET_SECONDS / 2 - time.monotonic()))
        if not self._greet(time.monotonic() + self._timeout * (self._retries + 1)):
            raise NoAnswerError(f"no answer from {self._name} since it was asked for {baud} baud: reset the device")
        return False

    def leave_baud(self) -> None:
        """Go back to the device's own speed, so that the next program finds it there."""
        if self._other_baud and self._settled:
            self.request(Message.BAUD, struct.pack("<I", self._transport.own_baud))
            self._own_baud()

    def _own_baud(self) -> None:
        if self._other_baud:
            self._transport.set_baud(self._transport.own_baud)
            self._other_baud = False

    def _greet(self, deadline: float) -> bool:
        """Say the session's HELLO again, which changes nothing, until it is answered."""
        nonce = struct.pack("<I", self.hello.nonce)
        line = b"\0" + encode(Frame(PROTOCOL_VERSION, Message.HELLO, 0, nonce))
        while time.monotonic() < deadline:
            self._transport.write(line)
            until = min(deadline, time.monotonic() + _GREET_SECONDS / 4)
            fields = self._await_outside(Message.HELLO, lambda fields: fields[:4] == nonce, until)
            if fields is not None:
                if Hello.unpack(fields).boot_id != self.hello.boot_id:
                    self._reopen_after_reset()
                return True
        return False

    def _reopen_after_reset(self) -> None:
        known = self.total_steps
        self.total_steps = self.open().total_steps
        raise self._lost(known)

    def _lost(self, known_steps: int) -> DeviceResetError:
        """What a reset has taken, in the session that was opened after it."""
        statistics = self.request(Message.STATISTICS)
        cause = statistics[_RESET_CAUSE] if len(statistics) > _RESET_CAUSE else ResetCause.UNKNOWN
        words = "" if cause == ResetCause.UNKNOWN else RESET_TEXT.get(cause, f"cause {cause}")
        lost = max(known_steps - self.total_steps, 0)
        return DeviceResetError(self._name, lost, words, self.hello.adapter_crc32)

    def _frames(self) -> Iterator[Frame]:
        """Answers that have arrived. Another protocol version is refused by name."""
        for frame in self._decoder.feed(self._transport.read()):
            if not frame.type & RESPONSE:
                continue
            if frame.version != PROTOCOL_VERSION or frame.payload[:1] == bytes([Status.VERSION]):
                raise DeviceError(
                    f"the device at {self._name} speaks protocol version {frame.version}, this lora_mcu"
                    f" version {PROTOCOL_VERSION}: rebuild its firmware with `lora-mcu compile` and `lora-mcu build`,"
                    " then flash it"
                )
            yield frame

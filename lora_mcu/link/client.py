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
from lora_mcu.link.codes import PROTOCOL_VERSION, RESPONSE, Message, Status, describe
from lora_mcu.link.frames import Decoder, Frame, encode
from lora_mcu.link.transport import Transport

Request = tuple[Message, bytes]

TIMEOUT = 1.0  # seconds until the first retry
RETRIES = 6
_MAX_BACKOFF = 8  # times the timeout
_HELLO = struct.Struct("<IIBBBBBBH32s32sIIIIIB")
_FIRST_HELLO = 101  # bytes that every firmware of this protocol version sends


class StatusError(DeviceError):
    """The device answered a request with a status other than OK."""

    def __init__(self, message: Message, status: int) -> None:
        super().__init__(f"the device refused {message.name}: {describe(status)}")
        self.status = status


class NoAnswerError(DeviceError):
    """The device did not answer in time, all retries included."""


class DeviceResetError(DeviceError):
    """The device was reset during the session. A new session is open; ``lost_steps`` training steps are gone."""

    def __init__(self, name: str, lost_steps: int) -> None:
        super().__init__(
            f"the device at {name} was reset: {lost_steps} training steps and the stored samples are lost, its adapter"
            " is the initial one: load an adapter or train again"
        )
        self.lost_steps = lost_steps


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


class Client:
    """Requests over a transport. Not thread-safe. Every method raises DeviceError in one line."""

    def __init__(self, transport: Transport, name: str, *, timeout: float = TIMEOUT, retries: int = RETRIES) -> None:
        self._transport = transport
        self._name = name
        self._timeout = timeout
        self._retries = retries
        self._decoder = Decoder()
        self._next = 1
        self._settled = False  # False: requests may be under way whose fate is unknown; a new session sorts it out
        self._hello: Hello | None = None
        self.total_steps = 0  # executed since the device's boot, as far as its answers told
        self.resent = 0  # frames sent again

    @property
    def hello(self) -> Hello:
        """The answer that opened the session."""
        assert self._hello is not None, "open() first"
        return self._hello

    # ---- session ----

    def open(self) -> Hello:
        """Open a new session: the sequence starts anew, nothing else changes on the device."""
        self._settled = False
        nonce = secrets.randbits(32)
        line = b"\0" + encode(Frame(PROTOCOL_VERSION, Message.HELLO, 0, struct.pack("<I", nonce)))
        for attempt in range(self._retries + 1):
            self.resent += attempt > 0
            self._transport.write(line)
            fields = self._await_hello(nonce, time.monotonic() + self._timeout + self._transport.line_seconds(256))
            if fields is not None:
                self._hello = Hello.unpack(fields)
                self._next = 1
                self._settled = True
                return self._hello
        raise NoAnswerError(
            f"no answer from {self._name} to {self._retries + 1} HELLOs: is a lora_mcu device running there? reset it,"
            " check port and cable"
        )

    def _await_hello(self, nonce: int, deadline: float) -> bytes | None:
        while time.monotonic() < deadline:
            for frame in self._frames():
                if frame.type != Message.HELLO | RESPONSE:
                    continue
                if frame.payload[:1] != bytes([Status.OK]):
                    raise StatusError(Message.HELLO, frame.payload[0] if frame.payload else -1)
                if frame.payload[1:5] == struct.pack("<I", nonce):
                    return frame.payload[1:]
        return None

    def _reopen(self) -> None:
        """A new session after a broken one; says what a reset in between has lost."""
        known, boot = self.total_steps, self.hello.boot_id
        hello = self.open()
        self.total_steps = hello.total_steps
        if hello.total_steps < known or hello.boot_id != boot:
            raise DeviceResetError(self._name, max(known - hello.total_steps, 0))

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
        while True:
            while failure is None and len(flight) < self.hello.window and (request := next(source, None)) is not None:
                flight.append(self._send(*request))
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

    def _send(self, message: Message, payload: bytes) -> _Pending:
        if len(payload) > self.hello.max_payload:
            raise DeviceError(f"{message.name} has {len(payload)} bytes; the device takes {self.hello.max_payload}")
        pending = _Pending(self._next, message, encode(Frame(PROTOCOL_VERSION, message, self._next, payload)))
        self._next = (self._next + 1) & 0xFFFF
        self._transport.write(pending.line)
        return pending

    def _await(self, flight: deque[_Pending]) -> None:
        """Return when the oldest request is answered; sends again what is not, as often as it takes."""
        for attempt in range(self._retries + 1):
            if attempt:
                self._send_again(flight)
            wait = self._timeout * min(2**attempt, _MAX_BACKOFF)
            wait += self._transport.line_seconds(sum(len(p.line) for p in flight) + self.hello.max_payload)
            if self._collect(flight, time.monotonic() + wait):
                return
        oldest = flight[0]
        raise NoAnswerError(
            f"no answer from {self._name} to {oldest.message.name}, sent {self._retries + 1} times: was it unplugged or"
            " stopped? reset the device, or give slow steps a longer timeout"
        )

    def _send_again(self, flight: Iterable[_Pending]) -> None:
        self._transport.write(b"\0")  # ends whatever arrived in part
        for pending in flight:
            if pending.answer is None:
                self.resent += 1
                self._transport.write(pending.line)

    def _collect(self, flight: deque[_Pending], deadline: float) -> bool:
        """Take answers until the oldest request has one (True) or the deadline passes (False)."""
        went_back = False
        while flight[0].answer is None:
            if time.monotonic() >= deadline:
                return False
            for frame in self._frames():
                expected = self._take(frame, flight)
                if expected is not None and not went_back:
                    went_back = True  # once: the other requests in flight are refused for the same gap
                    self._go_back(flight, expected)
        return True

    def _take(self, frame: Frame, flight: Iterable[_Pending]) -> int | None:
        """Give an answer to the request that awaits it; of a NAK return the sequence that the device expects."""
        for pending in flight:
            if (frame.sequence, frame.type) != (pending.sequence, pending.message | RESPONSE) or not frame.payload:
                continue
            if frame.payload[0] == Status.NO_SESSION:
                self._reopen_after_reset()
            if frame.payload[0] == Status.NAK and len(frame.payload) == 3:
                return int.from_bytes(frame.payload[1:], "little")
            pending.answer = frame.payload
        return None

    def _go_back(self, flight: deque[_Pending], expected: int) -> None:
        if all(pending.sequence != expected for pending in flight):
            raise DeviceError(
                f"the device at {self._name} expects request {expected}, this host is at {flight[0].sequence}: another"
                " program opened a session with it; close that first"
            )
        self._send_again(flight)

    def _reopen_after_reset(self) -> None:
        known = self.total_steps
        self.total_steps = self.open().total_steps
        raise DeviceResetError(self._name, max(known - self.total_steps, 0))

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

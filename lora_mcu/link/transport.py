# SPDX-License-Identifier: Apache-2.0
"""Bytes to and from a device: a serial port, a pseudo-terminal's path, or a URL that pyserial knows."""

from __future__ import annotations

import errno
from typing import Any, Protocol

import serial

from lora_mcu.errors import DeviceError

BAUD = 115200
_POLL_SECONDS = 0.02  # how long one read may wait; a deadline is the caller's
_WRITE_SECONDS = 30.0


class Transport(Protocol):
    """What the client needs of a line; tests put faulty ones here."""

    def write(self, data: bytes) -> None:
        """Send all bytes. Raises DeviceError when the line is gone."""

    def read(self) -> bytes:
        """Return bytes that have arrived, waiting a little for the first; b"" if there are none."""

    def line_seconds(self, count: int) -> float:
        """Return how long ``count`` bytes take on the line."""

    own_baud: int  # the speed at which it was opened, the device's own

    def set_baud(self, baud: int) -> None:
        """Change the speed, once everything is out; a line that has none ignores it."""

    def close(self) -> None: ...


class SerialTransport:
    """A pyserial port: ``/dev/ttyACM0``, ``COM3``, the path of a pty, ``socket://host:port``, ``rfc2217://…``."""

    def __init__(self, url: str, baud: int = BAUD) -> None:
        self._url = url
        self.own_baud = self._baud = baud
        self._paced = "://" not in url
        try:
            self._port: Any = serial.serial_for_url(
                url, baudrate=baud, timeout=_POLL_SECONDS, write_timeout=_WRITE_SECONDS, exclusive=self._exclusive()
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise DeviceError(f"port {url} cannot be opened: {_reason(error)}") from None

    def _exclusive(self) -> bool | None:
        return True if self._paced else None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as error:
            raise self._gone(error) from None

    def read(self) -> bytes:
        try:
            data = bytes(self._port.read(1))
            while data and (waiting := self._port.in_waiting):
                data += self._port.read(waiting)
        except (OSError, TypeError) as error:  # pyserial raises TypeError when another thread closed the port
            raise self._gone(error) from None
        return data

    def line_seconds(self, count: int) -> float:
        return count * 10 / self._baud if self._paced else 0.0

    def set_baud(self, baud: int) -> None:
        try:
            if self._paced:
                self._port.flush()
                self._port.baudrate = baud
        except (OSError, ValueError) as error:
            raise self._gone(error) from None
        self._baud = baud

    def close(self) -> None:
        self._port.close()

    def _gone(self, error: Exception) -> DeviceError:
        return DeviceError(f"port {self._url} is gone ({_reason(error)}): is the device still connected and powered?")


def _reason(error: Exception) -> str:
    """One line for a user; pyserial wraps the system's error in its own text."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number == errno.ENOENT:
        return "there is no such port; `lora-mcu ports` lists them"
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        return "another program uses it; close that first"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied; add yourself to the port's group (dialout on Debian) and log in again"
    if number == errno.ECONNREFUSED or "Connection refused" in text:
        return "connection refused; is the emulator running?"
    return " ".join(text.split()) or type(error).__name__

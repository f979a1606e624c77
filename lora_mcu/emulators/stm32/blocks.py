# SPDX-License-Identifier: Apache-2.0
"""Peripherals of STM32 parts as far as our ports use them.

They insist on what the manuals demand: a clock that is on, pins that are connected, a divider that gives a rate.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

from lora_mcu.emulators.stm32.core import Block, Violation
from lora_mcu.emulators.stm32.line import Line

RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 500000, 921600, 1000000, 1500000, 2000000, 3000000)
Enabled = Callable[[], bool]


class Gated(Block):
    """A peripheral that does nothing, and remembers nothing, while its clock is off."""

    def __init__(self, base: int, enabled: Enabled) -> None:
        super().__init__(base)
        self.enabled = enabled

    def read(self, offset: int) -> int:
        return self.get(offset) if self.enabled() else 0

    def write(self, offset: int, value: int) -> None:
        if self.enabled():
            self.put(offset, value)

    def get(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def put(self, offset: int, value: int) -> None:
        self.registers[offset] = value


class Gpio(Gated):
    """One port."""

    def routed(self, pin: int, function: int) -> bool:
        """True when the pin is in alternate-function mode with that function."""
        mode = self.registers.get(0x00, 0) >> (2 * pin) & 3
        chosen = self.registers.get(0x20 + 4 * (pin // 8), 0) >> (4 * (pin % 8)) & 15
        return (mode, chosen) == (2, function)


class Random(Gated):
    """True random numbers of the host; without ``clocked`` none ever comes."""

    def __init__(self, base: int, enabled: Enabled, clocked: Enabled) -> None:
        super().__init__(base, enabled)
        self._clocked = clocked

    def get(self, offset: int) -> int:
        on = self.registers.get(0x00, 0) & 4 and self._clocked()
        if offset == 0x04:
            return 1 if on else 0
        if offset == 0x08 and on:
            return int(struct.unpack("<I", os.urandom(4))[0])
        return super().get(offset)


class Watchdog(Block):
    """IWDG: 32 kHz through a prescaler; once started only a reset stops it."""

    def __init__(self, base: int, expire: Callable[[], None]) -> None:
        super().__init__(base)
        self._expire = expire
        self.reset()

    def reset(self) -> None:
        self.registers = {0x04: 0, 0x08: 0xFFF}
        self._open, self._deadline = False, float("inf")

    def write(self, offset: int, value: int) -> None:
        if offset == 0x00:
            self._open = value == 0x5555
            if value == 0xCCCC or (value == 0xAAAA and self._deadline != float("inf")):
                periods = (self.registers[0x08] + 1) * (4 << min(self.registers[0x04], 6))
                self._deadline = time.monotonic() + periods / 32000
        elif not self._open:
            raise Violation("IWDG written without its key 0x5555")
        else:
            self.registers[offset] = value

    def read(self, offset: int) -> int:
        return 0 if offset in (0x00, 0x0C) else self.registers.get(offset, 0)

    def look(self) -> None:
        """Call now and then."""
        if time.monotonic() > self._deadline:
            self._expire()


class Usart(Gated):
    """A USART, of the older register layout or the newer, or an LPUART: its divider has eight bits after the point."""

    def __init__(
        self, base: int, enabled: Enabled, line: Line, hertz: Callable[[], int],
        routed: Callable[[], tuple[bool, bool]], *, old: bool, low_power: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(base, enabled)
        self._line, self._hertz, self._routed = line, hertz, routed
        self._control, self._on = (0x0C, 1 << 13) if old else (0x00, 1)
        self._divider = 0x08 if old else 0x0C
        self._status, self._receive, self._transmit = (0x00, 0x04, 0x04) if old else (0x1C, 0x24, 0x28)
        self._transmitter, self._old = 1 << 3, old
        self._scale = 256 if low_power else 1
        self._byte: int | None = None

    def reset(self) -> None:
        super().reset()
        self._byte = None

    @property
    def _is_on(self) -> bool:
        return bool(self.enabled() and self.registers.get(self._control, 0) & self._on)

    def _check_rate(self) -> None:
        divider = self.registers.get(self._divider, 0)
        rate = self._scale * self._hertz() / divider if divider else 0
        if all(abs(rate / known - 1) > 0.025 for known in RATES):
            raise Violation(f"the UART's divider {divider} gives {rate:.0f} bits a second")

    def pending(self) -> bool:
        """True when a byte waits that should interrupt. Bytes that come while the port is off are lost."""
        if not self._is_on or not self._routed()[1]:
            while self._line.take() is not None:
                pass
            return False
        if self._byte is None and self.registers.get(self._control, 0) & (1 << 2):
            self._byte = self._line.take()
        return self._byte is not None and bool(self.registers.get(self._control, 0) & (1 << 5))

    def get(self, offset: int) -> int:
        if offset == self._status:
            return 0xC0 | (0x20 if self._byte is not None else 0) if self._is_on else 0xC0
        if offset == self._receive:
            byte, self._byte = self._byte, None
            return byte or 0
        return super().get(offset)

    def put(self, offset: int, value: int) -> None:
        if offset == self._transmit:
            if self._is_on and self.registers[self._control] & self._transmitter and self._routed()[0]:
                self._line.send(value & 255)
            return
        if offset == self._divider and self._is_on and not self._old:
            raise Violation("the UART's divider was written while it is on")
        super().put(offset, value)
        if offset == self._control and value & self._on:
            self._check_rate()

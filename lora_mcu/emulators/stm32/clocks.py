# SPDX-License-Identifier: Apache-2.0
"""Clock trees of STM32 families: what the registers say the clocks are, and what the part allows.

Offsets and limits: RM0090 and RM0385 section "RCC", RM0433 section 8, RM0432 section 6, and the data sheets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lora_mcu.emulators.stm32.core import Block, Violation


@dataclass(frozen=True)
class Clocks:
    """Hz of the core, of the bus that flash and SRAM are on, and of the two peripheral buses."""

    core: int
    bus: int
    apb1: int
    apb2: int


def _ahb(field: int) -> int:
    return 1 if field < 8 else (2, 4, 8, 16, 64, 128, 256, 512)[field - 8]


def _apb(field: int) -> int:
    return 1 if field < 4 else 2 << (field - 4)


class Rcc(Block):
    """``external`` is the Hz at the oscillator input, 0: none; ``bypass``: it is a clock signal, not a crystal."""

    CR = 0x00
    RESETS: dict[int, int] = {}
    READY: dict[int, int] = {}  # bit of CR that turns a clock on -> bit that says that it runs
    HSE, BYPASS = 1 << 16, 1 << 18
    PLL = 1 << 24
    CAUSE: int  # the register with the reset flags
    CAUSES: dict[str, int]  # cause -> flags
    REMOVE: int  # the bit that clears them

    def __init__(self, base: int, external: int, bypass: bool, wait_states: Callable[[], int]) -> None:
        super().__init__(base)
        self._external, self._bypass, self._wait_states = external, bypass, wait_states
        self.cause = "power-on"
        self.reset()

    def reset(self) -> None:
        flags = self.registers.get(self.CAUSE, 0) if self.registers else 0
        self.registers = dict(self.RESETS)
        self.registers[self.CAUSE] = flags | self.CAUSES[self.cause]
        self.clocks = self._tree(0)

    def enabled(self, offset: int, bit: int) -> Callable[[], bool]:
        return lambda: bool(self.registers.get(offset, 0) >> bit & 1)

    def _runs(self, on: int) -> bool:
        control = self.registers[self.CR]
        if on == self.HSE:
            return bool(control & on and self._external and bool(control & self.BYPASS) == self._bypass)
        return bool(control & on)

    def read(self, offset: int) -> int:
        value = self.registers.get(offset, 0)
        if offset == self.CR:
            for on, ready in self.READY.items():
                value |= ready if self._runs(on) else 0
        return value

    def write(self, offset: int, value: int) -> None:
        before = self.registers.get(offset, 0)
        if offset == self.CAUSE:
            self.registers[offset] = 0 if value & self.REMOVE else (before & ~1) | (value & 1)
            return
        self.registers[offset] = value & ~sum(self.READY.values()) if offset == self.CR else value
        if offset == self.CR and value & self.PLL and not before & self.PLL:
            self._pll()
        if offset in self._pll_registers and self.registers[self.CR] & self.PLL:
            raise Violation("the PLL was changed while it is on")
        if offset in self._switch_registers:
            self._switch(value, offset)

    _pll_registers: tuple[int, ...] = ()
    _switch_registers: tuple[int, ...] = ()

    def _pll(self) -> int:
        """Hz of the PLL's output to the core. Raises Violation where it cannot lock."""
        raise NotImplementedError

    def _tree(self, source: int) -> Clocks:
        raise NotImplementedError

    def _switch(self, value: int, offset: int) -> None:
        raise NotImplementedError

    def _within(self, what: str, hertz: int, low: float, high: float) -> None:
        if not low <= hertz <= high:
            raise Violation(f"{what} of {hertz} Hz is outside {low:.0f} to {high:.0f}")


class Sectored(Rcc):
    """STM32F4 and F7."""

    RESETS = {0x00: 0x83, 0x04: 0x24003010, 0x30: 0x00100000}
    READY = {1 << 0: 1 << 1, 1 << 16: 1 << 17, 1 << 24: 1 << 25}
    CAUSE, REMOVE = 0x74, 1 << 24
    CAUSES = {"power-on": 7 << 25, "software": 1 << 28 | 1 << 26, "watchdog": 1 << 29 | 1 << 26}
    _pll_registers = (0x04,)
    _switch_registers = (0x08,)

    def __init__(
        self, base: int, external: int, bypass: bool, wait_states: Callable[[], int], power: Block, most: int, over: int
    ) -> None:
        self._power, self._most, self._over = power, most, over  # ``over``: Hz above which over-drive is needed
        super().__init__(base, external, bypass, wait_states)

    def _source(self, source: int) -> int:
        return (16_000_000, self._external, self._pll() if source == 2 else 0)[source]

    def _pll(self) -> int:
        word = self.registers[0x04]
        m, n, p = word & 63, word >> 6 & 511, 2 * (word >> 16 & 3) + 2
        source = self._external if word >> 22 & 1 else 16_000_000
        self._within("PLL input", source // max(m, 1), 0.95e6, 2.1e6)
        self._within("PLL oscillator", source * n // max(m, 1), 100e6, 432e6)
        return source * n // m // p

    def _tree(self, source: int) -> Clocks:
        word = self.registers.get(0x08, 0)
        core = self._source(source) // _ahb(word >> 4 & 15)
        return Clocks(core, core, core // _apb(word >> 10 & 7), core // _apb(word >> 13 & 7))

    def _switch(self, value: int, offset: int) -> None:
        source = value & 3
        running = self._runs({0: 1 << 0, 1: 1 << 16, 2: 1 << 24}[source])
        now = source if running else value >> 2 & 3
        self.registers[0x08] = (value & ~0xC) | now << 2
        tree = self._tree(now)
        self._within("core clock", tree.core, 0, self._most)
        self._within("APB1", tree.apb1, 0, self._most / 4)
        self._within("APB2", tree.apb2, 0, self._most / 2)
        if tree.core > (self._wait_states() + 1) * 30_000_000:
            raise Violation(f"{self._wait_states()} wait states are too few for {tree.core} Hz")
        if tree.core > self._over and not self._power.registers.get(0x00, 0) & 1 << 17:
            raise Violation(f"{tree.core} Hz without over-drive")
        self.clocks = tree


class SectoredPower(Block):
    """PWR of STM32F4 and F7: over-drive is ready when it was asked for."""

    def read(self, offset: int) -> int:
        value = super().read(offset)
        return self.registers.get(0x00, 0) & 0x30000 | 1 << 14 if offset == 0x04 else value


class H7(Rcc):
    """STM32H7."""

    RESETS = {0x00: 0x83, 0x28: 0x02020200, 0x2C: 0x01FF0000, 0x30: 0x01010280}
    READY = {1 << 0: 1 << 2, 1 << 12: 1 << 13, 1 << 16: 1 << 17, 1 << 24: 1 << 25}
    CAUSE, REMOVE = 0xD0, 1 << 16
    CAUSES = {"power-on": 0xFE0000, "software": 1 << 24 | 1 << 22 | 1 << 17, "watchdog": 1 << 26 | 1 << 22 | 1 << 17}
    _pll_registers = (0x28, 0x2C, 0x30)
    _switch_registers = (0x10, 0x18, 0x1C, 0x20)

    def __init__(self, base: int, external: int, bypass: bool, wait_states: Callable[[], int], power: Block) -> None:
        self._power = power
        super().__init__(base, external, bypass, wait_states)

    def _pll(self) -> int:
        select, setting, divide = (self.registers[at] for at in (0x28, 0x2C, 0x30))
        m, n, p = select >> 4 & 63, (divide & 511) + 1, (divide >> 9 & 127) + 1
        source = {0: 64_000_000, 2: self._external}.get(select & 3, 0)
        reference = source // max(m, 1)
        low, high = {0: (1e6, 2e6), 1: (2e6, 4e6), 2: (4e6, 8e6), 3: (8e6, 16e6)}[setting >> 2 & 3]
        self._within("PLL input", reference, low, high)
        low, high = (150e6, 420e6) if setting >> 1 & 1 else (192e6, 836e6)
        self._within("PLL oscillator", reference * n, low, high)
        if not setting >> 16 & 1:
            raise Violation("PLL1's output P is off")
        return reference * n // p

    def _tree(self, source: int) -> Clocks:
        first, second = self.registers.get(0x18, 0), self.registers.get(0x1C, 0)
        system = {0: 64_000_000, 2: self._external}[source] if source != 3 else self._pll()
        core = system // _ahb(first >> 8 & 15)
        bus = core // _ahb(first & 15)
        return Clocks(core, bus, bus // _apb(second >> 4 & 7), bus // _apb(second >> 8 & 7))

    def _switch(self, value: int, offset: int) -> None:
        word = self.registers.get(0x10, 0)
        source = word & 7
        running = self._runs({0: 1 << 0, 2: 1 << 16, 3: 1 << 24}[source])
        now = source if running else word >> 3 & 7
        self.registers[0x10] = (word & ~0x38) | now << 3
        tree = self._tree(now)
        scale1 = self._power.registers.get(0x18, 0) >> 14 & 3 == 3
        self._within("core clock", tree.core, 0, 400e6 if scale1 else 200e6)
        self._within("AXI clock", tree.bus, 0, 200e6 if scale1 else 100e6)
        self._within("APB clocks", max(tree.apb1, tree.apb2), 0, 100e6 if scale1 else 64e6)  # 64: after reset
        if tree.bus > (70e6, 140e6, 210e6)[min(self._wait_states() & 15, 2)]:
            raise Violation(f"{self._wait_states() & 15} wait states are too few for {tree.bus} Hz")
        self.clocks = tree


class H7Power(Block):
    """PWR of the STM32H7: the supply's byte can be written once, and only then the voltage is ready."""

    def __init__(self, base: int) -> None:
        super().__init__(base)
        self._supplied = False
        self.reset()

    def reset(self) -> None:
        self.registers = {0x0C: 0x06 if not self._supplied else self.registers.get(0x0C, 0), 0x18: 1 << 14}

    def write(self, offset: int, value: int) -> None:
        if offset == 0x0C and not self._supplied:
            if value & 7 != 2:
                raise Violation(f"supply {value & 7}: this board feeds the core through the LDO")
            self._supplied = True
        elif offset == 0x0C:
            value = (value & ~7) | (self.registers[offset] & 7)
        if offset == 0x18 and not self._supplied:
            raise Violation("the voltage was chosen before the supply")
        super().write(offset, value)

    def read(self, offset: int) -> int:
        value = super().read(offset)
        if offset == 0x04:
            return 1 << 13 if self._supplied else 0
        return value | 1 << 13 if offset == 0x18 else value


class L4(Rcc):
    """STM32L4+."""

    RESETS = {0x00: 0x63, 0x0C: 0x1000, 0x48: 0x100}
    READY = {1 << 0: 1 << 1, 1 << 8: 1 << 10, 1 << 16: 1 << 17, 1 << 24: 1 << 25}
    CAUSE, REMOVE = 0x94, 1 << 23
    CAUSES = {"power-on": 1 << 27 | 1 << 26, "software": 1 << 28 | 1 << 26, "watchdog": 1 << 29 | 1 << 26}
    _pll_registers = (0x0C,)
    _switch_registers = (0x08,)

    def __init__(self, base: int, external: int, bypass: bool, wait_states: Callable[[], int], power: Block) -> None:
        self._power, self._halved = power, False
        super().__init__(base, external, bypass, wait_states)

    def _pll(self) -> int:
        word = self.registers[0x0C]
        m, n, r = (word >> 4 & 15) + 1, word >> 8 & 127, 2 * (word >> 25 & 3) + 2
        source = {1: 4_000_000, 2: 16_000_000, 3: self._external}.get(word & 3, 0)
        self._within("PLL input", source // m, 2.66e6, 16e6)
        self._within("PLL oscillator", source // m * n, 64e6, 344e6)
        if not word >> 24 & 1:
            raise Violation("the PLL's output R is off")
        return source // m * n // r

    def _tree(self, source: int) -> Clocks:
        word = self.registers.get(0x08, 0)
        system = (4_000_000, 16_000_000, self._external)[source] if source != 3 else self._pll()
        core = system // _ahb(word >> 4 & 15)
        return Clocks(core, core, core // _apb(word >> 8 & 7), core // _apb(word >> 11 & 7))

    def _switch(self, value: int, offset: int) -> None:
        source = value & 3
        running = self._runs({0: 1 << 0, 1: 1 << 8, 2: 1 << 16, 3: 1 << 24}[source])
        now = source if running else value >> 2 & 3
        self.registers[0x08] = (value & ~0xC) | now << 2
        tree = self._tree(now)
        if tree.core > 80e6 and self.clocks.core < 40e6:
            raise Violation("a step above 80 MHz must be taken at half speed")
        boost = not self._power.registers.get(0x80, 1 << 8) & 1 << 8
        self._within("core clock", tree.core, 0, 120e6 if boost else 80e6)
        if tree.core > (self._wait_states() + 1) * 20_000_000:
            raise Violation(f"{self._wait_states()} wait states are too few for {tree.core} Hz")
        self.clocks = tree

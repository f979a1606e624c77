# SPDX-License-Identifier: Apache-2.0
"""A Cortex-M around Unicorn's core: memories, peripherals on a bus, SysTick, interrupts, sleep, faults, reset.

Unicorn executes instructions and knows nothing of the rest. Stopped from outside, it may execute an access to a
peripheral twice; so interrupts are taken only where the core sleeps (WFI) and at given addresses, the entries of
functions that whoever waits for an interrupt calls. Each is a call of its handler, all registers saved around it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

unicorn: Any = import_module("unicorn")  # its own type hints are not complete
arm: Any = import_module("unicorn.arm_const")

PAGE = 0x1000
SYSTEM = 0xE000E000
RETURN_PAGE = 0x1FFE0000  # where handlers return to: nothing of ours lies there
FAULT, SYSTICK = 3, 15
FRAME_BYTES = 104  # eight registers, sixteen float registers, FPSCR and a gap
_WFI = b"\x30\xbf"
_SYST_CSR, _SYST_RVR, _SYST_CVR, _ISER, _ICSR, _VTOR, _AIRCR, _CCR = (
    0x010, 0x014, 0x018, 0x100, 0xD04, 0xD08, 0xD0C, 0xD14,
)  # fmt: skip
_CCSIDR = 0xD80
_PENDSTSET = 1 << 26
_CCR_IGNORE_BUS_FAULTS = 1 << 8
_RESET_REQUEST = 0x05FA0004


class Violation(Exception):
    """The firmware did what the manual forbids, or touched what the model does not have."""


class BusFault(Exception):
    """An access that the part answers with an error."""


class Block:
    """A peripheral of ``size`` bytes at ``base``; this one only remembers what is written."""

    size = 0x400

    def __init__(self, base: int) -> None:
        self.base = base
        self.registers: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.registers[offset] = value

    def reset(self) -> None:
        self.registers = {}

    def load(self, offset: int, size: int) -> int:
        """A read of ``size`` bytes: registers are read as words."""
        return (self.read(offset & ~3) >> (8 * (offset & 3))) & ((1 << (8 * size)) - 1)

    def store(self, offset: int, size: int, value: int) -> None:
        if size != 4 or offset & 3:
            raise Violation(f"a write of {size} bytes at 0x{self.base + offset:08x}")
        self.write(offset, value)


class Core:
    """``hertz`` says how fast the core runs now; ``count`` makes SysTick count executed instructions instead."""

    def __init__(self, model: int, hertz: Callable[[], int], count: bool = False) -> None:
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(model)
        uc.mem_map(RETURN_PAGE, PAGE)
        uc.mem_write(RETURN_PAGE, b"\xfe\xe7")  # b .
        uc.mmio_map(SYSTEM, PAGE, self._read_system, None, self._write_system, None)
        self._hertz = hertz
        self._system: dict[int, int] = {}
        self._blocks: list[Block] = []
        self._enabled: set[int] = set()
        self._error: Exception | None = None
        self._resetting = ""
        self._inside = False
        self._tick_at, self._tick_start, self._wraps_taken = time.monotonic(), 0.0, 0
        self._wanted = False
        self.off = False  # set to True, from any thread, to end run()
        self.on_reset: Callable[[str], None] = lambda cause: None
        self.instructions: int | None = 0 if count else None
        self._lengths: dict[tuple[int, int], int] = {}
        if count:
            uc.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def stop_at(self, address: int) -> None:
        """Take interrupts when the core comes to ``address``."""
        self.uc.hook_add(unicorn.UC_HOOK_CODE, self._safe_point, None, address, address)

    def _safe_point(self, uc: Any, address: int, size: int, data: Any) -> None:
        if self._wanted and not self._inside:
            uc.emu_stop()

    # ---- memories and peripherals

    def memory(self, address: int, size: int, writable: bool = True) -> None:
        protection = unicorn.UC_PROT_READ | (unicorn.UC_PROT_WRITE if writable else unicorn.UC_PROT_EXEC)
        self.uc.mem_map(address, size, protection)

    def attach(self, *blocks: Block) -> None:
        """Add peripherals; each 4 KB page of the address space goes to those that have a place in it."""
        self._blocks += blocks

    def connect(self) -> None:
        """Make the attached peripherals reachable; an access beside them is a Violation."""
        pages = {p for b in self._blocks for p in range(b.base & -PAGE, b.base + b.size, PAGE)}
        for page in sorted(pages):
            self.uc.mmio_map(page, PAGE, self._read_bus, page, self._write_bus, page)

    def _find(self, address: int) -> Block:
        for block in self._blocks:
            if block.base <= address < block.base + block.size:
                return block
        raise Violation(f"nothing at 0x{address:08x}")

    def _read_bus(self, uc: Any, offset: int, size: int, page: int) -> int:
        try:
            block = self._find(page + offset)
            return block.load(page + offset - block.base, size)
        except BusFault as fault:
            if not self.ignores_bus_faults:
                self._stop(fault)
        except Violation as error:
            self._stop(error)
        return 0

    def _write_bus(self, uc: Any, offset: int, size: int, value: int, page: int) -> None:
        try:
            block = self._find(page + offset)
            block.store(page + offset - block.base, size, value & 0xFFFFFFFF)
        except (Violation, BusFault) as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._error = self._error or error
        self.uc.emu_stop()

    @property
    def ignores_bus_faults(self) -> bool:
        """True where the firmware has asked for it: CCR.BFHFNMIGN while FAULTMASK is set."""
        masked = self.uc.reg_read(arm.UC_ARM_REG_FAULTMASK) & 1
        return bool(masked and self._system.get(_CCR, 0) & _CCR_IGNORE_BUS_FAULTS)

    # ---- system control space

    def _now(self) -> int:
        """Ticks since SysTick was started. Never two wraps ahead of what was taken: the core would lose one."""
        if self.instructions is not None:
            return self.instructions
        elapsed = time.monotonic()
        self._tick_start += (elapsed - self._tick_at) * self._hertz()
        self._tick_at = elapsed
        period = self._system.get(_SYST_RVR, 0) + 1
        self._tick_start = min(self._tick_start, (self._wraps_taken + 2) * period - 1)
        return int(self._tick_start)

    def _tick_pending(self) -> bool:
        return self._running() and self._now() // (self._system[_SYST_RVR] + 1) > self._wraps_taken

    def _running(self) -> bool:
        return self._system.get(_SYST_CSR, 0) & 1 == 1 and _SYST_RVR in self._system

    def _read_system(self, uc: Any, offset: int, size: int, data: Any) -> int:
        if offset == _SYST_CVR and self._running():
            period = self._system[_SYST_RVR] + 1
            position = self._now() % period
            return period - position if position else 0
        if offset == _ICSR:
            return _PENDSTSET if self._tick_pending() else 0
        if offset == _CCSIDR:
            return 0xF003E019 & ~(0x7FFF << 13) | 3 << 13  # 4 sets, so that start-up does not take a second here
        return self._system.get(offset, 0)

    def _write_system(self, uc: Any, offset: int, size: int, value: int, data: Any) -> None:
        if offset == _AIRCR:
            if value == _RESET_REQUEST:
                self.restart("software")
            return
        if _ISER <= offset < _ISER + 0x20:
            self._enabled |= {8 * (offset - _ISER) + bit for bit in range(32) if value >> bit & 1}
            return
        self._system[offset] = value & 0xFFFFFFFF
        if offset in (_SYST_CVR, _SYST_CSR):
            self._tick_at, self._tick_start, self._wraps_taken = time.monotonic(), 0.0, 0

    def _block(self, uc: Any, address: int, size: int, data: Any) -> None:
        key = (address, size)
        if key not in self._lengths:
            code, at, number = bytes(uc.mem_read(address, size)), 0, 0
            while at < size:
                at, number = at + (4 if code[at + 1] >> 3 >= 0b11101 else 2), number + 1
            self._lengths[key] = number
        assert self.instructions is not None
        self.instructions += self._lengths[key]

    # ---- running

    def restart(self, cause: str) -> None:
        """Reset the part; RAM stays. Takes effect at once."""
        self._resetting = cause
        self.uc.emu_stop()

    def poke(self) -> None:
        """Make the core look for interrupts at the next chance; may be called from another thread."""
        self._wanted = True

    def _vector(self, number: int) -> int:
        table = self._system.get(_VTOR, 0)
        (address,) = struct.unpack("<I", self.uc.mem_read(table + 4 * number, 4))
        return int(address)

    def boot(self, table: int) -> None:
        """Registers as after a reset: stack pointer and entry from the vector table at ``table``."""
        uc = self.uc
        self._system, self._enabled, self._inside = {_VTOR: table}, set(), False
        uc.reg_write(arm.UC_ARM_REG_PRIMASK, 0)
        uc.reg_write(arm.UC_ARM_REG_FAULTMASK, 0)
        pointer, entry = struct.unpack("<II", uc.mem_read(table, 8))
        uc.reg_write(arm.UC_ARM_REG_SP, pointer)
        uc.reg_write(arm.UC_ARM_REG_PC, entry | 1)

    def call(self, number: int) -> None:
        """Run the handler of exception ``number`` to its end, as an interrupt of whatever runs."""
        uc = self.uc
        handler, saved = self._vector(number), uc.context_save()
        uc.reg_write(arm.UC_ARM_REG_SP, (uc.reg_read(arm.UC_ARM_REG_SP) - FRAME_BYTES) & ~7)
        uc.reg_write(arm.UC_ARM_REG_LR, RETURN_PAGE | 1)
        self._inside = True
        uc.emu_start(handler | 1, RETURN_PAGE)
        self._inside = False
        self._raise()
        uc.context_restore(saved)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def run(self, table: int, interrupts: Callable[[], list[int]], sleep: Callable[[], None]) -> None:
        """Boot and run until ``off``. ``interrupts`` gives those that are pending; ``sleep`` returns when one may be.

        Raises Violation where the firmware does what a part would not forgive.
        """
        self.boot(table)
        while not self.off:
            try:
                self.uc.emu_start(self.uc.reg_read(arm.UC_ARM_REG_PC) | 1, 0xFFFFFFFE)
                self._raise()
                if not self._resetting:
                    self._serve(interrupts, sleep)
            except (BusFault, unicorn.UcError):
                self._fault()
            if self._resetting:
                cause, self._resetting = self._resetting, ""
                self._error = None
                self.on_reset(cause)
                self.boot(table)

    def _fault(self) -> None:
        """A fault does not come back: run its handler, which resets the part."""
        self._error = None
        self.uc.reg_write(arm.UC_ARM_REG_PC, self._vector(FAULT) | 1)

    def _serve(self, interrupts: Callable[[], list[int]], sleep: Callable[[], None]) -> None:
        at = self.uc.reg_read(arm.UC_ARM_REG_PC)
        asleep = bytes(self.uc.mem_read((at & ~1) - 2, 2)) == _WFI
        self._wanted = False
        pending = interrupts()
        if asleep and not pending and not self._tick_pending():
            sleep()
            pending = interrupts()
        if not asleep and (self.uc.reg_read(arm.UC_ARM_REG_PRIMASK) & 1 or self._in_if_block()):
            return
        if self._tick_pending():
            self.call(SYSTICK)
            self._wraps_taken += 1
        while pending and not self._resetting:
            for number in pending:
                if number in self._enabled:
                    self.call(16 + number)
            pending = [number for number in interrupts() if number in self._enabled]

    def _in_if_block(self) -> bool:
        """Inside an IT block the handler would inherit its conditions: the interrupt comes a little later."""
        return bool(self.uc.reg_read(arm.UC_ARM_REG_XPSR) & 0x0600FC00)

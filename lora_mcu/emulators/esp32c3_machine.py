# SPDX-License-Identifier: Apache-2.0
"""An ESP32-C3 as far as a direct-boot image of ours needs it: run as a program by :mod:`lora_mcu.emulators.esp32c3`.

    python -I esp32c3_machine.py IMAGE LISTENING_SOCKET_FD FLASH_FD FLASH_BYTES [count]

Unicorn executes the core. Flash, SRAM and registers that only remember are memory; UART0, the system timer, the
reset bit and the ROM's flash and cache functions are modelled. With
``count`` the system timer counts executed instructions instead of 1/16 microseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

unicorn: Any = import_module("unicorn")  # its own type hints are not complete
riscv_const: Any = import_module("unicorn.riscv_const")

CODE, CONSTANTS, FLASH_BYTES = 0x42000000, 0x3C000000, 0x400000
MAGIC = struct.pack("<II", 0xAEDB041D, 0xAEDB041D)
SRAM, RAM_CODE, SRAM_BYTES = 0x3FC80000, 0x40380000, 0x60000  # the same bytes on both buses
ROM, RETURN, AUTOLOAD = 0x40000000, b"\x82\x80", 0x5A  # c.jr ra; what suspending the cache returns
PAGE = SECTOR = 0x1000
LINE = 32  # of the cache
UART, RTC, SYSTIMER = 0x60000000, 0x60008000, 0x60023000
MEMORIES = (0x6001F000, 0x60020000, 0x60026000, 0x600C0000)  # timer groups, random numbers, system: they only remember
FIFO_BYTES = 128
WINDOWS = (
    (CODE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC),
    (CONSTANTS, unicorn.UC_PROT_READ),
)
IDLE_SECONDS = 0.02  # of two looks at an empty UART in a row, the second waits for a byte


class Uart:
    """UART0, whose line is a TCP server with one connection at a time; bytes wait in the socket, so none is lost."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._peer: socket.socket | None = None
        self._fifo = bytearray()
        self._looked = False
        self._registers: dict[int, int] = {}

    def reset(self) -> None:
        self._fifo.clear()

    def read(self, _uc: Any, offset: int, _size: int, _data: Any) -> int:
        if offset == 0x1C:
            self._receive(IDLE_SECONDS if self._looked else 0)
            self._looked = not self._fifo
            return len(self._fifo)
        self._looked = False
        if offset == 0:
            return self._fifo.pop(0) if self._fifo else 0
        return self._registers.get(offset, 0)

    def write(self, _uc: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        self._looked = False
        if offset == 0 and self._peer is not None:
            try:
                self._peer.sendall(bytes([value & 255]))
            except OSError:
                self._hang_up()
        elif offset == 0x80:
            value &= 0x7FFFFFFF  # the update is done at once
        self._registers[offset] = value

    def _receive(self, wait: float) -> None:
        if len(self._fifo) >= FIFO_BYTES:
            return
        line = self._server if self._peer is None else self._peer
        ready, _, _ = select.select([line], [], [], wait)
        if ready and self._peer is None:
            self._peer, _ = self._server.accept()
            self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif ready and self._peer is not None:
            try:
                data = self._peer.recv(FIFO_BYTES - len(self._fifo))
            except OSError:
                data = b""
            self._fifo += data
            if not data:
                self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None


class Rom:
    """The ROM's functions that a flash driver calls, on ``cells``, the adapter region at the end of flash.

    Strict: nothing may come from flash while it is written, and what the driver forgets to invalidate stays stale.
    """

    def __init__(self, core: Any, cells: mmap.mmap) -> None:
        self._core, self._cells, self._first = core, cells, FLASH_BYTES - len(cells)
        self.broken = ""
        self._suspended, self._configured, self._unlocked = False, False, False
        core.mem_map(ROM, PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        core.mem_write(ROM, RETURN * (PAGE // len(RETURN)))
        core.hook_add(unicorn.UC_HOOK_CODE, self._call, begin=ROM, end=ROM + PAGE - 1)
        self._refresh(0, len(cells))

    def reset(self) -> None:
        """As the part boots: the cache is on and knows the cells as they are."""
        self._configured, self._unlocked = False, False
        if self._suspended:
            self._switch(on=True)
        self._refresh(0, len(self._cells))

    def _call(self, core: Any, address: int, _size: int, _data: Any) -> None:
        functions: dict[int, Callable[[int, int, int], int]] = {
            0x134: self._config, 0x140: self._unlock, 0x128: self._erase, 0x12C: self._write,
            0x524: self._suspend, 0x528: self._resume, 0x4D4: self._invalidate,
        }  # fmt: skip
        number = (riscv_const.UC_RISCV_REG_A0, riscv_const.UC_RISCV_REG_A1, riscv_const.UC_RISCV_REG_A2)
        try:
            function = functions.get(address - ROM)
            if function is None:
                raise ValueError(f"a call of 0x{address:08x} in the ROM, which the model does not have")
            core.reg_write(riscv_const.UC_RISCV_REG_A0, function(*map(core.reg_read, number)))
        except ValueError as error:
            self.broken = str(error)
            core.emu_stop()

    def _caller_in_ram(self, what: str) -> None:
        caller = self._core.reg_read(riscv_const.UC_RISCV_REG_RA)
        if not RAM_CODE <= caller < RAM_CODE + SRAM_BYTES:
            raise ValueError(f"{what} from 0x{caller:08x}, which is not in RAM")

    def _switch(self, on: bool) -> None:
        self._suspended = not on
        for address, protection in WINDOWS:
            self._core.mem_protect(address, FLASH_BYTES, protection if on else unicorn.UC_PROT_NONE)

    def _suspend(self, *_: int) -> int:
        self._caller_in_ram("the cache suspended")
        self._switch(on=False)
        return AUTOLOAD

    def _resume(self, autoload: int, *_: int) -> int:
        if not self._suspended or autoload != AUTOLOAD:
            raise ValueError(f"the cache resumed with {autoload} instead of what suspending it gave")
        self._switch(on=True)
        return 0

    def _config(self, _chip: int, size: int, block: int) -> int:
        self._configured = (size, block) == (FLASH_BYTES, 0x10000)
        return 0

    def _unlock(self, *_: int) -> int:
        self._busy("unlock")
        self._unlocked = True
        return 0

    def _busy(self, what: str) -> None:
        self._caller_in_ram(f"{what} of flash")
        if not self._suspended or not self._configured:
            raise ValueError(f"{what} of flash before the cache was suspended and the chip described")

    def _place(self, what: str, at: int, count: int) -> int:
        self._busy(what)
        if not self._unlocked:
            raise ValueError(f"{what} of a locked flash")
        if not self._first <= at <= FLASH_BYTES - count:
            raise ValueError(f"{what} at 0x{at:06x}, outside of the adapter region")
        return at - self._first

    def _erase(self, sector: int, *_: int) -> int:
        at = self._place("erase", sector * SECTOR, SECTOR)
        self._cells[at : at + SECTOR] = b"\xff" * SECTOR
        return 0

    def _write(self, at: int, source: int, count: int) -> int:
        place = self._place("program", at, count)
        if source % 4 or at % 4 or count % 4 or not SRAM <= source < SRAM + SRAM_BYTES:
            raise ValueError(f"program of {count} bytes from 0x{source:08x}: words in SRAM are wanted")
        old, new = self._cells[place : place + count], self._core.mem_read(source, count)
        self._cells[place : place + count] = bytes(a & b for a, b in zip(old, new, strict=True))
        return 0

    def _invalidate(self, address: int, count: int, *_: int) -> int:
        at = address - CONSTANTS - self._first
        if not 0 <= at <= len(self._cells) - count:
            raise ValueError(f"Cache_Invalidate_Addr of 0x{address:08x}, outside of the adapter region")
        first = at // LINE * LINE
        self._refresh(first, -(-(at + count) // LINE) * LINE)
        return 0

    def _refresh(self, start: int, end: int) -> None:
        for address, _ in WINDOWS:
            self._core.mem_write(address + self._first + start, self._cells[start:end])


class Machine:
    """The part with an image in its flash."""

    def __init__(self, image: bytes, server: socket.socket, cells: mmap.mmap, count: bool) -> None:
        self.uart = Uart(server)
        self._registers: dict[int, int] = {}
        self._start, self._latched, self._resetting = time.monotonic(), 0, False
        self._instructions: int | None = 0 if count else None
        self._lengths: dict[int, int] = {}
        self._core = core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        memory = image.ljust(FLASH_BYTES, b"\xff")
        for address, protection in WINDOWS:
            core.mem_map(address, FLASH_BYTES, protection)
            core.mem_write(address, memory)
        self._sram = mmap.mmap(-1, SRAM_BYTES)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._sram))
        core.mem_map_ptr(SRAM, SRAM_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE, place)
        core.mem_map_ptr(RAM_CODE, SRAM_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC, place)
        self._rom = Rom(core, cells)
        for address in MEMORIES:
            core.mem_map(address, PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        core.mmio_map(UART, PAGE, self.uart.read, None, self.uart.write, None)
        core.mmio_map(RTC, PAGE, self._read_rtc, None, self._write_rtc, None)
        core.mmio_map(SYSTIMER, PAGE, self._read_timer, None, self._write_timer, None)
        if count:
            core.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _block(self, core: Any, address: int, size: int, _data: Any) -> None:
        if address not in self._lengths:
            code, at, number = bytes(core.mem_read(address, size)), 0, 0
            while at < size:
                at, number = at + (4 if code[at] & 3 == 3 else 2), number + 1
            self._lengths[address] = number
        assert self._instructions is not None
        self._instructions += self._lengths[address]

    def _read_rtc(self, _core: Any, offset: int, _size: int, _data: Any) -> int:
        return self._registers.get(offset, 0)

    def _write_rtc(self, core: Any, offset: int, _size: int, value: int, _data: Any) -> None:
        if offset == 0 and value >> 31:
            self._resetting = True
            core.emu_stop()
        else:
            self._registers[offset] = value

    def _read_timer(self, _core: Any, offset: int, _size: int, _data: Any) -> int:
        return {0x04: 1 << 29, 0x40: self._latched >> 32, 0x44: self._latched & 0xFFFFFFFF}.get(offset, 0)

    def _write_timer(self, _core: Any, offset: int, _size: int, _value: int, _data: Any) -> None:
        if offset == 0x04:
            counted = self._instructions
            self._latched = int((time.monotonic() - self._start) * 16e6) if counted is None else counted

    def run(self) -> str:
        """Boot and run until a rule of the part is broken, which it returns. A trap goes to the image's own handler, a
        reset back to the start; RAM stays."""
        address = CODE + len(MAGIC)
        while True:
            with contextlib.suppress(unicorn.UcError):
                self._core.emu_start(address, 0)
            if self._rom.broken:
                return self._rom.broken
            if self._resetting:
                self._resetting, address = False, CODE + len(MAGIC)
                self.uart.reset()
                self._rom.reset()
            else:
                address = self._core.reg_read(riscv_const.UC_RISCV_REG_MTVEC) & ~3


def main() -> int:
    name, (line, flash, flash_bytes) = sys.argv[1], map(int, sys.argv[2:5])
    with open(name, "rb") as file:
        image = file.read()
    if not image.startswith(MAGIC) or len(image) > FLASH_BYTES:
        print(f"{name} is no direct-boot image: it must begin with the magic number twice", file=sys.stderr)
        return 1
    machine = Machine(image, socket.socket(fileno=line), mmap.mmap(flash, flash_bytes), sys.argv[5:] == ["count"])
    print("ready", flush=True)
    print(f"the firmware broke a rule of the ESP32-C3: {machine.run()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

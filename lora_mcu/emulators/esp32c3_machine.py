# SPDX-License-Identifier: Apache-2.0
"""An ESP32-C3 as far as a direct-boot image of ours needs it: run as a program by :mod:`lora_mcu.emulators.esp32c3`.

    python -I esp32c3_machine.py NAME IMAGE_FD LISTENING_SOCKET_FD FLASH_FILE_FD [count]

Unicorn executes the core. Flash, SRAM and registers that only remember are memory; UART0, the system timer and the
reset bit are modelled; semihosting calls reach the flash file. With
``count`` the system timer counts executed instructions instead of 1/16 microseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from importlib import import_module
from typing import Any

unicorn: Any = import_module("unicorn")  # its own type hints are not complete
riscv_const: Any = import_module("unicorn.riscv_const")

CODE, CONSTANTS, FLASH_BYTES = 0x42000000, 0x3C000000, 0x400000
MAGIC = struct.pack("<II", 0xAEDB041D, 0xAEDB041D)
SRAM, SRAM_BYTES = 0x3FC80000, 0x60000
PAGE = 0x1000
UART, RTC, SYSTIMER = 0x60000000, 0x60008000, 0x60023000
MEMORIES = (0x6001F000, 0x60020000, 0x60026000, 0x600C0000)  # timer groups, random numbers, system: they only remember
FIFO_BYTES = 128
SEMIHOSTING = struct.pack("<III", 0x01F01013, 0x00100073, 0x40705013)  # slli x0, x0, 31; ebreak; srai x0, x0, 7
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


class FlashFile:
    """Semihosting's open, seek, read and write, which reach one file whatever its name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def call(self, core: Any, operation: int, arguments: int) -> int:
        """Run one operation of the core; its result is 0 for success, or the handle."""
        words = struct.unpack("<III", core.mem_read(arguments, 12))
        if operation == 0x01:
            return 1
        if operation == 0x0A:
            os.lseek(self._descriptor, words[1], os.SEEK_SET)
            return 0
        if operation == 0x05:
            return int(words[2]) - os.write(self._descriptor, bytes(core.mem_read(words[1], words[2])))
        if operation == 0x06:
            data = os.read(self._descriptor, words[2])
            core.mem_write(words[1], data)
            return int(words[2]) - len(data)
        return 0xFFFFFFFF


class Machine:
    """The part with an image in its flash."""

    def __init__(self, image: bytes, server: socket.socket, flash: FlashFile, count: bool) -> None:
        self.uart = Uart(server)
        self._file = flash
        self._registers: dict[int, int] = {}
        self._start, self._latched, self._resetting = time.monotonic(), 0, False
        self._instructions: int | None = 0 if count else None
        self._lengths: dict[int, int] = {}
        self._core = core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        memory = image.ljust(FLASH_BYTES, b"\xff")
        for address, protection in (
            (CODE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC),
            (CONSTANTS, unicorn.UC_PROT_READ),
        ):
            core.mem_map(address, FLASH_BYTES, protection)
            core.mem_write(address, memory)
        core.mem_map(SRAM, SRAM_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        for address in MEMORIES:
            core.mem_map(address, PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        core.mmio_map(UART, PAGE, self.uart.read, None, self.uart.write, None)
        core.mmio_map(RTC, PAGE, self._read_rtc, None, self._write_rtc, None)
        core.mmio_map(SYSTIMER, PAGE, self._read_timer, None, self._write_timer, None)
        if count:
            core.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _semihosting(self, at: int) -> bool:
        """Run the semihosting call whose ebreak the core stopped at; False: it stopped at something else."""
        core, a0, a1 = self._core, riscv_const.UC_RISCV_REG_A0, riscv_const.UC_RISCV_REG_A1
        if not CODE < at < CODE + FLASH_BYTES - 8 or bytes(core.mem_read(at - 4, 12)) != SEMIHOSTING:
            return False
        core.reg_write(a0, self._file.call(core, core.reg_read(a0), core.reg_read(a1)))
        return True

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

    def run(self) -> None:
        """Boot and run for ever. A trap goes to the image's own handler, a reset back to the start; RAM stays."""
        address = CODE + len(MAGIC)
        while True:
            with contextlib.suppress(unicorn.UcError):
                self._core.emu_start(address, 0)
            stopped = self._core.reg_read(riscv_const.UC_RISCV_REG_PC)
            if self._resetting:
                self._resetting, address = False, CODE + len(MAGIC)
                self.uart.reset()
            elif self._semihosting(stopped):
                address = stopped + 4
            else:
                address = self._core.reg_read(riscv_const.UC_RISCV_REG_MTVEC) & ~3


def main() -> int:
    name, (image_file, line, flash) = sys.argv[1], map(int, sys.argv[2:5])
    with open(image_file, "rb") as file:
        image = file.read()
    if not image.startswith(MAGIC) or len(image) > FLASH_BYTES:
        print(f"{name} is no direct-boot image: it must begin with the magic number twice", file=sys.stderr)
        return 1
    machine = Machine(image, socket.socket(fileno=line), FlashFile(flash), sys.argv[5:] == ["count"])
    print("ready", flush=True)
    machine.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

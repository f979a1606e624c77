# SPDX-License-Identifier: Apache-2.0
"""STM32 parts assembled from core, memories and peripherals, and the program that runs an image in one.

Addresses, interrupts and alternate functions are written down here a second time, from the reference manuals and data
sheets, on purpose: what the firmware's own tables say must agree with them, or the firmware does not get far.
"""

from __future__ import annotations

import mmap
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lora_mcu import boards, building
from lora_mcu.boards import Board
from lora_mcu.emulators.stm32 import clocks, flash
from lora_mcu.emulators.stm32.blocks import Enabled, Gpio, Random, Usart, Watchdog
from lora_mcu.emulators.stm32.core import Block, Core, Violation, arm
from lora_mcu.emulators.stm32.line import Line

KB = 1024
CODE = 0x08000000
_SLEEP_SECONDS = 0.02
_ASKING = ("lmcu_port_read", "lmcu_port_ticks")  # what waits for bytes or for time calls one of these


@dataclass(frozen=True)
class Port:
    """A UART: base, interrupt, (offset in RCC, bit) of its clock, bus, alternate function of its pins."""

    base: int
    irq: int
    enable: tuple[int, int]
    bus: str
    function: int
    low_power: bool = False


@dataclass(frozen=True)
class Part:
    """Memories and where a part's peripherals are."""

    family: str
    sram: tuple[tuple[int, int], ...]
    flash: int
    sectors: tuple[int, ...] = ()
    most: int = 0  # Hz of the core
    over: int = 0  # Hz above which over-drive is needed


_F4_SECTORS = (*[16 * KB] * 4, 64 * KB, *[128 * KB] * 7)
PARTS = {
    "stm32f405rg": Part("f4", ((0x20000000, 128 * KB), (0x10000000, 64 * KB)), 1024 * KB, _F4_SECTORS, 168_000_000,
                        168_000_000),
    "stm32f446re": Part("f4", ((0x20000000, 128 * KB),), 512 * KB, _F4_SECTORS[:8], 180_000_000, 168_000_000),
    "stm32f746ng": Part("f7", ((0x20000000, 320 * KB),), 1024 * KB, (*[32 * KB] * 4, 128 * KB, *[256 * KB] * 3),
                        216_000_000, 180_000_000),
    "stm32h743zi": Part("h7", ((0x20000000, 128 * KB), (0x24000000, 512 * KB), (0x30000000, 288 * KB),
                               (0x38000000, 64 * KB)), 2048 * KB),
    "stm32l4r5zi": Part("l4", ((0x20000000, 640 * KB),), 2048 * KB),
}  # fmt: skip

_F4_PORTS = {
    "USART1": Port(0x40011000, 37, (0x44, 4), "apb2", 7),
    "USART2": Port(0x40004400, 38, (0x40, 17), "apb1", 7),
    "USART3": Port(0x40004800, 39, (0x40, 18), "apb1", 7),
    "USART6": Port(0x40011400, 71, (0x44, 5), "apb2", 8),
}
PORTS = {
    "f4": _F4_PORTS,
    "f7": _F4_PORTS,
    "h7": {
        "USART1": Port(0x40011000, 37, (0xF0, 4), "apb2", 7),
        "USART2": Port(0x40004400, 38, (0xE8, 17), "apb1", 7),
        "USART3": Port(0x40004800, 39, (0xE8, 18), "apb1", 7),
        "USART6": Port(0x40011400, 71, (0xF0, 5), "apb2", 7),
    },
    "l4": {
        "USART1": Port(0x40013800, 37, (0x60, 14), "apb2", 7),
        "USART2": Port(0x40004400, 38, (0x58, 17), "apb1", 7),
        "USART3": Port(0x40004800, 39, (0x58, 18), "apb1", 7),
        "LPUART1": Port(0x40008000, 70, (0x5C, 0), "apb1", 8, low_power=True),
    },
}


class Machine:
    """A board with an image in its flash; ``cells`` is the flash of the adapter region."""

    def __init__(self, board: Board, elf: Path, server: socket.socket, cells: flash.Cells, count: bool = False) -> None:
        assert board.adapter_region is not None
        self.part = part = PARTS[board.mcu]
        model = arm.UC_CPU_ARM_CORTEX_M7 if part.family in ("f7", "h7") else arm.UC_CPU_ARM_CORTEX_M4
        self.core = core = Core(model, lambda: self.rcc.clocks.core, count)
        self.line = Line(server, self._look)
        self.region = board.adapter_region
        self._fill_memory(elf.with_suffix(".bin").read_bytes())
        for name, symbol in building.read_symbols(elf).items():
            if name in _ASKING:
                core.stop_at(symbol.address & ~1)
        self.power, self.rcc, self.flash = self._system(board, cells)
        self.watchdog = Watchdog(0x58004800 if part.family == "h7" else 0x40003000, lambda: core.restart("watchdog"))
        debug = Block(0x5C001000 if part.family == "h7" else 0xE0042000)
        self.blocks: list[Block] = [self.power, self.rcc, self.flash, self.watchdog, debug]
        self._peripherals(board)
        core.attach(*self.blocks, flash.Region(self.flash))
        core.connect()
        core.on_reset = self._reset
        self.line.start()

    def _fill_memory(self, image: bytes) -> None:
        code = self.region.origin - CODE
        self.core.memory(CODE, code, writable=False)
        self.core.uc.mem_write(CODE, image[:code])
        for origin, size in self.part.sram:
            self.core.memory(origin, size)

    def _system(self, board: Board, cells: flash.Cells) -> tuple[Block, clocks.Rcc, flash.Controller]:
        """Power, clocks and flash, which look at each other."""
        origin, external, bypass = self.region.origin, board.crystal_hz, board.bypass
        wait = lambda: self.flash.wait_states()  # noqa: E731
        if self.part.family == "h7":
            h7power = clocks.H7Power(0x58024800)
            return (h7power, clocks.H7(0x58024400, external, bypass, wait, h7power),
                    flash.H7(0x52002000, origin, cells))  # fmt: skip
        if self.part.family == "l4":
            power = Block(0x40007000)
            return (power, clocks.L4(0x40021000, external, bypass, wait, power),
                    flash.L4(0x40022000, origin, cells))  # fmt: skip
        power = clocks.SectoredPower(0x40007000)
        rcc = clocks.Sectored(0x40023800, external, bypass, wait, power, self.part.most, self.part.over)
        return power, rcc, flash.Sectored(0x40023C00, origin, cells, self.part.sectors)

    def _peripherals(self, board: Board) -> None:
        gpio, enable = {"h7": (0x58020000, 0xE0), "l4": (0x48000000, 0x4C)}.get(self.part.family, (0x40020000, 0x30))
        ports = [Gpio(gpio + 0x400 * i, self.rcc.enabled(enable, i)) for i in range(9)]
        chosen = PORTS[self.part.family][board.serial.peripheral]

        def routed(pin: str) -> bool:
            powered = pin[1] != "G" or self.part.family != "l4" or bool(self.power.registers.get(0x04, 0) >> 9 & 1)
            return powered and ports[ord(pin[1]) - ord("A")].routed(int(pin[2:]), chosen.function)

        self.uart = Usart(
            chosen.base, self.rcc.enabled(*chosen.enable), self.line, lambda: int(getattr(self.rcc.clocks, chosen.bus)),
            lambda: (routed(board.serial.tx), routed(board.serial.rx)), old=self.part.family == "f4",
            low_power=chosen.low_power,
        )  # fmt: skip
        self._irq = chosen.irq
        self.blocks += [*ports, self.uart]
        if not board.mcu.startswith("stm32f446"):
            base = 0x48021800 if self.part.family == "h7" else 0x50060800
            register, bit = {"h7": (0xDC, 6), "l4": (0x4C, 18)}.get(self.part.family, (0x34, 6))
            self.blocks.append(Random(base, self.rcc.enabled(register, bit), self._random_clock()))

    def _random_clock(self) -> Enabled:
        if self.part.family == "h7":
            return self.rcc.enabled(0x00, 12)
        return self.rcc.enabled(0x98, 0) if self.part.family == "l4" else lambda: self.rcc.clocks.core > 16_000_000

    def _look(self) -> None:
        """From the line's thread, some fifty times a second and when bytes come."""
        self.watchdog.look()
        self.core.poke()

    def _interrupts(self) -> list[int]:
        return [self._irq] if self.uart.pending() else []

    def _sleep(self) -> None:
        self.line.flush()
        self.line.arrived.wait(_SLEEP_SECONDS)
        self.line.arrived.clear()

    def _reset(self, cause: str) -> None:
        self.line.flush()
        self.rcc.cause = cause
        for block in self.blocks:
            block.reset()

    def power_cut(self) -> None:
        """Power off and on: nothing in RAM survives."""
        for origin, size in self.part.sram:
            self.core.uc.mem_write(origin, b"\xa5" * size)
        self.core.restart("power-on")

    def stop(self) -> None:
        """End ``run``; may be called from another thread."""
        self.core.off = self.line.closed = True

    def run(self) -> None:
        """Boot and run until ``stop``. Raises Violation."""
        self.core.run(CODE, self._interrupts, self._sleep)


def refusal(board: Board) -> str | None:
    """Why this model cannot run the board, in one line."""
    if board.mcu not in PARTS:
        return f"no model of the part {board.mcu} (board {board.identity}): there are {', '.join(PARTS)}"
    if board.adapter_region is None:
        return f"board {board.identity} has no adapter_region, which is the flash that the model keeps"
    return None


def main() -> int:
    """``BOARD firmware.elf LISTENING_SOCKET_FD FLASH_FD [count]``."""
    board, elf, server = boards.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    refused = refusal(board)
    if refused or board.adapter_region is None:
        print(refused, file=sys.stderr)
        return 1
    cells = mmap.mmap(int(sys.argv[4]), board.adapter_region.size)
    machine = Machine(board, elf, socket.socket(fileno=server), cells, sys.argv[5:] == ["count"])
    print("ready", flush=True)
    try:
        machine.run()
    except Violation as violation:
        print(f"the firmware broke a rule of {board.mcu}: {violation}", file=sys.stderr)
        time.sleep(0.1)
        return 1
    return 0

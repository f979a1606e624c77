# SPDX-License-Identifier: Apache-2.0
"""Renode's files against the boards' data: memories, line, interrupt; their register models run here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import unicorn
import unicorn.riscv_const as riscv

from lora_mcu import boards, resources
from lora_mcu.emulators import esp32c3_machine
from lora_mcu.emulators.stm32.part import PORTS

FOLDER = resources.path("renode")
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.resc"))
C3 = "esp32_c3_devkitm_1"
BOARDS = [name for name in SCRIPTS if name != C3]
FLASH = 0x08000000
REGISTERS = SimpleNamespace(
    A0=riscv.UC_RISCV_REG_A0, A1=riscv.UC_RISCV_REG_A1, A2=riscv.UC_RISCV_REG_A2, RA=riscv.UC_RISCV_REG_RA
)


def platform(board: str) -> str:
    script = (FOLDER / f"{board}.resc").read_text()
    (name,) = re.findall(r"LoadPlatformDescription \$ORIGIN/(\S+)", script)
    return (FOLDER / name).read_text()


class _Machine(dict[str, Any]):
    """What a script sees of the machine."""

    resets = 0
    ElapsedVirtualTime = SimpleNamespace(TimeElapsed=SimpleNamespace(TotalMicroseconds=0.0))

    def RequestReset(self) -> None:
        self.resets += 1


class Model:
    """A Python peripheral of a description, as Renode calls it: one scope, a request a time."""

    def __init__(self, text: str, name: str) -> None:
        (found,) = re.findall(
            rf"^{name}: Python.PythonPeripheral @ sysbus (0x\w+)\n.*?'''\n(.*?)'''", text, re.M | re.S
        )
        self.base, self._code = int(found[0], 16), compile(found[1], name, "exec")
        self.erased: list[tuple[int, int]] = []
        memory = SimpleNamespace(WriteBytes=lambda first, content: self.erased.append((first, len(content))))
        self.machine = _Machine({"sysbus.flash": memory})
        self._scope: dict[str, Any] = {
            "self": SimpleNamespace(GetMachine=lambda: self.machine),
            "System": SimpleNamespace(Array={bytes: bytes}, Byte=bytes),
        }
        self._run("init")

    def _run(self, kind: str, offset: int = 0, value: int = 0) -> int:
        request = SimpleNamespace(isInit=kind == "init", isRead=kind == "read", offset=offset, value=value)
        self._scope["request"] = request
        exec(self._code, self._scope)
        return int(request.value)

    def read(self, address: int) -> int:
        return self._run("read", address - self.base)

    def write(self, address: int, value: int) -> None:
        assert 0 <= value < 1 << 32
        self._run("write", address - self.base, value)


def test_all_boards_that_renode_is_to_run_have_a_script() -> None:
    assert [name for name in boards.names() if "renode" in boards.load(name).emulators] == SCRIPTS


@pytest.mark.parametrize("board", BOARDS)
def test_memories_and_line_are_the_boards(board: str) -> None:
    part, text = boards.load(board), platform(board)
    memories = re.findall(r"Memory.MappedMemory @ sysbus (0x\w+)\n    size: (0x\w+)", text)
    there = [(int(origin, 16), int(size, 16)) for origin, size in memories]
    for region in part.memory:
        if region.use:
            assert any(a <= region.origin and region.origin + region.size <= a + n for a, n in there), region
    family = part.family.removeprefix("stm32")
    port = PORTS[family][part.serial.peripheral]
    name = part.serial.peripheral.lower()
    line = re.search(rf"^{name}: UART\.(\S+) @ sysbus <?0x{port.base:08X}.*?-> nvic@(\d+)", text, re.M | re.S)
    assert line is not None and int(line[2]) == port.irq
    assert line[1] == ("STM32_UART" if family == "f4" else "STM32F7_USART")
    assert ("lowPowerMode" in line[0]) == port.low_power
    assert f"connector Connect sysbus.{name} line" in (FOLDER / f"{board}.resc").read_text()
    assert f"systickFrequency: {max(part.clock_hz, 168_000_000 if family == 'f4' else 0)}\n" in text


# (KEYR, CR, lock bit, start bit, control word of the erase at an offset in flash)
ERASES = {
    "stm32f4": (0x40023C04, 0x40023C10, 1 << 31, 1 << 16, lambda at: 2 | (4 + at // 0x20000) << 3 | 2 << 8),
    "stm32f7": (0x40023C04, 0x40023C10, 1 << 31, 1 << 16, lambda at: 2 | (4 + at // 0x40000) << 3 | 2 << 8),
    "stm32h7": (0x52002104, 0x5200210C, 1, 1 << 7, lambda at: 4 | 3 << 4 | (at - 0x100000) // 0x20000 << 8),
    "stm32l4": (0x40022008, 0x40022014, 1 << 31, 1 << 16, lambda at: 2 | at // 0x1000 << 3),
}


@pytest.mark.parametrize("board", ["netduinoplus2", "nucleo_f446re", "disco_f746ng", "nucleo_h743zi", "nucleo_l4r5zi"])
def test_flash_controllers_erase_what_the_driver_means(board: str) -> None:
    part = boards.load(board)
    model, region = Model(platform(board), "flash_controller"), part.adapter_region
    assert region is not None
    key, control, lock, start, word = ERASES[part.family]
    page = 0x1000 if part.family == "stm32l4" else region.erase_bytes
    areas = range(region.origin - FLASH, region.origin - FLASH + region.size, page)
    model.write(control, word(areas[0]) | start)
    assert model.erased == [] and model.read(control) & lock, "erased while locked"
    for at in areas:
        model.write(key, 0x45670123)
        model.write(key, 0xCDEF89AB)
        assert not model.read(control) & lock
        model.write(control, word(at))
        model.write(control, word(at) | start)
        assert not model.read(control) & start
        model.write(control, lock)
    assert model.erased == [(at, page) for at in areas]


@pytest.mark.parametrize(
    ("board", "control", "pairs", "switch", "select", "shift"),
    [
        ("netduinoplus2", 0x40023800, [(0, 1), (16, 17), (24, 25)], 0x40023808, 2, 2),
        ("disco_f746ng", 0x40023800, [(0, 1), (16, 17), (24, 25)], 0x40023808, 2, 2),
        ("nucleo_h743zi", 0x58024400, [(0, 2), (16, 17), (24, 25)], 0x58024410, 3, 3),
        ("nucleo_l4r5zi", 0x40021000, [(8, 10), (16, 17), (24, 25)], 0x40021008, 3, 2),
    ],
)
def test_oscillators_are_ready_when_they_are_on(
    board: str, control: int, pairs: list[tuple[int, int]], switch: int, select: int, shift: int
) -> None:
    model = Model(platform(board), "rcc")
    for on, ready in pairs:
        model.write(control, model.read(control) | 1 << on)
        assert model.read(control) >> ready & 1
        model.write(control, model.read(control) & ~(1 << on))
        assert not model.read(control) >> ready & 1
    model.write(switch, select)
    assert model.read(switch) == select | select << shift


def test_c3_memories_and_uart_are_the_parts() -> None:
    part, text = boards.load(C3), platform(C3)
    found = re.findall(r"Memory.MappedMemory @ \{ sysbus (0x\w+); sysbus (0x\w+) \}\n    size: (0x\w+)", text)
    flash, sram = ([int(word, 16) for word in words] for words in found)
    assert flash == [esp32c3_machine.CODE, esp32c3_machine.CONSTANTS, part.region("flash").size]
    assert sram == [esp32c3_machine.SRAM, esp32c3_machine.RAM_CODE, esp32c3_machine.SRAM_BYTES]
    (held,) = part.sram
    assert held.origin == sram[0] and held.size <= sram[2]
    remembering = {int(at, 16): int(n, 16) for at, n in re.findall(r"@ sysbus (0x6\w+)\n    size: (0x\w+)\n", text)}
    for address in esp32c3_machine.MEMORIES:
        assert any(at <= address < at + n for at, n in remembering.items()), hex(address)
    script, uart = (FOLDER / f"{C3}.resc").read_text(), (FOLDER / "esp32c3_uart.cs").read_text()
    assert "uart0: UART.LoraMcuEsp32C3Uart @ sysbus 0x60000000\n" in text and "class LoraMcuEsp32C3Uart" in uart
    assert script.index("esp32c3_uart.cs") < script.index("LoadPlatformDescription")
    assert "cpu PC 0x42000008" in script  # behind the magic numbers


def test_c3_resets_and_counts() -> None:
    rtc, timer = Model(platform(C3), "rtc"), Model(platform(C3), "systimer")
    rtc.write(0x60008090, 7)
    assert (rtc.read(0x60008090), rtc.machine.resets) == (7, 0)
    rtc.write(0x60008000, 1 << 31)
    assert rtc.machine.resets == 1
    timer.machine.ElapsedVirtualTime.TimeElapsed.TotalMicroseconds = 2.0**30
    assert timer.read(0x60023044) == 0
    timer.write(0x60023004, 1 << 30)
    assert timer.read(0x60023004) == 1 << 29
    assert (timer.read(0x60023040), timer.read(0x60023044)) == (4, 0)


def test_c3_rom_is_its_source_and_does_what_the_driver_expects(tmp_path: Path) -> None:
    words = re.findall(r"sysbus WriteDoubleWord (0x\w+) (0x\w+)", (FOLDER / f"{C3}.resc").read_text())
    core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    for address in (0x40000000, 0x3C000000, 0x3FC80000):
        core.mem_map(address, 0x4000)
    for at, word in words:
        core.mem_write(int(at, 16), int(word, 16).to_bytes(4, "little"))

    if shutil.which("riscv64-unknown-elf-gcc"):
        flags = ["-march=rv32imc", "-misa-spec=2.2", "-mabi=ilp32", "-nostdlib", "-Wl,-Ttext=0x40000000", "-Wl,-e0"]
        source, elf, image = FOLDER / "esp32c3_rom.S", tmp_path / "rom.elf", tmp_path / "rom.bin"
        subprocess.run(["riscv64-unknown-elf-gcc", *flags, "-o", elf, source], check=True)
        subprocess.run(["riscv64-unknown-elf-objcopy", "-O", "binary", elf, image], check=True)
        content = image.read_bytes()
        assert bytes(core.mem_read(0x40000000, len(content))) == content

    def call(offset: int, *arguments: int) -> int:
        for register, value in zip((REGISTERS.A0, REGISTERS.A1, REGISTERS.A2), arguments, strict=False):
            core.reg_write(register, value)
        core.reg_write(REGISTERS.RA, 0x40003000)
        core.emu_start(0x40000000 + offset, 0x40003000)
        return int(core.reg_read(REGISTERS.A0))

    cells = bytearray(0x4000)
    assert call(0x128, 2) == 0
    cells[0x2000:0x3000] = b"\xff" * 0x1000
    assert core.mem_read(0x3C000000, 0x4000) == cells
    for value in (b"\x0f\xf0\xaa\x55", b"\xff\x10\xff\x05"):
        core.mem_write(0x3FC80010, value * 2)
        assert call(0x12C, 0x2FF8, 0x3FC80010, 8) == 0
    cells[0x2FF8:0x3000] = b"\x0f\x10\xaa\x05" * 2
    assert core.mem_read(0x3C000000, 0x4000) == cells
    assert [call(offset, 9) for offset in (0x134, 0x140, 0x4D4, 0x524, 0x528)] == [0] * 5

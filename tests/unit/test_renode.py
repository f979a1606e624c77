# SPDX-License-Identifier: Apache-2.0
"""Renode's files against the boards' data: memories, line, interrupt; their register models run here."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from lora_mcu import boards, resources
from lora_mcu.emulators.stm32.part import PORTS

FOLDER = resources.path("renode")
BOARDS = sorted(file.stem for file in FOLDER.glob("*.resc"))
FLASH = 0x08000000


def platform(board: str) -> str:
    script = (FOLDER / f"{board}.resc").read_text()
    (name,) = re.findall(r"LoadPlatformDescription \$ORIGIN/(\S+)", script)
    return (FOLDER / name).read_text()


class Model:
    """A Python peripheral of a description, as Renode calls it: one scope, a request a time."""

    def __init__(self, text: str, name: str) -> None:
        (found,) = re.findall(
            rf"^{name}: Python.PythonPeripheral @ sysbus (0x\w+)\n.*?'''\n(.*?)'''", text, re.M | re.S
        )
        self.base, self._code = int(found[0], 16), compile(found[1], name, "exec")
        self.erased: list[tuple[int, int]] = []
        memory = SimpleNamespace(WriteBytes=lambda first, content: self.erased.append((first, len(content))))
        machine = {"sysbus.flash": memory}
        self._scope: dict[str, Any] = {
            "self": SimpleNamespace(GetMachine=lambda: machine),
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


def test_all_stm32_boards_have_a_script() -> None:
    assert [name for name in boards.names() if boards.load(name).family.startswith("stm32")] == BOARDS


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

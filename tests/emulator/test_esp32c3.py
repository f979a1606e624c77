# SPDX-License-Identifier: Apache-2.0
"""ESP32-C3: a direct-boot image, run by Unicorn, trains in soft float to the twin's bytes."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import unicorn
from elftools.elf.elffile import ELFFile
from projects import HAR, Compiled, compile_and_build
from unicorn.riscv_const import UC_RISCV_REG_A0 as A0
from unicorn.riscv_const import UC_RISCV_REG_A1 as A1
from unicorn.riscv_const import UC_RISCV_REG_A2 as A2
from unicorn.riscv_const import UC_RISCV_REG_RA as RA

import lora_mcu
from lora_mcu import boards, building, emulators
from lora_mcu.emulators import esp32c3_machine
from lora_mcu.emulators.esp32c3 import Esp32C3
from lora_mcu.errors import ToolError

CODE, CONSTANTS = 0x42000000, 0x3C000000
SRAM = range(0x3FC80000, 0x3FCDE000)
MAGIC = bytes.fromhex("1d04dbae" * 2)


@pytest.fixture(scope="module")
def c3(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_and_build(tmp_path_factory.mktemp("c3") / "p", HAR, "esp32_c3_devkitm_1", adapt="all")


def test_flash_image_is_what_the_rom_boots(c3: Compiled) -> None:
    """The magic number twice, the entry right behind it, and every byte where both buses see it."""
    image = c3.result.elf.with_suffix(".bin").read_bytes()
    assert image[:8] == MAGIC
    with c3.result.elf.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_entry"] == CODE + 8
        text, rodata, code = (elf.get_section_by_name(f".{name}") for name in ("text", "rodata", "ram_code"))
        assert (text["sh_addr"], rodata["sh_addr"]) == (CODE, CONSTANTS + text["sh_size"])
        assert image == text.data() + rodata.data() + code.data()
    place = c3.result.symbols["lmcu_ram_code"]
    assert code["sh_addr"] == place.address + 0x700000 and code["sh_size"] <= place.size
    assert c3.result.symbols["trap"].address == code["sh_addr"] and code["sh_addr"] % 256 == 0
    (jump,) = struct.unpack("<I", image[8:12])
    assert jump == 0x30047073  # csrci mstatus, 8: interrupts off


def test_report_equals_image_to_the_byte(c3: Compiled) -> None:
    report, symbols = c3.program.report().to_dict(), c3.result.symbols
    for name, size in {**report["sram"], **report["constants"]}.items():
        assert symbols[name].size == size, name
    assert c3.result.ram_bytes == report["sram_bytes"]
    in_ram = {name for name, symbol in symbols.items() if symbol.writable and name.startswith("lmcu_")}
    assert in_ram == set(report["sram"])
    assert all(s.address in SRAM and s.address + s.size <= SRAM.stop for s in symbols.values() if s.writable)
    assert symbols["lmcu_stack"].address == SRAM.start  # an overflow leaves RAM and traps


def test_soft_float_gives_the_twins_bytes(c3: Compiled) -> None:
    data = np.load(HAR.with_suffix(".npz"), allow_pickle=False)
    chosen = np.concatenate([np.flatnonzero(data["y"] == label)[:2] for label in range(6)])
    x, y = data["x"][chosen], data["y"][chosen]
    twin = c3.program.twin()
    initial = twin.adapter().to_factors(twin.info)
    with lora_mcu.emulate(c3.folder) as url, lora_mcu.Device(url) as device:
        results = []
        for learner in (twin, device):
            outputs = learner.infer(x[:2])
            learner.configure(lr=0.01, momentum=0.5, clip_norm=4.0, batch_size=4, seed=7)
            stats = learner.train(x, y)
            assert (stats.steps, stats.skipped) == (3, 0)
            results.append((outputs.tobytes(), stats, learner.adapter().to_factors(learner.info)))
        assert 0 < device.statistics().stack_used < 4096
    assert results[0] == results[1]
    assert results[0][2] != initial


def test_upload_calls_esptool(c3: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(c3.folder, tmp_path / "p")
    (tmp_path / "esptool").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\necho Hash of data verified.\n')
    (tmp_path / "esptool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = [sys.executable, "-m", "platformio", "run", "-t", "upload", "--upload-port", "/dev/ttyUSB7"]
    run = subprocess.run(command, cwd=tmp_path / "p", capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    image = ".pio/build/esp32_c3_devkitm_1/firmware.bin"
    said = (tmp_path / "said").read_text().split()
    assert said == ["--chip", "esp32c3", "--port", "/dev/ttyUSB7", "write-flash", "0x0", image]


def test_image_without_the_magic_number_is_refused(c3: Compiled, tmp_path: Path) -> None:
    (tmp_path / "firmware.bin").write_bytes(bytes(4096))
    with pytest.raises(ToolError, match=r"ended \(exit code 1\): .*firmware\.bin is no direct-boot image"):
        Esp32C3(boards.load("esp32_c3_devkitm_1")).start(tmp_path / "firmware.elf")


def test_missing_unicorn_names_its_extra(c3: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    machine = emulators.create(c3.program.board)
    with pytest.raises(ToolError, match=r"^emulator unicorn is not installed: pip install 'lora-mcu\[unicorn\]'$"):
        machine.start(building.image(c3.folder))


def test_slots_outlive_reset_and_emulator(c3: Compiled, tmp_path: Path) -> None:
    """The driver's own way through the ROM; the cells are a file."""
    values = np.random.default_rng(1).uniform(-0.05, 0.05, c3.program.info.parameters)
    alice = lora_mcu.Adapter.from_factors(c3.program.info, values.astype("<f2").tobytes())
    with lora_mcu.emulate(c3.folder, flash=tmp_path / "flash") as url, lora_mcu.Device(url) as device:
        device.load(alice)
        device.save_slot("alice")
        device.select_slot("alice")
        device.reset()
        device.reboot()
        assert device.adapter() == alice
    with lora_mcu.emulate(c3.folder, flash=tmp_path / "flash") as url, lora_mcu.Device(url) as device:
        assert device.adapter() == alice and device.slots().default == "alice"


def test_the_model_insists_on_the_roms_rules() -> None:
    """Planted mistakes of a flash driver: code in flash, a cache that is on, another place, a stale cache."""
    core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    for address, protection in esp32c3_machine.WINDOWS:
        core.mem_map(address, esp32c3_machine.FLASH_BYTES, protection)
    core.mem_map(SRAM.start, 0x1000)
    core.mem_map(0x40381000, 0x1000)
    core.mem_write(SRAM.start, b"\x0f\x00\x00\x00")
    cells = mmap.mmap(-1, 0x20000)
    rom = esp32c3_machine.Rom(core, cells)
    first = esp32c3_machine.FLASH_BYTES - len(cells)

    def call(offset: int, *arguments: int, caller: int = 0x40381000) -> str:
        registers = zip((RA, A0, A1, A2), (caller, *arguments), strict=False)
        for register, value in registers:
            core.reg_write(register, value)
        rom.broken = ""
        core.emu_start(esp32c3_machine.ROM + offset, caller, count=1)
        return rom.broken

    assert "from 0x42000100, which is not in RAM" in call(0x524, caller=CODE + 0x100)
    assert "before the cache was suspended" in call(0x128, first // 4096)
    assert call(0x524) == "" and core.reg_read(A0) == esp32c3_machine.AUTOLOAD
    with pytest.raises(unicorn.UcError, match="FETCH_PROT"):  # as whatever returns into flash now
        core.emu_start(CODE, CODE + 2)
    assert "and the chip described" in call(0x128, first // 4096)
    assert call(0x134, 0, 0x400000, 0x10000) == ""
    assert "erase of a locked flash" in call(0x128, first // 4096)
    assert call(0x140) == ""
    assert "erase at 0x001000, outside of the adapter region" in call(0x128, 1)
    assert call(0x128, first // 4096) == "" and cells[:4096] == b"\xff" * 4096 and cells[4096:] == bytes(0x1F000)
    assert "words in SRAM are wanted" in call(0x12C, first, SRAM.start + 1, 4)
    assert call(0x12C, first, SRAM.start, 4) == "" and cells[:4] == b"\x0f\0\0\0"
    assert "resumed with 1 instead" in call(0x528, 1)
    assert call(0x528, esp32c3_machine.AUTOLOAD) == ""
    assert bytes(core.mem_read(CONSTANTS + first, 4)) == bytes(4), "the cache still knows the old cells"
    assert call(0x4D4, CONSTANTS + first, 4) == "" and bytes(core.mem_read(CONSTANTS + first, 4)) == b"\x0f\0\0\0"
    assert "a call of 0x40000200 in the ROM" in call(0x200)

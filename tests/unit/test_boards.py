# SPDX-License-Identifier: Apache-2.0
"""Boards as data: what is there, and what a wrong file is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import boards as benchmark
from lora_mcu import boards, emulators, resources
from lora_mcu.emulators.stm32.part import refusal
from lora_mcu.errors import BoardError, ToolError

GOOD = (resources.path("boards") / "netduinoplus2.toml").read_text(encoding="utf-8")


def test_names() -> None:
    assert boards.names() == sorted(boards.names())
    assert {"native", "netduinoplus2"} <= set(boards.names())


@pytest.mark.parametrize("name", boards.names())
def test_every_board_loads_and_names_itself(name: str) -> None:
    board = boards.load(name)
    assert board.identity == name
    assert board.sram_bytes % 8 == 0
    assert set(board.emulators) <= set(boards.EMULATORS)


def test_the_document_says_for_every_board_what_ran() -> None:
    """docs/boards.md has a row for each board; `python benchmarks/boards.py` makes it from what really happened."""
    text = (resources.path("boards").parent / "docs" / "boards.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if row.startswith("| `")}
    assert set(rows) == {f"`{name}`" for name in boards.names()}
    for name in boards.names():
        built, ran, not_run = rows[f"`{name}`"].split("|")[3:6]
        assert "HAR" in built and "KWS" in built
        for emulator in boards.load(name).emulators:
            assert benchmark.NAMES[emulator] in ran + not_run
        assert (ran.strip() == "-") == boards.load(name).is_library


def test_a_board_that_nothing_emulates_says_so() -> None:
    with pytest.raises(ToolError, match=r"^no emulator runs esp32dev: flash the board itself"):
        emulators.create(boards.load("esp32dev"))


def test_netduinoplus2_is_the_part_that_it_says() -> None:
    board = boards.load("netduinoplus2")
    sram = board.region("sram")
    assert (sram.origin, sram.size, board.sram_bytes) == (0x20000000, 131072, 131072)
    assert board.flash_bytes == 1024 * 1024 - 2 * 128 * 1024
    assert board.clock_hz == 168_000_000
    assert board.pointer_bytes == 4
    assert [region.name for region in board.memory if not region.use] == ["ccm"]
    assert board.port_symbols == ("lmcu_port_state", "lmcu_rx_ring", "lmcu_stack")


def test_native_is_64_megabytes_without_a_stack_of_its_own() -> None:
    board = boards.load("native")
    assert board.sram_bytes == 64 * 1024 * 1024
    assert board.pointer_bytes == 8
    assert board.port_symbols == ("lmcu_port_state", "lmcu_rx_ring")


def test_unknown_board_names_near_ones() -> None:
    with pytest.raises(BoardError, match=r"^unknown board 'netduino2plus'; did you mean netduinoplus2\?$"):
        boards.load("netduino2plus")
    with pytest.raises(BoardError, match=r"^unknown board 'zzz'; known boards: .*native, netduinoplus2"):
        boards.load("zzz")
    with pytest.raises(BoardError, match="unknown board"):
        boards.load("../boards/native")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('family = "stm32f4"', 'family = "avr"',
         "family must be one of esp32c3, library, mps2, native, stm32f4, stm32f7, stm32h7, stm32l4, found 'avr'"),
        ('core = "cortex-m4f"\n', "",
         "core must be one of cortex-m4f, cortex-m7f, cortex-m55, rv32imc, xtensa-lx6, xtensa-lx7, host, but"),
        ('features = ["dsp", "fpu"]', 'features = ["x"]', "features must be a list of dsp, fpu, mve, found ['x']"),
        ("pointer_bytes = 4", "pointer_bytes = true", "pointer_bytes must be an integer from 4 to 8, found True"),
        ("baud = 115_200", "baud = 50", "serial.baud must be an integer from 1200 to 4000000, found 50"),
        ('tx = "PB6"', 'tx = "B6"', "serial.tx must be a pin like \"PB6\", found 'B6'"),
        ('"USART1"\n', '"UART9"\n', "serial.peripheral must be one of USART1, USART2, USART3, USART6, found 'UART9'"),
        ("use = false", "use = 1", "memory[1].use must be true or false, found 1"),
        ("size = 0x2_0000\n", 'size = "1K"\n', "memory[0].size must be an integer from 8 to 2147483648, found '1K'"),
        ('kind = "sram"\norigin = 0x1000', 'kind = "rom"\norigin = 0x1000',
         "memory[1].kind must be one of sram, flash, found 'rom'"),
        ('kind = "sram"\norigin = 0x1000_0000\nsize = 0x1_0000\nuse = false',
         'kind = "flash"\norigin = 0x1000_0000\nsize = 0x1_0000\nuse = true',
         "memory must be a list with exactly one region of kind flash and use = true"),
        ("size = 0x2_0000\nuse = true", "size = 0x2_0000\nuse = false",
         "memory must be a list with a region of kind sram and use = true"),
        ("pointer_bytes = 4", 'pointer_bytes = 4\nweights = "rom"', "weights must be one of flash, sram, found 'rom'"),
        ("[clock]\n", "[clock]\nspeed = 1\n", "clock.speed is not known; allowed are hz, crystal_hz, bypass"),
        ('mcu = "', 'colour = "red"\nmcu = "', "colour is not known; allowed are identity, description"),
        ("origin = 0x080C_0000", "origin = 0x080A_0000", "adapter_region.origin must be 2 erase areas before the end"),
        ("[serial]", "[[serial]]", "serial must be a table"),
        ("[clock]", "[clock", "not TOML"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_key_and_choices(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(BoardError) as refused:
        boards.parse(GOOD.replace(old, new, 1), "boards/mine.toml")
    assert str(refused.value).startswith(f"boards/mine.toml: {message}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("origin = 0x1000_0000", "origin = 0x2001_fff8",
         "memory regions must not overlap, found sram (0x20000000 to 0x2001ffff) and ccm (0x2001fff8 to 0x2002fff7):"
         " correct origin or size"),
        ('description = "', 'description = "*/ int x; ', "description must be one line of at most 200 characters"),
        ('description = "', 'description = "a\\nb', "description must be one line of at most 200 characters"),
        ('name = "ccm"', 'name = "sram"', "memory has two regions of the name sram: give one another name"),
        ('name = "ccm"', 'name = "c c"', "memory[1].name must be letters, digits and _, a letter first, found 'c c'"),
        ("origin = 0x2000_0000\nsize = 0x2_0000", "origin = 0xFFFF_0000\nsize = 0x2_0000",
         "memory[0].size must end within 32 bits of address, found sram (0xffff0000 to 0x10000ffff): make it smaller"),
        ("size = 0x2_0000", "size = 0", "memory[0].size must be an integer from 8 to 2147483648, found 0"),
        ("size = 0x2_0000", "size = 0x2_0004", "memory[0].size must be a multiple of 8, found 0x20004"),
        ("origin = 0x2000_0000", "origin = 0x2000_0002", "memory[0].origin must be a multiple of 8, found 0x20000002"),
        ("origin = 0x2000_0000", "origin = -8", "memory[0].origin must be an integer from 0 to 4294967295, found -8"),
        ("origin = 0x080C_0000", "origin = 0x0900_0000",
         "adapter_region.origin must be an integer from 134217728 to 135266303, found 150994944"),
        ("origin = 0x080C_0000\nerase_bytes = 0x2_0000", "origin = 0x0800_0000\nerase_bytes = 0x8_0000",
         "adapter_region.areas must leave 32768 bytes of flash for code, found 0 of 1048576: make the region smaller"),
        ("origin = 0x080C_0000\nerase_bytes = 0x2_0000", "origin = 0x0806_8000\nerase_bytes = 0xC_C000\n#",
         "adapter_region.origin must be 2 erase areas before the end of flash, found 134643712"),
        ("origin = 0x080C_0000\nerase_bytes = 0x2_0000", "origin = 0x080D_0000\nerase_bytes = 0x1_8000",
         "adapter_region.origin must be a whole number of erase areas (0x18000 bytes) behind the start of flash"),
        ("origin = 0x080C_0000\nerase_bytes = 0x2_0000", "origin = 0x080F_F7FE\nerase_bytes = 1025",
         "adapter_region.erase_bytes must be a multiple of 1024, found 1025"),
        ("areas = 2", "areas = 0", "adapter_region.areas must be an integer from 2 to 16, found 0"),
        ('core = "cortex-m4f"', 'core = "rv32imc"', "core must be cortex-m4f for family stm32f4, found 'rv32imc'"),
        ('mcu = "stm32f405rg"', 'mcu = "stm32f746"', "mcu must begin with 'stm32f4', the family, found 'stm32f746'"),
        ('\nboard = "netduinoplus2"', '\nboard = "netduino"', "platformio.board must be 'netduinoplus2' like identity"),
        ('\nboard = "netduinoplus2"', '\nboard = "../../x"', "platformio.board must be letters, digits, - and _"),
        ('identity = "netduinoplus2"', 'identity = "Net duino"', "identity must be small letters, digits and _, like"),
        ("crystal_hz = 25_000_000", "crystal_hz = 0\nbypass = true", "clock.bypass must be false where crystal_hz"),
    ],
)  # fmt: skip
def test_impossible_parts_are_told_key_limit_and_way_out(old: str, new: str, message: str) -> None:
    test_wrong_files_are_told_key_and_choices(old, new, message)


def test_a_bench_that_is_not_known() -> None:
    bench = (resources.path("boards") / "mps2_an500.toml").read_text(encoding="utf-8")
    with pytest.raises(BoardError, match=r"^b\.toml: mcu must be an500 or an547 for family mps2, found 'an521'$"):
        boards.parse(bench.replace('mcu = "an500"', 'mcu = "an521"'), "b.toml")


def test_a_flash_without_room_for_code() -> None:
    library = (resources.path("boards") / "esp32dev.toml").read_text(encoding="utf-8")
    with pytest.raises(BoardError, match=r"^b\.toml: memory must leave 32768 bytes of flash for code, found 4096 of"):
        boards.parse(library.replace("size = 0x10_0000", "size = 0x1000"), "b.toml")


def test_an_emulator_that_does_not_know_the_part_says_so() -> None:
    mine = boards.parse(GOOD.replace('"netduinoplus2"', '"mine"'), "boards/mine.toml")
    with pytest.raises(ToolError, match=r"^QEMU has no machine for board mine: it has them for mps2_an500, "):
        emulators.create(mine)
    other = boards.parse(GOOD.replace('"stm32f405rg"', '"stm32f410"'), "boards/mine.toml")
    assert str(refusal(other)).startswith(
        "no model of the part stm32f410 (board netduinoplus2): there are stm32f405rg, "
    )
    bare = boards.parse(GOOD[: GOOD.index("[adapter_region]")] + GOOD[GOOD.index("[platformio]") :], "boards/mine.toml")
    assert str(refusal(bare)).startswith("board netduinoplus2 has no adapter_region")


def test_loading_boards_is_cheap() -> None:
    script = (
        "import sys, lora_mcu.boards as b; b.load('native')\n"
        "print([name for name in ('numpy', 'pydantic') if name in sys.modules])\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"

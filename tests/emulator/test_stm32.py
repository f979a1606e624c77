# SPDX-License-Identifier: Apache-2.0
"""STM32 boards: the report is the image, and the image boots, finds its clock and trains in a model of its part."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from projects import HAR, Compiled, assert_report_is_image, compile_and_build

import lora_mcu
from lora_mcu import Device, emulators
from lora_mcu.adapters import Adapter
from lora_mcu.boards import Board
from lora_mcu.emulators.stm32 import clocks, flash
from lora_mcu.emulators.stm32.core import Block, BusFault, Violation
from lora_mcu.emulators.stm32.part import Machine
from lora_mcu.session.learner import Learner

# board: (Hz that HELLO says, from an external clock)
BOARDS = {
    "feather_stm32f405": (168_000_000, 1),
    "nucleo_f446re": (168_000_000, 1),
    "disco_f746ng": (216_000_000, 1),
    "nucleo_h743zi": (400_000_000, 1),
    "nucleo_l4r5zi": (120_000_000, 0),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Compiled]:
    """The demo model, all layers adapted, built for a board once a session."""
    return cache(lambda board: compile_and_build(tmp_path_factory.mktemp("stm32") / board, HAR, board, adapt="all"))


def train(learner: Learner) -> bytes:
    data = np.load(HAR.with_suffix(".npz"), allow_pickle=False)
    chosen = np.concatenate([np.flatnonzero(data["y"] == label)[:2] for label in range(6)])
    learner.configure(lr=0.01, momentum=0.5, batch_size=4, seed=7)
    stats = learner.train(data["x"][chosen], data["y"][chosen])
    assert (stats.steps, stats.skipped) == (3, 0)
    return learner.adapter().to_factors(learner.info)


@pytest.mark.parametrize("board", BOARDS)
def test_report_is_image_and_the_image_trains_the_twins_bytes(board: str, built: Callable[[str], Compiled]) -> None:
    compiled = built(board)
    assert_report_is_image(compiled)
    part = compiled.program.board
    ram = [range(m.origin, m.origin + m.size) for m in part.memory if m.kind == "sram" and m.use]
    flash = part.region("flash").origin
    code = range(flash, flash + part.flash_bytes)
    for name, symbol in compiled.result.symbols.items():
        assert any(symbol.address & ~1 in r and symbol.address + symbol.size <= r.stop for r in [*ram, code]), name
    for region in compiled.program.report().regions:
        held = next(m for m in part.sram if m.name == region["name"])
        for name in region["symbols"]:
            assert held.origin <= compiled.result.symbols[name].address < held.origin + region["used"], name
    pointer, entry = struct.unpack("<II", compiled.result.elf.with_suffix(".bin").read_bytes()[:8])
    assert (pointer, entry - 1 in code) == (ram[0].start + 4096, True)  # an overflow of the stack leaves RAM and faults
    with lora_mcu.emulate(compiled.folder, "unicorn") as url, lora_mcu.Device(url) as device:
        assert (device.hello.clock_hz, device.hello.clock_source) == BOARDS[board]
        assert train(device) == train(compiled.program.twin())


@contextmanager
def running(compiled: Compiled, board: Board, cells: bytearray | None = None) -> Iterator[tuple[Machine, Device]]:
    """The machine in a thread of this process, and the host's end of it; what the model refuses is raised here."""
    refused: list[BaseException] = []
    assert board.adapter_region is not None
    flash = bytearray(b"\xff" * board.adapter_region.size) if cells is None else cells

    def run() -> None:
        try:
            machine.run()
        except BaseException as error:
            refused.append(error)

    with socket.create_server(("127.0.0.1", 0)) as server:
        machine = Machine(board, compiled.result.elf, server, flash)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            with Device(f"socket://127.0.0.1:{server.getsockname()[1]}", timeout=1.5, retries=1) as device:
                yield machine, device
        finally:
            machine.stop()
            thread.join(10)
            if refused:
                raise refused[0]


def test_without_the_external_clock_the_internal_one_takes_over(built: Callable[[str], Compiled]) -> None:
    """The fallback after a bounded wait, at the same speed; the model's oscillator never starts."""
    compiled = built("nucleo_h743zi")
    board = replace(compiled.program.board, crystal_hz=0)
    with running(compiled, board) as (_, device):
        assert (device.hello.clock_hz, device.hello.clock_source) == (400_000_000, 0)


def test_counts_instructions(built: Callable[[str], Compiled]) -> None:
    compiled = built("nucleo_l4r5zi")
    machine = emulators.create(compiled.program.board, "unicorn", icount=True)
    try:
        with lora_mcu.Device(machine.start(compiled.result.elf)) as device:
            device.infer(np.load(HAR.with_suffix(".npz"))["x"][:1])
            ticks = device.statistics().work_ticks
    finally:
        machine.stop()
    assert 100_000 < ticks < 300_000  # QEMU counts 0.18 million


def test_the_model_insists_on_clocks_and_wait_states() -> None:
    """A planted mistake: the switch to the PLL before wait states, and a PLL beyond its limits."""
    rcc = clocks.Sectored(0, 8_000_000, True, lambda: 0, Block(0), 168_000_000, 168_000_000)
    rcc.write(0x00, 1 | 1 << 16 | 1 << 18)
    rcc.write(0x04, 8 | 336 << 6 | 1 << 22 | 7 << 24)
    rcc.write(0x00, 1 | 1 << 16 | 1 << 18 | 1 << 24)
    with pytest.raises(Violation, match="APB1 of 168000000 Hz"):
        rcc.write(0x08, 2)
    with pytest.raises(Violation, match="0 wait states are too few for 168000000 Hz"):
        rcc.write(0x08, 2 | 5 << 10 | 4 << 13)
    with pytest.raises(Violation, match="changed while it is on"):
        rcc.write(0x04, 8 | 336 << 6)
    rcc.write(0x00, 1)
    rcc.write(0x04, 8 | 400 << 6 | 1 << 22)
    with pytest.raises(Violation, match="PLL input of 8000000 Hz is outside"):
        rcc.write(0x04, 2 | 200 << 6)
        rcc.write(0x00, 1 | 1 << 24)


def some_adapter(compiled: Compiled, seed: int) -> Adapter:
    info = compiled.program.info
    values = np.random.default_rng(seed).uniform(-0.05, 0.05, info.parameters)
    return Adapter.from_factors(info, values.astype("<f2").tobytes())


@pytest.mark.parametrize("board", ["nucleo_f446re", "disco_f746ng", "nucleo_h743zi", "nucleo_l4r5zi"])
def test_flash_driver_keeps_adapters_through_cuts(board: str, built: Callable[[str], Compiled]) -> None:
    """Keys, erase, program, ECC as the manual says, or the model refuses; a cut leaves the old or the new adapter."""
    compiled = built(board)
    part, known = compiled.program.board, [some_adapter(compiled, seed) for seed in range(3)]
    assert part.adapter_region is not None
    cells = bytearray(b"\x5a" * part.adapter_region.size)  # not even erased
    with running(compiled, part, cells) as (machine, device):
        device.load(known[0])
        device.save_slot("user")
        assert machine.flash.locked
    torn: set[int] = set()
    for cut in (40,):  # operations of the flash before the power goes: a record's header, some of its factors
        with running(compiled, part, cells) as (machine, device):
            machine.flash.torn = torn
            device.load_slot("user")
            before = device.adapter()
            assert before in known
            device.load(known[1 if before == known[0] else 2])
            machine.flash.cut_at, machine.flash.on_cut = cut, machine.power_cut
            with pytest.raises(lora_mcu.DeviceError):
                device.save_slot("user")
            assert machine.flash.cut_at == 0
            torn = machine.flash.torn
    with running(compiled, part, cells) as (machine, device):
        machine.flash.torn = torn
        device.load_slot("user")
        assert device.adapter() in known
        device.load(known[2])
        device.save_slot("user")
        assert device.statistics().reset_cause == 1  # LMCU_RESET_POWER
    with running(compiled, part, cells) as (_, device):
        device.load_slot("user")
        assert device.adapter() == known[2]


def test_the_flash_model_insists_on_the_order_of_registers() -> None:
    """Planted mistakes: no key, a wrong key, a write while busy, a word programmed twice, an erase of code."""
    h7 = flash.H7(0, 0x081C0000, bytearray(b"\xff" * 0x40000))
    with pytest.raises(Violation, match="locked"):
        h7.write(0x10C, 2)
    for key in flash.KEYS:
        h7.write(0x104, key)
    h7.write(0x10C, 2 | 3 << 4)
    for at in range(0, 32, 4):
        h7.program(at, 4, 0)
    with pytest.raises(Violation, match="busy"):
        h7.write(0x10C, 2)
    while h7.read(0x110) & 7:
        pass
    for at in range(0, 32, 4):
        h7.program(at, 4, 0)
    with pytest.raises(BusFault):
        h7.fetch(4, 4)
    while h7.read(0x110) & 7:
        pass
    with pytest.raises(Violation, match="not the adapter region"):
        h7.write(0x10C, 4 | 0 << 8 | 1 << 7)
    l4 = flash.L4(0, 0x081F8000, bytearray(b"\xff" * 0x8000))
    with pytest.raises(Violation, match="wrong key"):
        l4.write(0x08, 1)

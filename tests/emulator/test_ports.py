# SPDX-License-Identifier: Apache-2.0
"""The ports by themselves: bytes through the interrupt, 64-bit ticks, sleep, reset, faults, stack."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from projects import PORT_BOARDS, greet

import lora_mcu
from lora_mcu import boards, building, emulators
from lora_mcu.link.codes import ResetCause

RING = 2048
STACK = 4096


class Line:
    """An open line to port_main.c."""

    def __init__(self, url: str) -> None:
        self.port = serial.serial_for_url(url, baudrate=115200, timeout=20)
        greet(self.port)

    def exchange(self, request: bytes, ending: bytes) -> bytes:
        self.port.write(request)
        return bytes(self.port.read_until(ending))

    def ask(self, letter: bytes) -> int:
        return int(self.exchange(letter, b"\n"), 16)

    def close(self) -> None:
        self.port.close()


@pytest.fixture(params=PORT_BOARDS)
def project(request: pytest.FixtureRequest, port_projects: dict[str, Path]) -> Path:
    return port_projects[request.param]


@contextmanager
def running(project: Path) -> Iterator[Line]:
    with lora_mcu.emulate(project) as url:
        line = Line(url)
        try:
            yield line
        finally:
            line.close()


@pytest.fixture
def line(project: Path) -> Iterator[Line]:
    with running(project) as line:
        yield line


@pytest.fixture(params=[board for board in PORT_BOARDS if board != "native"])
def bare(request: pytest.FixtureRequest, port_projects: dict[str, Path]) -> Iterator[Line]:
    with running(port_projects[request.param]) as line:
        yield line


@pytest.fixture
def stm32(port_projects: dict[str, Path]) -> Iterator[Line]:
    with running(port_projects["netduinoplus2"]) as line:
        yield line


@pytest.fixture
def native(port_projects: dict[str, Path]) -> Iterator[Line]:
    with running(port_projects["native"]) as line:
        yield line


def test_every_byte_value_comes_back_in_order(line: Line) -> None:
    quiet = bytes(b for b in range(256) if chr(b) not in "TICESUMLBRFWQ")
    sent = quiet * 20
    for start in range(0, len(sent), RING // 2):
        piece = sent[start : start + RING // 2]
        line.port.write(piece)
        assert line.port.read(len(piece)) == piece


def test_a_byte_wakes_a_sleeping_core(line: Line) -> None:
    seconds = []
    for _ in range(101):
        time.sleep(0.002)  # long enough to fall asleep
        start = time.monotonic()
        assert line.exchange(b"x", b"x") == b"x"
        seconds.append(time.monotonic() - start)
    assert statistics.median(seconds) < 0.02  # the next wrap of SysTick would come after 0.05 s on average


def test_a_full_ring_drops_what_comes_later_and_recovers(stm32: Line) -> None:
    sent = bytes(b"abcdefghijklmnopqrstuvwxyz" * 100)
    stm32.port.write(b"B")
    time.sleep(0.05)
    stm32.port.write(sent)
    assert stm32.port.read(RING) == sent[:RING]
    stm32.port.timeout = 0.5
    assert stm32.port.read(1) == b""
    assert stm32.exchange(b"y", b"y") == b"y"


def test_a_busy_process_loses_nothing(native: Line) -> None:
    sent = bytes(b"abcdefghijklmnopqrstuvwxyz" * 100)
    native.port.write(b"B" + sent)
    assert native.port.read(len(sent)) == sent


def test_ticks_rise_through_every_wrap(project: Path, line: Line) -> None:
    hertz = boards.load(building.environment(project)).clock_hz
    start, first = time.monotonic(), line.ask(b"T")
    time.sleep(1.0)
    second, elapsed = line.ask(b"T"), time.monotonic() - start
    assert 0.95 * hertz < second - first < 1.05 * hertz * elapsed  # SysTick alone wraps ten times in that
    if boards.load(building.environment(project)).core != "rv32imc":  # its timer has 52 bits and no wraps to count
        assert line.ask(b"M") == 0


def test_reset_boots_again_on_the_same_line(line: Line) -> None:
    before = line.ask(b"I")
    assert line.ask(b"I") == before
    assert line.exchange(b"R", b"\n") == b"boot\n"
    assert line.ask(b"I") not in (before, 0)


def test_a_fault_resets_the_part(bare: Line) -> None:
    assert bare.exchange(b"F", b"\n") == b"boot\n"


def test_the_cause_of_a_reset_is_told(line: Line) -> None:
    line.exchange(b"R", b"\n")
    assert line.ask(b"Q") == ResetCause.REQUEST


def test_a_fault_is_told(bare: Line) -> None:
    bare.exchange(b"F", b"\n")
    assert bare.ask(b"Q") == ResetCause.FAULT


@pytest.mark.parametrize("board", ["mps2_an500", "native"])
def test_a_hung_device_is_reset_by_its_watchdog(port_projects: dict[str, Path], board: str) -> None:
    """QEMU has no watchdog for the other boards; both of these reset a program that stopped feeding, and only then."""
    with running(port_projects[board]) as line:
        assert line.exchange(b"W", b"\n") == b"hung\n"
        assert line.port.read_until(b"\n") == b"boot\n"
        assert line.ask(b"Q") == ResetCause.WATCHDOG


def test_clock_reports_what_the_registers_say(stm32: Line) -> None:
    assert (stm32.ask(b"C"), stm32.ask(b"E")) == (16_000_000, 0)  # QEMU's RCC reads 0


def test_native_clock_is_nanoseconds_and_its_stack_unknown(native: Line) -> None:
    assert (native.ask(b"C"), native.ask(b"E"), native.ask(b"S")) == (1_000_000_000, 0, 0)


def test_stack_high_water(bare: Line) -> None:
    shallow = bare.ask(b"S")
    bare.ask(b"U")  # 1500 bytes of locals
    deep = bare.ask(b"S")
    assert 0 < shallow < 600
    assert 1500 < deep < shallow + 1600 < STACK


def test_boot_id_differs_from_power_on_to_power_on(project: Path) -> None:
    seen = set()
    for _ in range(4):
        with running(project) as line:
            seen.add(line.ask(b"I"))
    assert len(seen) == 4


def test_ticks_count_instructions_repeatably(port_projects: dict[str, Path]) -> None:
    machine = emulators.create(boards.load("netduinoplus2"), icount=True)
    assert machine.instructions_per_tick == pytest.approx(1000 / 168)
    try:
        line = Line(machine.start(building.image(port_projects["netduinoplus2"])))
        counts = [line.ask(b"L") * machine.instructions_per_tick for _ in range(3)]
        line.close()
    finally:
        machine.stop()
    assert max(counts) - min(counts) <= 12  # one tick either way
    assert 5 <= counts[0] / 100_000 <= 9  # load, add, store, load, compare, branch

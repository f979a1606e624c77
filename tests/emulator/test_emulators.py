# SPDX-License-Identifier: Apache-2.0
"""Emulators as processes: found or named, one line after another, restarted, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial
from projects import greet, write_port_project

import lora_mcu
from lora_mcu import boards, building, emulators
from lora_mcu.emulators.qemu import MACHINES
from lora_mcu.errors import ProjectError, ToolError

BOARDS = ["netduinoplus2", "native"]


def echo(url: str, word: bytes) -> bytes:
    with serial.serial_for_url(url, baudrate=115200, timeout=10) as port:
        greet(port)
        port.write(word)
        return bytes(port.read(len(word)))


@pytest.mark.parametrize("board", BOARDS)
def test_connections_one_after_another(board: str, port_projects: dict[str, Path]) -> None:
    with lora_mcu.emulate(port_projects[board]) as url:
        assert isinstance(url, str)
        for word in (b"one", b"two", b"xyz"):
            assert echo(url, word) == word


@pytest.mark.parametrize("board", BOARDS)
def test_reset_is_power_off_and_on(board: str, port_projects: dict[str, Path]) -> None:
    machine = emulators.create(boards.load(board))
    try:
        url = machine.start(building.image(port_projects[board]))
        assert echo(url, b"before") == b"before"
        again = machine.reset()
        assert echo(again, b"after") == b"after"
        if board != "native":
            assert again == url
    finally:
        machine.stop()
        machine.stop()  # harmless


def test_several_machines_at_once(port_projects: dict[str, Path]) -> None:
    image = building.image(port_projects["netduinoplus2"])
    machines = [emulators.create(boards.load("netduinoplus2")) for _ in range(3)]
    try:
        urls = [machine.start(image) for machine in machines]
        assert len(set(urls)) == 3
        assert [echo(url, f"{i}".encode()) for i, url in enumerate(urls)] == [b"0", b"1", b"2"]
    finally:
        for machine in machines:
            machine.stop()


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("board", BOARDS)
def test_no_emulator_outlives_a_killed_python(board: str, port_projects: dict[str, Path]) -> None:
    script = (
        "import sys, time\n"
        "from lora_mcu import boards, building, emulators\n"
        "machine = emulators.create(boards.load(sys.argv[2]))\n"
        "machine.start(building.image(sys.argv[1]))\n"
        "print(machine.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(port_projects[board]), board]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as python:
        assert python.stdout is not None
        pid = int(python.stdout.readline())
        assert running(pid)
        os.kill(python.pid, signal.SIGKILL)
        python.wait(10)
    end = time.monotonic() + 5
    while running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not running(pid)


@pytest.mark.parametrize("board", BOARDS)
def test_emulate_stops_what_it_started(board: str, port_projects: dict[str, Path]) -> None:
    class Stop(Exception):
        pass

    with pytest.raises(Stop), lora_mcu.emulate(port_projects[board]) as url:
        raise Stop
    with pytest.raises(serial.SerialException):
        serial.serial_for_url(url, timeout=1)


def test_missing_emulator_names_its_package(
    port_projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as refused, lora_mcu.emulate(port_projects["netduinoplus2"]):
        pass
    assert str(refused.value) == "emulator qemu-system-arm is not on PATH: apt install qemu-system-arm"


def test_emulator_that_cannot_run_the_board(port_projects: dict[str, Path]) -> None:
    with pytest.raises(ToolError, match="'native' cannot run netduinoplus2: use qemu"):
        emulators.create(boards.load("netduinoplus2"), "native")
    with pytest.raises(ToolError, match="'native' counts no instructions"):
        emulators.create(boards.load("native"), icount=True)


def test_project_that_is_not_built(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "netduinoplus2")
    with pytest.raises(ProjectError, match=r"is not built: run lora-mcu build .*/p"), lora_mcu.emulate(project):
        pass


def test_emulator_that_does_not_start_says_why(
    port_projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_mcu.emulators.base._SETTLE_SECONDS", 5.0)
    monkeypatch.setitem(MACHINES, "netduinoplus2", ("nosuchmachine", 168))
    with pytest.raises(ToolError, match=r"^qemu-system-arm ended \(exit code 1\): .*machine.*") as refused:
        emulators.create(boards.load("netduinoplus2")).start(building.image(port_projects["netduinoplus2"]))
    assert "\n" not in str(refused.value)
    image = tmp_path / "firmware.elf"
    image.write_bytes(b"not an image")
    image.chmod(0o755)
    with pytest.raises(ToolError, match=r"^firmware\.elf does not start: Exec format error$"):
        emulators.create(boards.load("native")).start(image)

# SPDX-License-Identifier: Apache-2.0
"""Projects that several tests build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import serial

import lora_mcu
from lora_mcu import boards
from lora_mcu.building import BuildResult
from lora_mcu.codegen.platformio import render_project_files

ROOT = Path(__file__).resolve().parents[1]
HAR = ROOT / "examples" / "har" / "har.tflite"
PORT_BOARDS = ("netduinoplus2", "mps2_an500", "mps3_an547", "esp32_c3_devkitm_1", "native")
PORT_MAIN = ROOT / "tests" / "emulator" / "port_main.c"


def write_port_project(folder: Path, board: str) -> Path:
    """A project of the port and ``port_main.c`` alone: no runtime, no model."""
    files = render_project_files(boards.load(board))
    files["src/main.c"] = PORT_MAIN.read_bytes()
    for name, content in files.items():
        if not name.startswith("src/runtime/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder


def greet(port: serial.SerialBase) -> None:
    """Talk to port_main.c until it listens: what arrives before a UART is on is lost, as on a board."""
    patience, port.timeout = port.timeout, 0.25
    for attempt in range(40):
        word = b"\n<%d>" % attempt
        port.write(word)
        if port.read_until(word).endswith(word):
            port.timeout = patience
            return
    raise AssertionError("port_main.c does not answer")


class Compiled:
    """A compiled and built project with what both steps said."""

    def __init__(self, folder: Path, program: lora_mcu.Program, result: BuildResult) -> None:
        self.folder, self.program, self.result = folder, program, result


def compile_and_build(folder: Path, model: Path, board: str, **options: Any) -> Compiled:
    program = lora_mcu.compile(model, board=board, **options)
    program.write(folder)
    return Compiled(folder, program, lora_mcu.build(folder))


def assert_report_is_image(compiled: Compiled) -> None:
    report = compiled.program.report().to_dict()
    symbols = compiled.result.symbols
    for name, size in {**report["sram"], **report["constants"]}.items():
        assert symbols[name].size == size, name
    in_ram = {name for name, symbol in symbols.items() if symbol.writable and name.startswith("lmcu_")}
    assert in_ram == set(report["sram"])
    assert compiled.result.ram_bytes == report["sram_bytes"]

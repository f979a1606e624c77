# SPDX-License-Identifier: Apache-2.0
"""The parts of building that need no compiler: manifest, project files, first cause of a failed build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_mcu import boards, building, checks
from lora_mcu.codegen.platformio import platformio_manifest, render_project_files
from lora_mcu.errors import ProjectError


def test_manifest_says_what_the_board_says() -> None:
    manifest = platformio_manifest(boards.load("netduinoplus2"))
    assert manifest["platforms"] == ["lora_mcu"]
    assert manifest["upload"]["maximum_ram_size"] == 131072
    assert manifest["upload"]["maximum_size"] == 786432
    assert "-mfloat-abi=hard" in manifest["build"]["cpu_flags"]
    assert json.loads(json.dumps(manifest)) == manifest


def test_project_files_of_a_board() -> None:
    files = render_project_files(boards.load("netduinoplus2"))
    assert list(files) == sorted(files)
    assert files["platformio.ini"].count(b"core_dir = .pio/core") == 1
    assert b"LENGTH = 131072" in files["linker.ld"]
    assert b"#define LMCU_BOARD_UART_IRQ 37" in files["include/lmcu_board.h"]
    assert {"platform/platform.json", "platform/boards/netduinoplus2.json", "src/runtime/main.c"} <= set(files)
    assert not any(name.startswith(("/", "..")) or "\\" in name for name in files)


def test_project_files_of_the_native_board_have_no_linker_script() -> None:
    files = render_project_files(boards.load("native"))
    assert "linker.ld" not in files
    assert [name for name in files if name.startswith("src/port/")] == ["src/port/port.c"]


def test_every_c_file_carries_its_licence() -> None:
    for name, content in render_project_files(boards.load("netduinoplus2")).items():
        if not name.endswith(".json"):
            assert b"SPDX-License-Identifier: Apache-2.0" in content.splitlines()[0], name


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["Compiling x", "src/a.c:3:5: error: no", "src/b.c:1:1: error: later"], "src/a.c:3:5: error: no"),
        (["a.c:1:1: warning: x", "/usr/bin/ld: cannot find -lm", "collect2: error: ld returned 1"], "cannot find -lm"),
        (["/usr/bin/ld: lora_mcu: initialised data is not allowed: make it const"],
         "initialised data is not allowed: make it const"),
        (["ld: a.elf section `.bss' will not fit in region `SRAM'", "ld: region `SRAM' overflowed by 12 bytes"],
         "region `SRAM' overflowed by 12 bytes; compile again with a smaller --rank or --adapt last:N"),
        (["UnknownPackageError: Could not find the package"], "Could not find the package"),
        (["something else", ""], "something else"),
        ([], "no output"),
    ],
)  # fmt: skip
def test_first_cause(lines: list[str], cause: str) -> None:
    assert building._cause(lines) == cause


def test_environment_needs_a_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is not a compiled project"):
        building.environment(tmp_path)
    with pytest.raises(ProjectError, match="is not a compiled project"):
        building.image(tmp_path / "nowhere")


def test_symbols_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "x.elf"
    file.write_bytes(b"not an ELF")
    with pytest.raises(ProjectError, match="is not a firmware image"):
        building.read_symbols(file)


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {check.name: check for check in checks.doctor()}
    assert found["Python"].ok
    assert found["platformio"].found.startswith("platformio 6.")
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = {check.name: check for check in checks.doctor()}
    assert not missing["qemu-system-arm"].ok
    assert missing["qemu-system-arm"].detail == (
        "not installed, needed for emulate Cortex-M boards: apt install qemu-system-arm"
    )
    assert missing["dfu-util"].ok  # only for flashing
    assert missing["dfu-util"].optional

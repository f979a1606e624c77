# SPDX-License-Identifier: Apache-2.0
"""The parts of building that need no compiler: manifest, project files, first cause of a failed build."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from lora_mcu import boards, building, checks, resources
from lora_mcu.codegen import ports
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


@pytest.mark.parametrize("name", [name for name in boards.names() if not boards.load(name).is_library])
def test_port_of_every_board_is_whole(name: str) -> None:
    """Files of two folders never share a name, and no folder is empty."""
    board = boards.load(name)
    folders = [resources.path("firmware") / "ports" / folder for folder in ports.FOLDERS[board.family]]
    sources = [file.name for folder in folders for file in folder.iterdir()]
    assert len(set(sources)) == len(sources) >= len(folders)
    assert {f"src/port/{name}" for name in sources} <= set(render_project_files(board))


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


@pytest.fixture
def platform() -> ModuleType:
    """platform.py as PlatformIO loads it."""
    file = resources.path("firmware") / "platform" / "platform.py"
    spec = importlib.util.spec_from_file_location("lora_mcu_platform", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scons_of_this_python_becomes_platformios_tool(platform: ModuleType, tmp_path: Path) -> None:
    platform.register_scons(tmp_path)
    tool = tmp_path / "tool-scons"
    version = platform.scons_tool_version()
    assert json.loads((tool / ".piopm").read_text())["version"] == version
    assert json.loads((tool / "package.json").read_text()) == {"name": "tool-scons", "version": version}
    (tool / "scons.py").write_text("kept")
    platform.register_scons(tmp_path)
    assert (tool / "scons.py").read_text() == "kept"


@pytest.mark.parametrize("found", [None, "4.40801.0"])
def test_without_the_right_scons_the_line_that_installs_it(
    found: str | None,
    platform: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(platform, "scons_tool_version", lambda: found)
    monkeypatch.setattr(platform, "get_core_dependencies", lambda: {"tool-scons": "~4.41101.0"})
    platform.register_scons(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "lora_mcu: this PlatformIO needs SCons: pip install scons==4.11.1\n"

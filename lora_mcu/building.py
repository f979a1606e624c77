# SPDX-License-Identifier: Apache-2.0
"""Runs PlatformIO on a compiled project, offline and inside the project's folder, and reads what came out."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lora_mcu import resources
from lora_mcu.errors import ProjectError, ToolError

BUILD_SECONDS = 600
_SHF_WRITE, _SHF_ALLOC = 1, 2

# What names the cause best comes first: our linker script's refusals, overflow, the compiler, the linker, the rest.
_CAUSES = (
    re.compile(r"lora_mcu: (.+)"),
    re.compile(r"(region `\w+' overflowed by \d+ bytes)"),
    re.compile(r"(\S+:\d+:\d+: (?:fatal )?error: .+)"),
    re.compile(r"(undefined reference to .+)"),
    re.compile(r"(?:.*\bld: |Error: |\w*Exception: |\w*Error: )(.+)"),
)


@dataclass(frozen=True)
class Symbol:
    """A data object or function of an image: bytes and address; ``writable`` says that it takes RAM."""

    size: int
    address: int
    writable: bool


@dataclass(frozen=True)
class BuildResult:
    """A built image. ``sections`` maps the allocated sections to bytes; ``ram_bytes`` and ``flash_bytes`` sum them.

    On the native board RAM is the sum of the firmware's own objects: the rest belongs to the host's C library.
    """

    elf: Path
    board: str
    sections: dict[str, int]
    symbols: dict[str, Symbol]
    ram_bytes: int
    flash_bytes: int

    def __str__(self) -> str:
        return f"{self.elf}: {self.flash_bytes:,} bytes of flash, {self.ram_bytes:,} bytes of SRAM"


def environment(project: str | Path) -> str:
    """Return the project's PlatformIO environment, which is its board's name. Raises ProjectError."""
    file = Path(project) / "platformio.ini"
    parser = configparser.ConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        return parser["platformio"]["default_envs"]
    except OSError:
        if (Path(project) / "library.json").is_file():
            raise ProjectError(
                f"{project} is a library, not a project: build the program that it is part of (see its README.md)"
            ) from None
        message = f"{project} is not a compiled project (no platformio.ini): make one with lora-mcu compile"
        raise ProjectError(message) from None
    except (configparser.Error, KeyError, UnicodeDecodeError):
        raise ProjectError(f"{file} was not made by lora-mcu compile: compile the model again with --force") from None


def image(project: str | Path) -> Path:
    """Return the project's firmware.elf. Raises ProjectError when the project is none or is not built."""
    elf = Path(project) / ".pio" / "build" / environment(project) / "firmware.elf"
    if not elf.is_file():
        raise ProjectError(f"{project} is not built: run lora-mcu build {project}")
    return elf


def build(project: str | Path, *, verbose: bool = False, progress: Callable[[str], None] | None = None) -> BuildResult:
    """Build the project at ``project`` with the system's compiler; no network, no PlatformIO registry.

    Args:
        project: folder that ``Program.write`` made.
        verbose: ask PlatformIO for the full command lines.
        progress: called with every line that PlatformIO prints.

    Raises:
        ProjectError: the folder is not a compiled project.
        ToolError: PlatformIO, SCons or the compiler is missing, or the build fails (the first cause in one line).
    """
    board = environment(project)
    _check_tools(Path(project), board)
    command = [sys.executable, "-m", "platformio", "run", "-e", board, *(["-v"] if verbose else [])]
    lines = _run(command, Path(project), progress)
    if lines is not None:
        raise ToolError(f"pio run failed in {project}: {_cause(lines)}")
    return inspect(image(project), board)


def _check_tools(project: Path, board: str) -> None:
    for module, package in (("platformio", "platformio"), ("SCons", "scons==4.11.1")):
        if importlib.util.find_spec(module) is None:
            raise ToolError(f"{package.split('=')[0]} is not installed in {sys.executable}: pip install {package}")
    facts = manifest(project, board)["build"]
    packages = [str(folder) for folder in (project / ".pio" / "core" / "packages").glob("*/bin")]
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *packages])
    wrong = tools().check_compiler(facts["toolchain"], facts["debian_package"], facts["registry_package"], path)
    if wrong:
        raise ToolError(wrong)


def manifest(project: Path, board: str) -> dict[str, Any]:
    """The project's board manifest, with "build" and "upload". Raises ProjectError."""
    try:
        text = (project / "platform" / "boards" / f"{board}.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        needed = {"toolchain", "debian_package", "registry_package"}
        if set(found["build"]) >= needed and "protocols" in found["upload"]:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ProjectError(f"{project} is incomplete (platform/boards/{board}.json): compile it again")


@cache
def tools() -> Any:
    """``firmware/platform/builder/tools.py``, which every project carries a copy of."""
    file = resources.path("firmware") / "platform" / "builder" / "tools.py"
    spec = importlib.util.spec_from_file_location("lora_mcu_tools", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str], project: Path, progress: Callable[[str], None] | None) -> list[str] | None:
    """Run PlatformIO in the project; return its output when it failed, None when it succeeded."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORMIO_")}
    quiet = {
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "No",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        "PLATFORMIO_NO_ANSI": "true",
    }
    lines: list[str] = []
    late = threading.Event()
    with subprocess.Popen(
        command,
        cwd=project,
        env={**inherited, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the compilers end with PlatformIO
    ) as process:

        def end(cause: threading.Event | None = None) -> None:
            if cause is not None:
                cause.set()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

        alarm = threading.Timer(BUILD_SECONDS, end, (late,))
        alarm.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if progress is not None:
                    progress(line.rstrip())
            code = process.wait()
        finally:
            alarm.cancel()
            end()
    if late.is_set():
        raise ToolError(f"pio run took more than {BUILD_SECONDS} s in {project}: try pio run -v there")
    return lines if code != 0 else None


def _cause(lines: list[str]) -> str:
    for pattern in _CAUSES:
        for line in lines:
            match = pattern.search(line)
            if match:
                return _way_out(match[1].strip())
    return next((line for line in reversed(lines) if line.strip()), "no output")


def _way_out(cause: str) -> str:
    if "overflowed" in cause:
        return f"{cause}; compile again with a smaller --rank or --adapt last:N"
    return cause


def read_symbols(elf: str | Path) -> dict[str, Symbol]:
    """Return the sized objects and functions of an ELF file by name. Raises ProjectError when it is not an ELF file."""
    return _read(Path(elf))[1]


def _in_ram(section: str, flags: int) -> bool:
    """A host's constants with addresses are written once by its loader, and are constants all the same."""
    return bool(flags & _SHF_WRITE) and not section.startswith(".data.rel.ro")


def _read(elf: Path) -> tuple[dict[str, tuple[int, int]], dict[str, Symbol]]:
    """Sections {name: (bytes, flags)} that take memory, and symbols."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with elf.open("rb") as file:
            parsed = ELFFile(file)
            ram = [_in_ram(section.name, section["sh_flags"]) for section in parsed.iter_sections()]
            sections = {
                section.name: (section["sh_size"], section["sh_flags"])
                for section in parsed.iter_sections()
                if section["sh_flags"] & _SHF_ALLOC and section["sh_size"] > 0
            }
            table: Any = parsed.get_section_by_name(".symtab")
            symbols = {
                symbol.name: Symbol(symbol["st_size"], symbol["st_value"], ram[symbol["st_shndx"]])
                for symbol in (table.iter_symbols() if table is not None else ())
                if symbol["st_size"] > 0 and isinstance(symbol["st_shndx"], int)
            }
    except (ELFError, OSError) as error:
        raise ProjectError(f"{elf} is not a firmware image: {error}") from None
    return sections, symbols


def inspect(elf: Path, board: str) -> BuildResult:
    """Read sizes of a built image; ``board`` is its board's name."""
    sections, symbols = _read(elf)
    if board == "native":
        ram = sum(symbol.size for name, symbol in symbols.items() if symbol.writable and name.startswith("lmcu_"))
    else:
        ram = sum(size for name, (size, flags) in sections.items() if _in_ram(name, flags))
    flash = sum(size for name, (size, flags) in sections.items() if not _in_ram(name, flags))
    return BuildResult(elf, board, {name: size for name, (size, _) in sections.items()}, symbols, ram, flash)

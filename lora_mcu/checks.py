# SPDX-License-Identifier: Apache-2.0
"""What lora_mcu needs from the computer, what of it is there, and the line that installs the rest."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata

# distribution, module, what for; the last three are extras: most people never need them
_PYTHON = (
    ("numpy", "numpy", "everything"),
    ("jinja2", "jinja2", "compile"),
    ("tflite", "tflite", "compile: reading .tflite files"),
    ("safetensors", "safetensors", "adapter files"),
    ("pyserial", "serial", "talking to a device"),
    ("cobs", "cobs", "talking to a device"),
    ("platformio", "platformio", "build"),
    ("scons", "SCons", "build: PlatformIO's build tool"),
    ("pyelftools", "elftools", "build: exact sizes"),
)
_EXTRAS = (
    ("ai-edge-litert", "ai_edge_litert", "oracle", "checking the base byte for byte, adapter merge"),
    ("unicorn", "unicorn", "unicorn", "emulating STM32 boards and the ESP32-C3"),
    ("tensorflow", "tensorflow", "tensorflow", "quantize of Keras models, making models and running the tests"),
    ("ai-edge-quantizer", "ai_edge_quantizer", "quantize", "quantize of a float .tflite"),
)
_PROGRAMS = (
    ("gcc", "gcc libc6-dev", "simulate (the twin) and the native board"),
    ("arm-none-eabi-gcc", "gcc-arm-none-eabi", "build for Cortex-M boards"),
    ("qemu-system-arm", "qemu-system-arm", "emulate Cortex-M boards"),
)
_OPTIONAL_PROGRAMS = (
    ("riscv64-unknown-elf-gcc", "apt install gcc-riscv64-unknown-elf", "build for the ESP32-C3"),
    ("openocd", "apt install openocd", "flash and pio debug through an ST-LINK"),
    ("st-flash", "apt install stlink-tools", "flash through an ST-LINK, instead of openocd"),
    ("dfu-util", "apt install dfu-util", "flash over USB DFU"),
    ("esptool", "pip install esptool", "flash to an ESP32-C3"),
    ("gdb-multiarch", "apt install gdb-multiarch", "pio debug"),
)


@dataclass(frozen=True)
class Check:
    """One thing. ``ok``: it is there, or it is ``optional`` and need not be; ``found`` is "" when it is not there."""

    name: str
    ok: bool
    found: str
    needed_for: str
    how_to_install: str
    optional: bool = False

    @property
    def detail(self) -> str:
        """One line: what was found, or what it is for and how to get it."""
        return self.found or f"not installed, needed for {self.needed_for}: {self.how_to_install}"


def _check(
    name: str, find: Callable[[], str | None], needed_for: str, how_to_install: str, optional: bool = False
) -> Check:
    found = find() or ""
    return Check(name, bool(found) or optional, found, needed_for, how_to_install, optional)


def _package(distribution: str, module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution


def _program(name: str) -> str | None:
    """First line of ``name --version`` with its path."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        run = subprocess.run([path, "--version"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = (run.stdout or run.stderr).strip().splitlines()
    return f"{words[0]} ({path})" if words else path


def _python() -> str | None:
    return f"Python {sys.version.split()[0]} ({sys.executable})" if sys.version_info >= (3, 11) else None


def doctor() -> list[Check]:
    """Look for Python packages, compilers, emulators and upload tools; changes nothing."""
    checks = [_check("Python", _python, "everything", "install Python 3.11 or newer")]
    for name, module, purpose in _PYTHON:
        pin = "==4.11.1" if name == "scons" else ""
        checks.append(_check(name, partial(_package, name, module), purpose, f"pip install {name}{pin}"))
    for name, package, purpose in _PROGRAMS:
        checks.append(_check(name, partial(_program, name), purpose, f"apt install {package}"))
    for name, line, purpose in _OPTIONAL_PROGRAMS:
        checks.append(_check(name, partial(_program, name), purpose, line, optional=True))
    purpose, line = "emulate --with renode", "unpack Renode's portable release and set RENODE to its renode"
    checks.append(_check("renode", lambda: _program(os.environ.get("RENODE", "renode")), purpose, line, optional=True))
    for name, module, extra, purpose in _EXTRAS:
        line = f"pip install 'lora-mcu[{extra}]'"
        checks.append(_check(name, partial(_package, name, module), purpose, line, optional=True))
    return checks

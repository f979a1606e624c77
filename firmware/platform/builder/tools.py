# SPDX-License-Identifier: Apache-2.0
"""The programs that a project needs from the computer: compilers and upload tools, found, checked and run.

Standard library only: PlatformIO's build script runs it in a project, `lora-mcu flash` outside of one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GCC_AT_LEAST = 10  # older ones were never tried; RISC-V needs 11 for -misa-spec
UPLOAD_SECONDS = 300


class UploadToolError(Exception):
    """One line: what failed and the way out."""


@dataclass(frozen=True)
class Program:
    """An upload tool: the line that installs it, and PlatformIO's package of it ("" where there is none)."""

    install: str
    registry_package: str = ""


PROGRAMS = {
    "openocd": Program("apt install openocd", "tool-openocd"),
    "st-flash": Program("apt install stlink-tools"),
    "dfu-util": Program("apt install dfu-util", "tool-dfuutil"),
    "esptool": Program("pip install esptool", "tool-esptoolpy"),
}
TOOLS = {"stlink": ("openocd", "st-flash"), "dfu": ("dfu-util",), "esptool": ("esptool",)}
CONNECT = {
    "stlink": "connect the ST-LINK (on a Nucleo or Discovery board its own USB connector) and power the board",
    "dfu": "hold BOOT0 (or DFU) while pressing reset, with the part's own USB connector connected",
    "esptool": "connect the board's USB connector; if it does not answer, hold BOOT while pressing RST",
}

# What a tool prints, and what it means; the first that matches is the cause. {} is the protocol's CONNECT.
_NO_PERMISSION = "no permission to use the port or probe: add a udev rule, or yourself to groups plugdev and dialout"
_PORT_BUSY = r"port \1 is busy: close the program that has it open"
_CAUSES = (
    (r"lora_mcu: (wrong chip.*)", r"\1"),
    (r"This chip is (\S+?),? not (\S+?)[.\s]", r"wrong chip: the board has an \1, the project is for an \2"),
    (r"UNEXPECTED idcode|Cannot identify target|[Uu]nknown chip ?id", "wrong chip: the part is not the project's"),
    (r"could not open port (\S+?): \[Errno 16\]", _PORT_BUSY),
    (r"Could not exclusively lock port (\S+?):", _PORT_BUSY),
    (r"LIBUSB_ERROR_BUSY|[Rr]esource busy", "the probe is busy: close the debugger or tool that has it open"),
    (r"LIBUSB_ERROR_ACCESS|[Pp]ermission denied|Cannot open DFU device", _NO_PERMISSION),
    (r"Couldn't find any ST-Link|Error: open failed|No ST-?Link|unable to find a matching", "no ST-LINK answers: {}"),
    (r"No DFU capable USB device", "no board in DFU mode: {}"),
    (r"More than one DFU capable", "several boards are in DFU mode: disconnect all but one"),
    (r"could not open port (\S+?):", r"there is no port \1: `lora-mcu ports` lists them; {}"),
    (r"[Ff]ailed to connect|Could not connect to an Espressif|Error connecting DP", "no part answers: {}"),
    (r"\*\* Verify Failed|[Vv]erification .*failed|MD5 .*not match", "what was written reads back otherwise"),
)


def folders(packages: str | Path | None) -> list[str]:
    """Where PlatformIO's own packages keep programs: used where there are none on PATH."""
    found = sorted(Path(packages).glob("*")) if packages else []
    return [str(place) for package in found for place in (package / "bin", package) if place.is_dir()]


def find(program: str, path: str | None) -> str | None:
    """The path of ``program``; esptool may have its older name."""
    return shutil.which(program, path=path) or (shutil.which("esptool.py", path=path) if program == "esptool" else None)


def check_compiler(prefix: str, debian_package: str, registry_package: str, path: str | None = None) -> str | None:
    """What is wrong with the compiler ``prefix``gcc, in one line; None when it can be used."""
    compiler = prefix + "gcc"
    way_out = f"apt install {debian_package}" if debian_package else "install it"
    way_out += f" (PlatformIO's registry has it as {registry_package})" if registry_package else ""
    found = shutil.which(compiler, path=path)
    if found is None:
        return f"compiler {compiler} is not on PATH: {way_out}"
    try:
        run = subprocess.run([found, "-dumpversion"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"compiler {found} does not run: {error}"
    major = re.match(r"\d+", run.stdout)
    if major is None or int(major[0]) < GCC_AT_LEAST:
        return f"compiler {compiler} {run.stdout.strip()} is too old, {GCC_AT_LEAST} or newer is needed: {way_out}"
    return None


def choose(facts: dict[str, Any], protocol: str, tool: str, path: str | None) -> tuple[str, str, str]:
    """(protocol, tool, its path) to upload with: the first that is there, unless ``protocol`` or ``tool`` name one.

    ``facts`` is the manifest's "upload".
    Raises UploadToolError: there is no such tool for the board, or none is installed.
    """
    protocols = [protocol] if protocol else facts["protocols"]
    if not facts["protocols"]:
        raise UploadToolError("this board is not flashed: `lora-mcu emulate` runs the project")
    pairs = [(name, one) for name in protocols for one in TOOLS.get(name, ())]
    wanted = [pair for pair in pairs if tool in ("", pair[1])]
    if not wanted:
        known = ", ".join(dict.fromkeys(one for name in facts["protocols"] for one in TOOLS[name]))
        raise UploadToolError(f"{tool or protocol} cannot flash this board: use {known}")
    for name, one in wanted:
        found = find(one, path)
        if found is not None:
            return name, one, found
    # the board's own protocol is named first
    first = PROGRAMS[wanted[0][1]]
    registry = f" (PlatformIO's registry has it as {first.registry_package})" if first.registry_package else ""
    others = "".join(f", or {one}: {PROGRAMS[one].install}" for _, one in wanted[1:])
    raise UploadToolError(f"upload tool {wanted[0][1]} is not on PATH: {first.install}{registry}{others}")


def steps(facts: dict[str, Any], tool: str, program: str, elf: Path, port: str, readback: str) -> list[list[str]]:
    """The command lines that write and verify the image: ``elf``, and beside it the same as a binary file.

    ``readback`` is a file that does not exist, for what dfu-util reads back.
    """
    image = str(elf.with_suffix(".bin"))
    origin = f"0x{facts['origin']:08x}"
    if tool == "openocd":
        commands = ["init", *_chip_check(facts), f"program {{{elf}}} verify reset exit"]
        files = ["interface/stlink.cfg", f"target/{facts['openocd_target']}.cfg"]
        return [[program, *(x for f in files for x in ("-f", f)), *(x for c in commands for x in ("-c", c))]]
    if tool == "st-flash":
        return [[program, "--reset", "write", image, origin]]
    if tool == "dfu-util":
        size = elf.with_suffix(".bin").stat().st_size
        read = [program, "-a", "0", "-d", "0483:df11", "-s", f"{origin}:{size}:leave", "-U", readback]
        return [[program, "-a", "0", "-d", "0483:df11", "-s", origin, "-D", image], read]
    options = ["--chip", facts["chip"], *(["--port", port] if port else [])]
    return [[program, *options, "write-flash", "0x0", image]]


def _chip_check(facts: dict[str, Any]) -> list[str]:
    """OpenOCD's script that stops before anything is written to another part (DBGMCU_IDCODE, bits 0 to 11)."""
    chip = facts.get("chip_id", 0)
    if not chip:
        return []
    said = f"lora_mcu: wrong chip: the board's part has the identity 0x%03x, {facts['chip']} has 0x{chip:03x}"
    return [
        f"set lmcu_id [expr {{[read_memory 0x{facts['chip_id_address']:08x} 32 1] & 0xfff}}]; "
        f'if {{$lmcu_id != 0x{chip:03x}}} {{echo [format "{said}" $lmcu_id]; shutdown error}}'
    ]


_VERIFIED = {"openocd": r"\*\* Verified OK", "st-flash": r"verified!", "esptool": r"Hash of data verified"}


def upload(
    facts: dict[str, Any], elf: Path, protocol: str = "", tool: str = "", port: str = "", path: str | None = None,
    say: Any = print, dry_run: bool = False,
) -> str:  # fmt: skip
    """Write the image to the board and verify it; returns the tool's name.

    ``say`` is called with every line that the tool prints, or with the commands when it is a ``dry_run``.
    Raises UploadToolError in one line.
    """
    name, tool, program = choose(facts, protocol, tool, path)
    with tempfile.TemporaryDirectory(prefix="lora_mcu-") as folder:
        readback = str(Path(folder) / "readback.bin")
        commands = steps(facts, tool, program, elf, port, readback)
        if dry_run:
            for command in commands:
                say(" ".join(f"'{word}'" if re.search(r"[^\w./:=+-]", word) else word for word in command))
            return tool
        said = "\n".join(_run(command, name, say) for command in commands)
        if tool == "dfu-util":
            written = elf.with_suffix(".bin").read_bytes()
            verified = Path(readback).is_file() and Path(readback).read_bytes()[: len(written)] == written
        else:
            verified = re.search(_VERIFIED[tool], said) is not None
        if not verified:
            raise UploadToolError(f"{tool} wrote the image and did not verify it: flash again")
    return tool


_PIPES: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def _run(command: list[str], protocol: str, say: Any) -> str:
    lines: list[str] = []
    try:
        with subprocess.Popen(command, text=True, errors="replace", **_PIPES) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    say(line.rstrip())
                code = process.wait(UPLOAD_SECONDS)
            except BaseException:
                process.kill()
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UploadToolError(f"{command[0]} does not run: {error}") from None
    text = "\n".join(lines)
    if code != 0:
        failed = f"{Path(command[0]).name} failed (exit code {code}): {_last(lines)}"
        raise UploadToolError(_cause(text, protocol) or failed)
    return text


def _cause(text: str, protocol: str) -> str | None:
    for pattern, meaning in _CAUSES:
        match = re.search(pattern, text)
        if match:
            return match.expand(meaning).replace("{}", CONNECT[protocol]).strip()
    return None


def _last(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if "rror" in line]
    return (errors or said or ["no message"])[-1]

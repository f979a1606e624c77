# SPDX-License-Identifier: Apache-2.0
"""A compiled project: its report is its image, it builds anywhere with the network off, and refuses in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from projects import HAR, Compiled, assert_report_is_image, compile_and_build, write_port_project

import lora_mcu
from lora_mcu import building
from lora_mcu.errors import ProjectError, ToolError

SRAM = range(0x20000000, 0x20020000)
FLASH = range(0x08000000, 0x080C0000)


def test_report_equals_image_to_the_byte(har: Compiled) -> None:
    assert_report_is_image(har)
    assert har.result.ram_bytes == har.result.sections[".noinit"] + har.result.sections[".bss"]
    assert har.result.flash_bytes == har.result.sections[".text"] + har.result.sections[".rodata"]
    assert set(har.result.sections) == {".text", ".rodata", ".noinit", ".bss"}


def test_report_equals_native_image_to_the_byte(har_native: Compiled) -> None:
    assert_report_is_image(har_native)


@pytest.mark.parametrize(
    "model", ["mlperf_kws_ref_model.tflite", "mlperf_ad01_int8.tflite", "mlperf_pretrainedResnet_quant.tflite"]
)
def test_report_equals_image_of_real_models(model: str, models_dir: Path, tmp_path: Path) -> None:
    compiled = compile_and_build(tmp_path / "project", models_dir / model, "netduinoplus2")
    assert_report_is_image(compiled)
    assert_inside_the_part(compiled)


def assert_inside_the_part(compiled: Compiled) -> None:
    for name, symbol in compiled.result.symbols.items():
        place = SRAM if symbol.address >= SRAM.start else FLASH
        assert symbol.address & ~1 in place, name
        assert (symbol.address & ~1) + symbol.size <= place.stop, name


def test_nothing_lies_outside_the_part(har: Compiled) -> None:
    assert_inside_the_part(har)
    stack = har.result.symbols["lmcu_stack"]
    pointer, entry = struct.unpack("<II", har.result.elf.with_suffix(".bin").read_bytes()[:8])
    assert stack.address == SRAM.start  # an overflow leaves RAM and faults
    assert pointer == stack.address + stack.size
    assert entry - 1 in FLASH


def test_no_heap_and_no_c_library(har: Compiled) -> None:
    names = {name.lstrip("_") for name in har.result.symbols}
    forbidden = {"malloc", "calloc", "realloc", "free", "sbrk", "printf", "expf", "sqrtf", "exp", "sqrt"}
    assert not names & forbidden
    archives = {
        Path(line.split("(")[0]).name
        for line in har.result.elf.with_suffix(".map").read_text().splitlines()
        if ".a(" in line and line.startswith("/")
    }
    assert archives <= {"libgcc.a"}


def offline(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Command prefix and environment of a computer without network, without lora_mcu, with an empty home."""
    poison = folder / "poison"
    (poison / "lora_mcu").mkdir(parents=True)
    (poison / "lora_mcu" / "__init__.py").write_text("raise ImportError('lora_mcu is not installed here')\n")
    (folder / "home").mkdir()
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(poison),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
    }
    prefix = ["unshare", "-n"] if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0 else []
    missing = subprocess.run(
        [sys.executable, "-c", "import lora_mcu"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "lora_mcu is not installed here" in missing.stderr
    return prefix, environment


def pio_run(
    project: Path, prefix: list[str], environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "platformio", "run", *options]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=280)


def test_moved_project_builds_without_us_and_without_network(har: Compiled, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another place" / "project"
    shutil.copytree(har.folder, elsewhere, ignore=shutil.ignore_patterns(".pio"))
    prefix, environment = offline(tmp_path)
    run = pio_run(elsewhere, prefix, environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert building.image(elsewhere).with_suffix(".bin").read_bytes() == har.result.elf.with_suffix(".bin").read_bytes()
    assert list((tmp_path / "home").iterdir()) == []  # nothing leaks into the user's home


def test_moved_build_directory_still_builds(port_projects: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(port_projects["netduinoplus2"], moved)
    (moved / "src" / "main.c").touch()
    prefix, environment = offline(tmp_path)
    run = pio_run(moved, prefix, environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert str(port_projects["netduinoplus2"]) not in run.stdout + run.stderr


def test_equal_inputs_give_equal_projects(har: Compiled, tmp_path: Path) -> None:
    script = (
        "import hashlib, json, sys, lora_mcu\n"
        "files = lora_mcu.compile(sys.argv[1], board='netduinoplus2', adapt='all').files()\n"
        "print(json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in files.items()}))\n"
    )
    copy = tmp_path / "har.tflite"
    shutil.copy(HAR, copy)
    run = subprocess.run(
        [sys.executable, "-c", script, str(copy)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(HAR.parents[2]), "TZ": "Asia/Tokyo", "LANG": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {name: hashlib.sha256(content).hexdigest() for name, content in har.program.files().items()}
    assert json.loads(run.stdout) == ours


def test_project_names_no_path_of_this_computer(har: Compiled) -> None:
    for name, content in har.program.files().items():
        assert str(HAR.parents[2]).encode() not in content, name
        assert str(Path.home()).encode() not in content, name


def test_initialised_data_is_refused(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "netduinoplus2")
    (project / "src" / "extra.c").write_text("__attribute__((used)) volatile int lmcu_extra = 5;\n")
    source = (project / "linker.ld").read_text().replace("*(.data .data.*", "KEEP(*(.data .data.*)) *(.data .data.*")
    (project / "linker.ld").write_text(source)
    with pytest.raises(ToolError, match="initialised data is not allowed"):
        lora_mcu.build(project)


def test_too_much_sram_is_refused_with_a_way_out(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "netduinoplus2")
    main = project / "src" / "main.c"
    main.write_text(
        main.read_text().replace("    lmcu_port_init();", "    lmcu_port_init();\n    huge[count++] = 1;", 1)
    )
    main.write_text("static volatile int huge[33000], count;\n" + main.read_text())
    with pytest.raises(ToolError, match=r"SRAM.*overflowed by \d+ bytes.*--rank.*--adapt last:N") as refused:
        lora_mcu.build(project)
    assert "\n" not in str(refused.value)


def test_compiler_error_is_the_cause(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "native")
    (project / "src" / "main.c").write_text("int lmcu_main(void) { return missing; }\n")
    with pytest.raises(ToolError, match=r"src/main\.c:1:\d+: error: .missing. undeclared") as refused:
        lora_mcu.build(project)
    assert "\n" not in str(refused.value)


def test_missing_compiler_names_its_package(har: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as refused:
        lora_mcu.build(har.folder)
    assert str(refused.value) == (
        "compiler arm-none-eabi-gcc is not on PATH: apt install gcc-arm-none-eabi (PlatformIO's registry has it as "
        "toolchain-gccarmnoneeabi)"
    )


def test_plain_pio_run_names_the_missing_compiler(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "netduinoplus2")
    prefix, environment = offline(tmp_path)
    run = pio_run(project, [], {**environment, "PATH": str(tmp_path)})
    assert run.returncode == 1
    assert "Error: compiler arm-none-eabi-gcc is not on PATH: apt install gcc-arm-none-eabi" in run.stderr
    assert "Traceback" not in run.stderr


def toolbox(folder: Path) -> Path:
    """A folder with the compiler, a shell and nothing else, to be the whole PATH."""
    folder.mkdir()
    for tool in ("gcc", "ar", "as", "ranlib", "objcopy", "size"):
        (folder / f"arm-none-eabi-{tool}").symlink_to(str(shutil.which(f"arm-none-eabi-{tool}")))
    (folder / "sh").symlink_to("/bin/sh")
    return folder


def test_upload_names_the_missing_tool_or_flashes_the_image(port_projects: dict[str, Path], tmp_path: Path) -> None:
    project, tools = tmp_path / "p", toolbox(tmp_path / "tools")
    shutil.copytree(port_projects["netduinoplus2"], project)
    _, environment = offline(tmp_path)
    environment["PATH"] = str(tools)
    run = pio_run(project, [], environment, "-t", "upload")
    assert run.returncode == 1
    assert "Error: upload tool dfu-util is not on PATH: apt install dfu-util" in run.stderr
    image = project / ".pio" / "build" / "netduinoplus2" / "firmware.bin"
    reads = f'case "$*" in *-U*) for last; do :; done; /bin/cp "{image}" "$last";; esac'
    (tools / "dfu-util").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n{reads}\n')
    (tools / "dfu-util").chmod(0o755)
    run = pio_run(project, [], environment, "-t", "upload")
    assert run.returncode == 0, run.stderr
    write, read = (tmp_path / "said").read_text().splitlines()
    assert write == "-a 0 -d 0483:df11 -s 0x08000000 -D .pio/build/netduinoplus2/firmware.bin"
    assert ":leave -U " in read and "dfu-util wrote the image and verified it" in run.stdout


def test_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"is not a compiled project.*lora-mcu compile"):
        lora_mcu.build(tmp_path)
    (tmp_path / "platformio.ini").write_bytes(b"[env:x\n\xff")
    with pytest.raises(ProjectError, match=r"platformio\.ini was not made by lora-mcu compile"):
        lora_mcu.build(tmp_path)


def test_incomplete_project(tmp_path: Path) -> None:
    project = write_port_project(tmp_path / "p", "native")
    (project / "platform" / "boards" / "native.json").unlink()
    with pytest.raises(ProjectError, match="incomplete"):
        lora_mcu.build(project)

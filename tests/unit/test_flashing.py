# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu flash` and `pio run -t upload`: what the tools are called with, what is verified, what a failure is told.

The tools here are programs that note their arguments and print what the real ones print; the real ones, where they are
installed, judge the arguments.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import write_port_project

import lora_mcu
from lora_mcu import boards, building, checks, flashing
from lora_mcu.codegen.platformio import platformio_manifest
from lora_mcu.errors import ProjectError, ToolError

IMAGE = bytes(range(256)) * 5
STM32 = [name for name in boards.names() if boards.load(name).family.startswith("stm32")]
Fake = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """A project whose image is there without a compiler."""

    def make(board: str) -> Path:
        folder = write_port_project(tmp_path / "my project", board)
        build = folder / ".pio" / "build" / board
        build.mkdir(parents=True)
        (build / "firmware.elf").write_bytes(b"ELF")
        (build / "firmware.bin").write_bytes(IMAGE)
        return folder

    return make


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Make a tool that notes its arguments, prints ``says`` and ends with ``code``; PATH holds nothing else."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}")

    def make(name: str, says: str, code: int = 0, also: str = "") -> Path:
        said = tools / f"{name}.says"
        said.write_text(says + "\n")
        script = (
            f'#!/bin/sh\nprintf "%s\\n" "$@" --- >> "{tools}/{name}.called"\n{also}\n/bin/cat "{said}"\nexit {code}\n'
        )
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
        return tools / f"{name}.called"

    return make


def calls(called: Path) -> list[list[str]]:
    return [call.strip().splitlines() for call in called.read_text().split("---\n") if call.strip()]


# ---- what they are called with ----


@pytest.mark.parametrize("board", STM32)
def test_openocd_checks_the_part_then_writes_and_verifies(
    board: str, project: Callable[[str], Path], fake: Fake
) -> None:
    folder, called = project(board), fake("openocd", "** Programming Finished **\n** Verified OK **")
    assert lora_mcu.flash(folder, tool="openocd") == "openocd"
    (words,) = calls(called)
    target = boards.load(board).family.removeprefix("stm32").lower()
    assert words[:4] == ["-f", "interface/stlink.cfg", "-f", f"target/stm32{target}x.cfg"]
    commands = words[5::2]
    assert words[4::2] == ["-c"] * 3 and commands[0] == "init"
    assert "shutdown error" in commands[1] and f"!= 0x4{commands[1].split('!= 0x4')[1][:2]}" in commands[1]
    assert commands[2] == f"program {{{building.image(folder)}}} verify reset exit"


def test_the_first_installed_tool_is_taken(project: Callable[[str], Path], fake: Fake) -> None:
    folder, called = project("nucleo_f446re"), fake("st-flash", "Flash written and verified! jolly good!")
    assert lora_mcu.flash(folder) == "st-flash"
    image = str(building.image(folder).with_suffix(".bin"))
    assert calls(called) == [["--reset", "write", image, "0x08000000"]]
    fake("openocd", "** Verified OK **")
    assert lora_mcu.flash(folder) == "openocd"


@pytest.mark.parametrize("reads", ["same", "other"])
def test_dfu_is_read_back_and_compared(reads: str, project: Callable[[str], Path], fake: Fake) -> None:
    folder = project("netduinoplus2")
    image = building.image(folder).with_suffix(".bin")
    bad = image.with_name("bad.bin")
    bad.write_bytes(IMAGE[:-1] + b"?")
    source = image if reads == "same" else bad
    also = f'case "$*" in *-U*) for last; do :; done; /bin/cp "{source}" "$last";; esac'
    called = fake("dfu-util", "Download done.", also=also)
    if reads == "same":
        assert lora_mcu.flash(folder) == "dfu-util"
    else:
        with pytest.raises(ToolError, match="dfu-util wrote the image and did not verify it: flash again"):
            lora_mcu.flash(folder)
    write, read = calls(called)
    assert write == ["-a", "0", "-d", "0483:df11", "-s", "0x08000000", "-D", str(image)]
    assert read[:-1] == ["-a", "0", "-d", "0483:df11", "-s", f"0x08000000:{len(IMAGE)}:leave", "-U"]


@pytest.mark.parametrize("name", ["esptool", "esptool.py"])
def test_esptool_gets_chip_port_and_the_start_of_flash(name: str, project: Callable[[str], Path], fake: Fake) -> None:
    folder, called = project("esp32_c3_devkitm_1"), fake(name, "Hash of data verified.")
    assert lora_mcu.flash(folder, port="/dev/ttyUSB0") == "esptool"
    image = str(building.image(folder).with_suffix(".bin"))
    assert calls(called) == [["--chip", "esp32c3", "--port", "/dev/ttyUSB0", "write-flash", "0x0", image]]


def test_a_tool_that_says_nothing_of_verifying_is_not_believed(project: Callable[[str], Path], fake: Fake) -> None:
    fake("openocd", "done")
    with pytest.raises(ToolError, match="openocd wrote the image and did not verify it"):
        lora_mcu.flash(project("nucleo_f446re"))


def test_dry_run_runs_nothing(project: Callable[[str], Path], fake: Fake) -> None:
    folder, called, said = project("nucleo_f446re"), fake("openocd", ""), list[str]()
    lora_mcu.flash(folder, dry_run=True, progress=said.append)
    assert not called.exists()
    (line,) = said
    assert "openocd -f interface/stlink.cfg -f target/stm32f4x.cfg -c init" in line and "verify reset exit'" in line
    assert "ST-LINK" in flashing.connection(folder)


def test_a_tool_of_platformios_own_packages_serves(
    project: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("esp32_c3_devkitm_1")
    place = folder / ".pio" / "core" / "packages" / "tool-esptoolpy"
    place.mkdir(parents=True)
    (place / "esptool.py").write_text("#!/bin/sh\necho Hash of data verified.\n")
    (place / "esptool.py").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lora_mcu.flash(folder) == "esptool"


# ---- what a failure is told ----

# board, tool, what it prints (word for word from the real one), the line
FAILURES = [
    ("nucleo_f446re", "openocd", "Info : clock speed 2000 kHz\nError: open failed",
     "no ST-LINK answers: connect the ST-LINK"),
    ("nucleo_f446re", "openocd", "lora_mcu: wrong chip: the board's part has the identity 0x413, stm32f446 has 0x421",
     "wrong chip: the board's part has the identity 0x413, stm32f446 has 0x421"),
    ("nucleo_f446re", "openocd", "Warn : UNEXPECTED idcode: 0x2ba01477", "wrong chip: the part is not the project's"),
    ("nucleo_f446re", "openocd", "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS\nError: open failed",
     "no permission to use the port or probe"),
    ("nucleo_f446re", "openocd", "Error: libusb_claim_interface() failed with LIBUSB_ERROR_BUSY",
     "the probe is busy: close"),
    ("nucleo_f446re", "openocd", "Error: checksum mismatch\n** Verify Failed **",
     "what was written reads back otherwise"),
    ("nucleo_f446re", "openocd", "Error: something new", "openocd failed (exit code 1): Error: something new"),
    ("nucleo_f446re", "st-flash", "WARN usb.c: Couldn't find any ST-Link devices", "no ST-LINK answers: connect"),
    ("nucleo_f446re", "st-flash", "ERROR common.c: unknown chip id! 0x5fa",
     "wrong chip: the part is not the project's"),
    ("netduinoplus2", "dfu-util", "dfu-util: No DFU capable USB device available", "no board in DFU mode: hold BOOT0"),
    ("netduinoplus2", "dfu-util", "dfu-util: Cannot open DFU device 0483:df11 found on devnum 7 (LIBUSB_ERROR_ACCESS)",
     "no permission to use the port or probe: add a udev rule"),
    ("esp32_c3_devkitm_1", "esptool", "Could not open /dev/ttyUSB0, the port is busy or doesn't exist."
     "\n([Errno 16] could not open port /dev/ttyUSB0: [Errno 16] Device or resource busy: '/dev/ttyUSB0')",
     "port /dev/ttyUSB0 is busy: close the program that has it open"),
    ("esp32_c3_devkitm_1", "esptool", "Could not open /dev/ttyUSB9, the port is busy or doesn't exist."
     "\n([Errno 2] could not open port /dev/ttyUSB9: [Errno 2] No such file or directory: '/dev/ttyUSB9')",
     "there is no port /dev/ttyUSB9: `lora-mcu ports` lists them"),
    ("esp32_c3_devkitm_1", "esptool", "A fatal error occurred: This chip is ESP32, not ESP32-C3. Wrong chip argument?",
     "wrong chip: the board has an ESP32, the project is for an ESP32-C3"),
    ("esp32_c3_devkitm_1", "esptool", "A fatal error occurred: Failed to connect to ESP32-C3: No serial data received.",
     "no part answers: connect the board's USB connector; if it does not answer, hold BOOT while pressing RST"),
]  # fmt: skip


@pytest.mark.parametrize(("board", "tool", "says", "line"), FAILURES)
def test_failures_are_one_line(
    board: str, tool: str, says: str, line: str, project: Callable[[str], Path], fake: Fake
) -> None:
    folder = project(board)
    fake(tool, says, code=1)
    with pytest.raises(ToolError) as refused:
        lora_mcu.flash(folder, tool=tool)
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("board", "line"),
    [
        ("nucleo_f446re", "upload tool openocd is not on PATH: apt install openocd (PlatformIO's registry has it as "
         "tool-openocd), or st-flash: apt install stlink-tools, or dfu-util: apt install dfu-util"),
        ("esp32_c3_devkitm_1", "upload tool esptool is not on PATH: pip install esptool (PlatformIO's registry has it "
         "as tool-esptoolpy)"),
    ],
)  # fmt: skip
def test_missing_tools_are_named(
    board: str, line: str, project: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as refused:
        lora_mcu.flash(project(board))
    assert str(refused.value) == line


def test_tools_of_other_boards_are_refused(project: Callable[[str], Path]) -> None:
    with pytest.raises(ToolError, match="^esptool cannot flash this board: use openocd, st-flash, dfu-util$"):
        lora_mcu.flash(project("nucleo_f446re"), tool="esptool")


@pytest.mark.parametrize("board", ["native", "mps2_an500"])
def test_boards_that_are_not_flashed(board: str, project: Callable[[str], Path]) -> None:
    with pytest.raises(ToolError, match="^this board is not flashed: `lora-mcu emulate` runs the project$"):
        lora_mcu.flash(project(board))


def test_projects_that_are_not_built(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is not built: run lora-mcu build"):
        lora_mcu.flash(write_port_project(tmp_path / "p", "nucleo_f446re"))
    with pytest.raises(ProjectError, match="is not a compiled project"):
        lora_mcu.flash(tmp_path)


@pytest.mark.parametrize(
    ("says", "line"), [("9.3.1", "arm-none-eabi-gcc 9.3.1 is too old, 10 or newer"), ("?", "? is too")]
)
def test_old_compilers_are_refused(says: str, line: str, project: Callable[[str], Path], fake: Fake) -> None:
    fake("arm-none-eabi-gcc", says)
    with pytest.raises(ToolError, match="apt install gcc-arm-none-eabi") as refused:
        lora_mcu.build(project("nucleo_f446re"))
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_doctor_knows_the_tools() -> None:
    named = {check.name for check in checks.doctor()}
    assert set(building.tools().PROGRAMS) <= named


# ---- what the real tools think of it ----


@pytest.mark.parametrize("board", STM32)
def test_openocd_itself_runs_the_check_of_the_part(board: str) -> None:
    """The script that is handed to OpenOCD, on an OpenOCD whose target is a function that answers."""
    program = shutil.which("openocd")
    if program is None:
        pytest.skip("openocd is not installed")
    facts = platformio_manifest(boards.load(board))["upload"]
    (check,) = building.tools()._chip_check(facts)

    def run(identity: int) -> subprocess.CompletedProcess[str]:
        body = f"if {{$at != {facts['chip_id_address']}}} {{error $at}}; return {identity}"
        answers = f"proc read_memory {{at width count}} {{ {body} }}"
        command = [program, "-c", answers, "-c", check, "-c", "echo written", "-c", "shutdown"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    right, wrong = run(0x20000000 | facts["chip_id"]), run(0x20000433)
    assert right.returncode == 0 and "written" in right.stderr
    assert wrong.returncode == 1 and "written" not in wrong.stderr
    assert f"lora_mcu: wrong chip: the board's part has the identity 0x433, {facts['chip']} has" in wrong.stderr


@pytest.mark.parametrize(
    ("board", "tool", "line"),
    [
        ("nucleo_h743zi", "openocd", "no ST-LINK answers"),
        ("nucleo_l4r5zi", "st-flash", "no ST-LINK answers"),
        ("feather_stm32f405", "dfu-util", "no board in DFU mode"),
        ("esp32_c3_devkitm_1", "esptool", "there is no port /dev/ttyNONE"),
    ],
)
def test_real_tools_take_the_arguments_and_miss_the_board(
    board: str, tool: str, line: str, project: Callable[[str], Path]
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    with pytest.raises(ToolError, match=line):
        lora_mcu.flash(project(board), tool=tool, port="/dev/ttyNONE")


def test_the_command_line_says_what_to_connect(project: Callable[[str], Path], fake: Fake) -> None:
    fake("openocd", "** Verified OK **")
    folder = project("nucleo_f446re")
    command = [sys.executable, "-c", "import sys, lora_mcu.cli; sys.exit(lora_mcu.cli.main())", "flash", str(folder)]
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0 and "openocd -f" in done.stdout and "to do that: connect the ST-LINK" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "openocd wrote" in done.stdout and "verified it" in done.stdout

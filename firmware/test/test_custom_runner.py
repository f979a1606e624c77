# SPDX-License-Identifier: Apache-2.0
"""`pio test`: the model infers and trains in QEMU, as a process or on the board, and gives this computer's bytes.

Without a port it runs in QEMU where that knows the board, else on the board itself (`pio test --test-port PORT`).
"""

import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

from platformio.test.exception import UnitTestSuiteError
from platformio.test.result import TestCase, TestStatus
from platformio.test.runners.base import TestRunnerBase

END = re.compile(rb"lmcu_test end [0-9a-f]{8}\r?\n")
LINE = re.compile(rb"lmcu_test (\w+) ([0-9a-f]{8})\r?\n")
SECONDS = 120
OK = "00000000"
RULES = {
    "float_environment": lambda value, _: value == OK,
    "training": lambda value, _: value == OK,
    "trained_adapter": lambda value, found: value != found["initial_adapter"],
    "half_an_adapter_is_refused": lambda value, _: value != OK,
    "adapter_afterwards": lambda value, found: value == found["trained_adapter"],
    "base_again": lambda value, found: value == found["inference"],
}
NOT_ON_THE_HOST = ("main.c", "protocol", "frame.c", "store.c")


class CustomTestRunner(TestRunnerBase):
    """Found by PlatformIO by its name (test_framework = custom)."""

    def setup(self):
        board = self.platform.board_config(self.project_config.get(f"env:{self.test_suite.env_name}", "board"))
        self.machine = board.get("build.qemu_machine", "")
        self.native = board.get("build.native") == "yes"
        given = self.get_test_port() or self.options.upload_port
        self.on_board = not self.native and (bool(given) or not self.machine)
        if self.native or not self.on_board:
            self.options.without_uploading = True

    def stage_testing(self):
        if self.options.without_testing:
            return
        expected = values(self.run_here())
        found = values(self.run_board() if self.on_board else self.run_emulated())
        if "end" not in expected or "end" not in found:
            raise UnitTestSuiteError(f"the test did not end: {len(found)} of {len(expected)} values")
        for name, value in expected.items():
            if name != "end":
                self.judge(name, value, found)

    def judge(self, name, expected, found):
        """One case: the values are equal, and what they say of each other is right."""
        value = found.get(name, "nothing")
        status, message = TestStatus.PASSED, value
        if value != expected:
            status, message = TestStatus.FAILED, f"{value}, this computer has {expected}"
        elif name in RULES and not RULES[name](value, found):
            status, message = TestStatus.FAILED, f"{value} is wrong (statuses: include/lmcu_codes.h)"
        case = TestCase(name=name, status=status, message=message)
        self.test_suite.add_case(case)
        print(f"{name:28} {status.name}  {message}")

    def program(self):
        build = self.project_config.get("platformio", "build_dir")
        return Path(build) / self.test_suite.env_name / "test.elf"

    def run_here(self):
        """The same C by this computer's compiler."""
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise UnitTestSuiteError("pio test needs gcc for the values to compare with: apt install gcc libc6-dev")
        folder = Path(self.project_config.get("platformio", "build_dir")) / "host"
        folder.mkdir(parents=True, exist_ok=True)
        sources = [file for file in Path("src/runtime").glob("*.c") if not file.name.startswith(NOT_ON_THE_HOST)]
        sources += [Path("src/model.c"), Path("test/test_same_bytes/test_main.c")]
        flags = ["-std=c99", "-O1", "-ffp-contract=off", "-DLMCU_TEST_HOST", "-Iinclude"]
        command = [compiler, *flags, *map(str, sources), "-o", str(folder / "test")]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise UnitTestSuiteError(f"gcc failed: {(built.stderr.splitlines() or ['no message'])[0]}")
        return subprocess.run([str(folder / "test")], capture_output=True, timeout=SECONDS).stdout

    def run_emulated(self):
        if self.native:
            return self.run_process()
        qemu = shutil.which("qemu-system-arm")
        if qemu is None:
            raise UnitTestSuiteError(
                "qemu-system-arm is not on PATH: apt install qemu-system-arm; for the board: pio test --test-port PORT"
            )
        command = [qemu, "-M", self.machine, "-kernel", str(self.program()), "-display", "none", "-monitor", "none"]
        return read_until_end(subprocess.Popen([*command, "-serial", "stdio"], **PIPES))

    def run_process(self):
        """The native board: its first line is the path of its pseudo-terminal."""
        process = subprocess.Popen([str(self.program())], **PIPES)
        try:
            return talk(process.stdout.readline().decode().strip(), 115200)
        finally:
            process.kill()
            process.wait()

    def run_board(self):
        port = self.get_test_port() or self.options.upload_port
        if not port:
            raise UnitTestSuiteError("no emulator of this board here: connect it and say pio test --test-port PORT")
        speed = self.project_config.get(f"env:{self.test_suite.env_name}", "monitor_speed")
        return talk(port, int(speed))


PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}


def values(text):
    """{name: value} of the first run in ``text`` that is there from its start."""
    start = text.find(b"lmcu_test float_environment ")
    end = END.search(text, max(start, 0))
    run = text[start : end.end() if end else None] if start >= 0 else b""
    return {name.decode(): value.decode() for name, value in LINE.findall(run)}


def read_until_end(process):
    text, end = b"", time.monotonic() + SECONDS
    try:
        while not END.search(text) and time.monotonic() < end:
            ready, _, _ = select.select([process.stdout], [], [], 1)
            piece = os.read(process.stdout.fileno(), 4096) if ready else b""
            if ready and not piece:
                break
            text += piece
        return text
    finally:
        process.kill()
        process.wait()


def talk(port, speed):
    """Ask until a whole run has come: what was sent before the port was open is lost."""
    import serial

    text, end, asked = b"", time.monotonic() + SECONDS, 0.0
    with serial.serial_for_url(port, baudrate=speed, timeout=0.2) as line:
        while "end" not in values(text) and time.monotonic() < end:
            if time.monotonic() > asked + 5:
                line.write(b"\n")
                asked = time.monotonic()
            text += line.read(4096)
    return text

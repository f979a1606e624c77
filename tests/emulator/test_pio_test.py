# SPDX-License-Identifier: Apache-2.0
"""`pio test` in a project: the device's values are this computer's, and a difference that is planted is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from projects import HAR

import lora_mcu


def pio_test(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "platformio", "test"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("board", ["netduinoplus2", "native"])
def test_device_and_computer_agree(board: str, tmp_path: Path) -> None:
    project = lora_mcu.compile(HAR, board=board, adapt="last:2").write(tmp_path / "project")
    run = pio_test(project)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "9 test cases: 9 succeeded" in run.stdout
    build = project / ".pio" / "build" / board
    assert not (build / "firmware.elf").exists()  # a test program is never taken for the firmware
    source = project / "src" / "runtime" / "lora_i16.c"
    old = "(int16_t)(t[j] >> shift)"
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, "(int16_t)((t[j] >> shift) ^ LMCU_PLANTED << 12)") + "\n")
    header = project / "include" / "lora.h"
    planted = "#if defined(LMCU_TEST_HOST)\n#define LMCU_PLANTED 0\n#else\n#define LMCU_PLANTED 1\n#endif\n"
    header.write_text(planted + header.read_text())
    run = pio_test(project)
    assert run.returncode == 1
    rows = {row.split()[0]: row for row in run.stdout.splitlines() if " FAILED  " in row}
    assert set(rows) == {"trained_adapter", "trained_inference", "adapter_afterwards"}
    assert "this computer has" in rows["trained_adapter"]

# SPDX-License-Identifier: Apache-2.0
"""The README says what is so: its commands run, their output is as shown, its figures are the benchmarks'.

`python benchmarks/readme.py` brings it up to date."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme

ROOT = readme.ROOT
TEXT = readme.README.read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())
FIRST_SCREEN = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the data that the README names."""
    made = tmp_path_factory.mktemp("readme")
    readme.prepare(made)
    return made


@pytest.mark.emulator
@pytest.mark.slow
def test_commands_print_what_is_shown(folder: Path) -> None:
    version = subprocess.check_output(["arm-none-eabi-gcc", "-dumpfullversion"], text=True).strip()
    if RESULTS["compiler"] != f"arm-none-eabi-gcc {version}":
        pytest.skip(f"the README's sizes are those of {RESULTS['compiler']}")
    assert len(readme.commands(TEXT)) >= 6
    for command, lines in readme.commands(TEXT):
        output = readme.run(command, folder)
        assert readme.shown_in(output, lines), f"$ {command}\n{output}"


@pytest.mark.emulator
@pytest.mark.slow
def test_python_runs(folder: Path) -> None:
    (code,) = re.findall(r"^```python\n(import lora_mcu.*?)^```", TEXT, re.M | re.S)
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("TrainStats(loss=") and "steps=600, skipped=0" in ran.stdout


def test_table_is_the_benchmarks() -> None:
    assert len(RESULTS["models"]) == 8  # four, in both modes
    assert readme.rows(TEXT) == readme.table(RESULTS)
    assert readme.tables(readme.PERFORMANCE.read_text(encoding="utf-8")) == readme.measured()


def test_first_screen_holds_what_a_newcomer_needs() -> None:
    screen = "\n".join(TEXT.splitlines()[:FIRST_SCREEN])
    for text in ("docs/demo.png", "make demo", "make test", "$ lora-mcu compile", "instructions a step", "It cannot"):
        assert text in screen
    assert len(re.findall(r"^\d\. \[.*\]\(tests/", screen, re.M)) == 5


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()] == []


def test_a_wrong_line_is_noticed() -> None:
    output = "first 1\nsecond 2\nthird 3\n"
    for lines in (["first 1", "...", "third 3"], ["...", "second 2", "..."]):
        assert readme.shown_in(output, lines)
    for lines in (["first 1", "third 3"], ["...", "third 4"], ["first 1", "second 2"]):
        assert not readme.shown_in(output, lines)

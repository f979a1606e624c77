# SPDX-License-Identifier: Apache-2.0
"""Runtime and generated models under AddressSanitizer and UndefinedBehaviorSanitizer, built for the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conformance.odd_models import odd_classifier, odd_regression
from conformance.oracle import Oracle, differing
from conformance.samples import structured_samples
from conformance.training_data import labelled
from firmware.probe import exercise

import lora_mcu
from lora_mcu.program import Program
from lora_mcu.twin.library import build_library

TESTS = Path(__file__).resolve().parents[1]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")
MADE: dict[str, Callable[[], bytes]] = {"odd_classifier": odd_classifier, "odd_regression": odd_regression}


def _program(name: str, folder: Path) -> Program:
    if name == "har":
        return lora_mcu.compile(TESTS.parent / "examples" / "har" / "har.tflite", board="native", adapt="all")
    path = folder / f"{name}.tflite"
    path.write_bytes(MADE[name]())
    loss = "mse" if name == "odd_regression" else "auto"
    return lora_mcu.compile(path, board="native", adapt="all", rank=3, loss=loss)


def _run(program: Program, files: dict[str, bytes], folder: Path) -> subprocess.CompletedProcess[str]:
    """Build with the sanitizers and run probe.py on it with libasan preloaded."""
    (folder / "build").mkdir()
    library = build_library(files, folder / "build", SANITIZE)
    (folder / "info.json").write_text(program.info.to_json(), encoding="utf-8")
    asan = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "LD_PRELOAD": asan.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # the interpreter itself leaks at exit
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, str(TESTS / "firmware" / "probe.py"), str(library)]
    command += [str(folder / "info.json"), str(folder / "result.npz")]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


@pytest.mark.parametrize("name", ["har", "odd_classifier", "odd_regression"])
def test_clean_under_sanitizers_and_same_bytes(name: str, tmp_path: Path) -> None:
    program = _program(name, tmp_path)
    done = _run(program, program.files(), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    plain = exercise(program.twin())
    with np.load(tmp_path / "result.npz") as sanitized:
        assert set(sanitized.files) == set(plain)
        for key in plain:
            assert differing(sanitized[key], plain[key]) == 0, key
    assert plain["gradients"].any() and differing(plain["base"], plain["loaded"].repeat(29, 0)[: len(plain["base"])])
    assert differing(plain["base"], plain["reset"]) == 0


@pytest.mark.parametrize(
    "file, good, bad, report",
    [
        ("src/runtime/patch.c", "i + LMCU_GROUP <= count;", "i + LMCU_GROUP <= count + 65536;", "AddressSanitizer"),
        ("src/runtime/softmax.c", "max = x[i] > max ? x[i] : max;", "max += 0x7ffffff0;", "signed integer overflow"),
    ],
    ids=["read beyond an array", "signed overflow"],
)
def test_sanitizers_see_a_planted_error(file: str, good: str, bad: str, report: str, tmp_path: Path) -> None:
    program = _program("odd_classifier", tmp_path)
    files = dict(program.files())
    source = files[file].decode()
    assert good in source, "the planted error must meet the kernel's text"
    files[file] = source.replace(good, bad).encode()
    done = _run(program, files, tmp_path)
    assert done.returncode != 0 and report in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize("name", sorted(MADE))
def test_odd_models_equal_the_oracle(name: str, tmp_path: Path) -> None:
    program = _program(name, tmp_path)
    base = exercise(program.twin())["base"]
    x = np.concatenate([labelled(program.info, 9, 1)[0], structured_samples(program.info.input)])
    want = Oracle(MADE[name]()).infer(x)
    assert differing(base, want) == 0 and len(np.unique(base)) >= 8

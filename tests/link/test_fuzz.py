# SPDX-License-Identifier: Apache-2.0
"""Mutated frames against the firmware's protocol under ASan and UBSan; FUZZ_FRAMES says how many."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from link.fake_device import HERE, SMALL, Model, prepare

from lora_mcu.link.codes import Message

FRAMES = int(os.environ.get("FUZZ_FRAMES", "30000"))
LATER = {"AUTH", "MERGE", "UNMERGE", "STATE_RESET", "ADVANCE"}
TARGETS = Model(inputs=9, outputs=5, loss="mse", capacity=6, window=4)


@pytest.mark.parametrize("model", [SMALL, TARGETS], ids=["classes", "targets, window 4"])
def test_mutated_frames_never_break_the_protocol(tmp_path: Path, model: Model) -> None:
    program = tmp_path / "fuzz"
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["gcc", *sanitize, *prepare(model, tmp_path), str(HERE / "fuzz.c"), "-o", str(program)], check=True
    )  # fmt: skip
    run = subprocess.run([str(program), "1", str(FRAMES)], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    first, *lines = run.stdout.splitlines()
    assert first.startswith(f"frames {FRAMES} damaged ")
    assert int(first.split()[-1]) > FRAMES // 4
    counts = {name: (int(ok), int(refused)) for name, ok, refused in (line.split() for line in lines)}
    assert counts.keys() == {m.name for m in Message}
    unsupported = LATER | ({"TARGET_DATA"} if model.loss == "cross_entropy" else set())
    for name, (ok, refused) in counts.items():
        assert (ok == 0) == (name in unsupported), name
        assert refused > 0, name

# SPDX-License-Identifier: Apache-2.0
"""Hostile frames against the firmware's protocol under ASan and UBSan; the long run is `make fuzz-link`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from link import fuzz_run
from link.fake_device import SMALL, Model
from link.fuzz_run import MODELS, build_guided, build_mutating
from lora_mcu.link.codes import Message

FRAMES = 60000
LOCKED = MODELS["classes, with a key"]
LATER = {"MERGE", "UNMERGE", "STATE_RESET", "ADVANCE"}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_mutated_frames_never_break_the_protocol(tmp_path: Path, model: Model) -> None:
    program = build_mutating(model, tmp_path)
    frames = FRAMES if model.key is None else FRAMES // 2  # each of which costs two or three HMACs
    run = subprocess.run([str(program), "1", str(frames)], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    first, *lines = run.stdout.splitlines()
    assert first.startswith(f"frames {frames} damaged ")
    assert int(first.split()[-1]) > frames // 5
    counts = {name: (int(ok), int(refused)) for name, ok, refused in (line.split() for line in lines)}
    assert counts.keys() == {m.name for m in Message}
    unsupported = (
        LATER
        | ({"AUTH"} if model.key is None else set())
        | ({"TARGET_DATA"} if model.loss == "cross_entropy" else set())
    )
    for name, (ok, refused) in counts.items():
        assert (ok == 0) == (name in unsupported), name
        assert refused > 0, name


def test_coverage_guided_frames_never_break_the_protocol(tmp_path: Path) -> None:
    program = build_guided(Model(window=8), tmp_path)
    if program is None:
        pytest.skip("libFuzzer is not installed: apt install clang libclang-rt-14-dev")
    (tmp_path / "corpus").mkdir()
    command = [str(program), "-runs=30000", "-max_len=2048", "-seed=1", "corpus"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Done 30000 runs" in run.stderr


@pytest.mark.parametrize(
    "model",
    [Model(window=8, state=8), Model(inputs=9, outputs=5, loss="mse", capacity=6)],
    ids=["streaming", "targets"],
)
def test_every_message_with_every_length_and_extreme_fields(tmp_path: Path, model: Model) -> None:
    run = subprocess.run([str(fuzz_run.build_sweep(model, tmp_path))], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    first, *lines = run.stdout.splitlines()
    assert int(first.split()[1]) > 80000
    served = {Message(number).name: ok for number, ok, _ in (map(int, line.split()) for line in lines)}
    missing = {"AUTH", "MERGE", "UNMERGE"} | ({"TARGET_DATA"} if model.state else {"STATE_RESET", "ADVANCE"})
    assert {name for name, count in served.items() if count == 0} <= missing | {"ADAPTER_COMMIT", "EVALUATE"}


def test_slots_that_somebody_else_has_written(tmp_path: Path) -> None:
    program = fuzz_run.build_hostile_flash(Model(window=8), tmp_path)
    run = subprocess.run([str(program), "20000"], capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    _, loaded, _, refused, _, restored = run.stdout.split()
    assert int(loaded) > 2000 and int(refused) > 2000 and 2000 < int(restored) < 18000


def spoiled(
    build: Callable[[Model, Path], Path], model: Model, folder: Path, file: str, right: str, wrong: str
) -> Path:
    """The program that ``build`` makes, with a defect in one file of the runtime."""
    prepare = fuzz_run.prepare

    def spoil(model: Model, folder: Path) -> list[str]:
        arguments = prepare(model, folder)
        source = folder / "runtime" / file
        text = source.read_text()
        assert right in text
        source.write_text(text.replace(right, wrong))
        return arguments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz_run, "prepare", spoil)
        return build(model, folder)


def test_the_sweep_sees_a_change_by_a_refused_request(tmp_path: Path) -> None:
    right = "    const uint32_t near = "
    wrong = f"    LINK.baud_wanted = baud;\n{right}"
    program = spoiled(fuzz_run.build_sweep, SMALL, tmp_path, "protocol_hello.c", right, wrong)
    run = subprocess.run([str(program)], capture_output=True, text=True, timeout=280)
    assert run.returncode != 0 and "a refused request has changed the device" in run.stdout


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("train.c", "if (!lmcu_half_is_finite(half)) {", "if (half == 0x7C01u) {", "a factor is not finite"),
        ("samples.c", "fine = is_record(i);", "fine = is_record(i) || true;", "a stored label is none"),
    ],
    ids=["a factor", "a label"],
)
def test_a_slot_that_is_not_checked_is_found(tmp_path: Path, file: str, right: str, wrong: str, said: str) -> None:
    program = spoiled(fuzz_run.build_hostile_flash, SMALL, tmp_path, file, right, wrong)
    run = subprocess.run([str(program), "40000"], capture_output=True, text=True, timeout=280)
    assert run.returncode != 0 and said in run.stdout


@pytest.mark.parametrize(
    ("model", "file", "right", "wrong", "said"),
    [
        (SMALL, "protocol.c", "distance == 0", "distance >= -1 && distance <= 0", "nothing was run, and the training"),
        (
            SMALL,
            "train.c",
            "    lmcu_adapter_abort();\n    if (status == LMCU_OK)",
            "    lmcu_adapter_abort();\n    if (true)",
            "",
        ),
        (LOCKED, "auth.c", "return difference == 0;", "return (difference & 0xF0) == 0;", "a stranger"),
        (LOCKED, "protocol.c", "KEYED && !lmcu_auth_fits(", "KEYED && distance == 0 && !lmcu_auth_fits(", "a stranger"),
        (LOCKED, "protocol.c", "    if (!LMCU_KEYED) {", "    if (true) {", "a stranger"),
    ],
    ids=["a repeat runs again", "a refused commit is used", "half of the tag is enough", "repeats need no tag",
         "HELLO opens the session"],
)  # fmt: skip
def test_a_planted_defect_is_found(tmp_path: Path, model: Model, file: str, right: str, wrong: str, said: str) -> None:
    program = spoiled(build_mutating, model, tmp_path, file, right, wrong)
    run = subprocess.run([str(program), "1", str(FRAMES)], capture_output=True, text=True, timeout=280)
    assert run.returncode != 0 and said in run.stdout + run.stderr

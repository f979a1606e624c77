# SPDX-License-Identifier: Apache-2.0
"""Kernels do not become slower unnoticed: executed instructions against results.json, of the same compiler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import cycles, run

RESULTS = json.loads(run.RESULTS.read_text())
QUICK = ("dense 64 -> 12", "conv 1x1, 25x5x64 -> 64", "depthwise 3x3, 25x5x64")


@pytest.mark.emulator
@pytest.mark.parametrize("name", QUICK)
def test_kernel_is_not_slower(name: str) -> None:
    if shutil.which("arm-none-eabi-gcc") is None or run.compiler() != RESULTS["compiler"]:
        pytest.skip(f"not compared: the committed counts are those of {RESULTS['compiler']}")
    (kernel,) = (k for k in run.cases.KERNELS if k.name == name)
    assert run.slower([run.measure_kernel(kernel)], RESULTS["kernels"]) == []


def test_more_than_two_percent_is_named() -> None:
    known = [{"name": "dense", "instructions": 1000}, {"name": "conv", "instructions": 1000}]
    now = [{"name": "dense", "instructions": 1020}, {"name": "conv", "instructions": 1021}]
    assert run.slower(now, known) == ["conv: 1,021 instructions, results.json says 1000"]
    assert run.slower([{"name": "new", "instructions": 1}], known) == ["new: 1 instructions, results.json says None"]


def test_every_kernel_of_the_anchors_is_measured() -> None:
    anchors = json.loads((run.HERE / "anchors.json").read_text())["inference_per_mac"]
    shapes = {(a["kernel"], a["macs"]) for a in anchors}
    assert (
        shapes == {(k.name, k.macs) for k in run.cases.KERNELS} == {(r["name"], r["macs"]) for r in RESULTS["kernels"]}
    )


@pytest.mark.parametrize(
    ("instruction", "operands", "falls_through", "jumps"),
    [
        ("ldmia.w", "sp!, {r4, r5, r6-r8, pc}", 7, 9),
        ("push", "{r3, lr}", 3, 5),
        ("vpush", "{d8-d9}", 5, 7),
        ("ldr.w", "r1, [r0], #4", 2, 4),
        ("ldrd", "r5, r3, [r4, #-16]", 3, 3),
        ("vldr", "s14, [r2, #-8]", 2, 2),
        ("bne.n", "8005692", 1, 3),
        ("cbz", "r0, 8005692", 1, 3),
        ("vdivmi.f32", "s9, s16, s0", 14, 16),
        ("vmla.f32", "s1, s2, s3", 3, 5),
        ("smlabb", "r5, r9, sl, r5", 1, 3),
        ("bic.w", "r1, r3, #3", 1, 3),
        ("vmov", "s0, s1, r0, r1", 2, 2),
    ],
)
def test_cycles_are_the_manuals(instruction: str, operands: str, falls_through: int, jumps: int) -> None:
    assert cycles.cost(instruction, operands)[:2] == (falls_through, jumps)


@pytest.mark.emulator
def test_unicorn_and_qemu_execute_the_same_instructions(tmp_path: Path) -> None:
    """Two emulators, two ways of counting: SysTick's reading differs by some tens of instructions from run to run."""
    (kernel,) = (k for k in run.cases.KERNELS if k.name == "conv 1x1, 25x5x64 -> 64")
    (tmp_path / "kernel.tflite").write_bytes(kernel.make())
    spent = cycles.profile(tmp_path / "kernel.tflite", run.BOARD, adapt="none", loss="mse")["inference"].to_dict(1)
    counted = run.measure_kernel(kernel)["instructions"]
    assert counted == pytest.approx(spent["instructions"], abs=500)  # of 722,700
    assert 1.2 < spent["cycles"] / spent["instructions"] < 1.6


def test_the_cycles_of_the_document_are_of_this_compiler() -> None:
    committed = json.loads(cycles.RESULTS.read_text())
    assert committed["compiler"] == RESULTS["compiler"]
    found, wanted = ([(r["name"], r["numerics"]) for r in x["models"]] for x in (committed, RESULTS))
    assert found == wanted

# SPDX-License-Identifier: Apache-2.0
"""Kernels do not become slower unnoticed: executed instructions against results.json, of the same compiler."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import run

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

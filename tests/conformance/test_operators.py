# SPDX-License-Identifier: Apache-2.0
"""Every operator by itself against LiteRT's reference kernels: 0 differing bytes over a seeded table of odd cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance import shape_cases  # noqa: F401
from conformance.op_cases import MAKERS, case
from conformance.oracle import Oracle, differing
from conformance.samples import random_samples, structured_samples

import lora_mcu
from lora_mcu.importer import load
from lora_mcu.ir import LogSoftmax, Softmax
from lora_mcu.program import Program

QUICK, ALL = 10, 30  # cases an operator


def _compile(path: Path) -> Program:
    """With a zero adapter wherever a layer can have one."""
    graph = load(path)
    loss = "cross_entropy" if isinstance(graph.ops[-1], Softmax | LogSoftmax) else "mse"
    return lora_mcu.compile(path, board="native", adapt="all" if graph.adaptable() else "none", loss=loss)


@pytest.mark.parametrize("kind", sorted(MAKERS))
@pytest.mark.parametrize(
    "seeds", [range(QUICK), pytest.param(range(QUICK, ALL), marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_operator_equals_oracle(kind: str, seeds: range, tmp_path: Path) -> None:
    lively = 0
    for seed in seeds:
        content = case(kind, seed)
        path = tmp_path / f"{kind}_{seed}.tflite"
        path.write_bytes(content)
        program = _compile(path)
        twin = program.twin()
        edge = program.info.input
        x = np.concatenate([structured_samples(edge), random_samples(edge, 30, seed)])
        got, want = twin.infer(x), Oracle(content).infer(x)
        want = want.reshape(got.shape)
        wrong = differing(got, want)
        assert wrong == 0, f"{kind} seed {seed}: {wrong} bytes of {got.size}\n{program.graph.dump()}"
        lively += len(np.unique(got)) >= 16
    assert lively >= len(seeds) // 3, f"only {lively} of {len(seeds)} cases gave more than a few output values"

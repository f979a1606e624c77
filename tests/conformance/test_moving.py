# SPDX-License-Identifier: Apache-2.0
"""Gradients through the operators that move elements or reduce them: the C against the NumPy reference and TensorFlow.

Each model is dense -> the operator -> dense -> cross entropy, both dense layers adapted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.oracle import Array, Oracle, differing
from conformance.samples import random_samples, structured_samples
from conformance.shape_cases import PIECES, PIECES_APART, SUM, _sizes, summing
from conformance.straight_through import StraightThrough
from conformance.tflite_builder import Builder
from conformance.training_data import random_adapter

import lora_mcu
from lora_mcu.importer import loads
from lora_mcu.ir import Reshape
from lora_mcu.passes import normalize
from lora_mcu.reference import Reference

CASES = 5
NEAR = {"f32": 1e-5, "i16": 0.02}  # of the largest gradient
INPUTS = 12


def _reshaped(b: Builder, x: int, shape: tuple[int, ...]) -> int:
    y = b.like(x, shape)
    b.op("RESHAPE", [x, b.tensor((len(shape),), "int32", data=shape)], [y], "ReshapeOptions", newShape=list(shape))
    return y


def _dense(b: Builder, rng: np.random.Generator, x: int, k: int, m: int, scale: float, zero: int = 0) -> int:
    w = b.tensor((m, k), scale=0.02, data=rng.integers(-127, 128, (m, k)))
    y = b.tensor((1, m), scale=scale, zero_point=zero)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    return y


def _model(kind: str, seed: int) -> bytes:
    rng = np.random.default_rng([seed, 77])
    piece, ranks = (PIECES | PIECES_APART)[kind]
    b, shape = Builder(), _sizes(rng, int(rng.choice(ranks)), 5)
    scale, zero = 0.05 * np.sqrt(INPUTS), int(rng.integers(-20, 20))
    x = b.tensor((1, INPUTS), scale=0.05)
    size = int(np.prod(shape))
    hidden = _reshaped(b, _dense(b, rng, x, INPUTS, size, scale, zero), shape)
    moved, out = piece(b, rng, hidden, shape, {"scale": scale, "zero_point": zero})
    k = int(np.prod(out))
    logits = _dense(b, rng, _reshaped(b, moved, (1, k)), k, 3, 0.1 * np.sqrt(k))
    return b.build([x], [logits])


def _close(got: dict[str, Array], want: dict[str, Array], near: float) -> None:
    for key, expected in want.items():
        assert np.abs(got[key] - expected).max() <= near * max(1.0, np.abs(expected).max()), key


@pytest.mark.parametrize("numerics", sorted(NEAR))
@pytest.mark.parametrize("kind", [*sorted(PIECES), SUM])
def test_gradients_through(kind: str, numerics: str, tmp_path: Path) -> None:
    alive = 0
    for seed in range(CASES):
        path = tmp_path / f"{kind}{seed}.tflite"
        path.write_bytes(_model(kind, seed))
        program = lora_mcu.compile(path, board="native", adapt="all", loss="cross_entropy", numerics=numerics)
        twin, reference, graph = program.twin(), Reference(program), StraightThrough(program)
        factors = random_adapter(program.info, seed)
        for learner in (twin, reference):
            learner.load(factors)
        for sample in random_samples(program.info.input, 3, seed):
            assert differing(twin.infer(sample[None]), reference.infer(sample[None])) == 0
            got, want = twin.gradients(sample, np.int64(seed % 3)), reference.gradients(sample, np.int64(seed % 3))
            assert all(differing(got[key], want[key]) == 0 for key in want), kind
            _close(got, graph.gradients(reference.activations(sample), factors, seed % 3)[1], NEAR[numerics])
            alive += all(g.any() for g in got.values())
    assert alive >= CASES, "gradients must arrive in front of the operator"


def test_sum_equals_the_oracles_other_kernel(tmp_path: Path) -> None:
    """LiteRT 2.3.0's reference SUM reads int8 as uint8; its optimized kernel is the oracle here."""
    lively = 0
    for seed in range(30):
        content = summing(np.random.default_rng([seed, 5]))
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(content)
        program = lora_mcu.compile(path, board="native", adapt="none", loss="mse")
        edge = program.info.input
        x = np.concatenate([structured_samples(edge), random_samples(edge, 30, seed)])
        got = program.twin().infer(x)
        assert differing(got, Oracle(content, optimized=True).infer(x).reshape(got.shape)) == 0, seed
        lively += len(np.unique(got)) >= 16
    assert lively >= 10


def test_a_final_log_softmax_is_left_out_for_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.tensor((1, INPUTS), scale=0.05)
    logits, y = _dense(b, rng, x, INPUTS, 5, 0.3), b.tensor((1, 5), scale=1 / 16, zero_point=127)
    b.op("LOG_SOFTMAX", [logits], [y], "LogSoftmaxOptions")
    content = b.build([x], [y])
    (tmp_path / "m.tflite").write_bytes(content)
    program = lora_mcu.compile(tmp_path / "m.tflite", board="native", adapt="all")
    assert program.info.loss == "cross_entropy" and [op.KIND for op in program.split.tail] == ["LOG_SOFTMAX"]
    twin, samples = program.twin(), random_samples(program.info.input, 40, 1)
    assert differing(twin.infer(samples), Oracle(content).infer(samples)) == 0
    assert any(g.any() for g in twin.gradients(samples[-1], np.int64(2)).values())


def test_copies_that_keep_the_order_cost_nothing() -> None:
    b = Builder()
    q = {"scale": 0.5, "zero_point": 3}
    x = b.tensor((1, 4, 1, 3), **q)
    t, s, c, p = (b.tensor(shape, **q) for shape in ((1, 1, 4, 3), (1, 4, 3), (1, 4, 3), (1, 1, 4, 3)))
    b.op("TRANSPOSE", [x, b.tensor((4,), "int32", data=[0, 2, 1, 3])], [t], "TransposeOptions")
    axes = [b.tensor((4,), "int32", data=v) for v in ([0, 0, 0, 0], [1, 1, 4, 3], [1, 1, 1, 1])]
    b.op("STRIDED_SLICE", [t, *axes], [s], "StridedSliceOptions", shrinkAxisMask=2)
    b.op("CONCATENATION", [s], [c], "ConcatenationOptions", axis=1)
    b.op("PACK", [c], [p], "PackOptions", axis=1, valuesCount=1)
    graph = normalize.normalize(loads(b.build([x], [p])))
    assert len(graph.ops) == 4 and all(isinstance(op, Reshape) for op in graph.ops)

# SPDX-License-Identifier: Apache-2.0
"""Products of activations, and a softmax inside a model: the gradients are the NumPy reference's, byte for byte, and
close to TensorFlow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.op_cases import case
from conformance.oracle import Oracle, differing
from conformance.quick_twin import quick_twin
from conformance.samples import random_samples
from conformance.straight_through import StraightThrough
from conformance.tflite_builder import Builder
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu import ModelError
from lora_mcu.importer import loads
from lora_mcu.reference import Reference


def _compare_gradients(path: Path, seed: int) -> int:
    """Number of gradients that are not all zero, of one model at B = 0 and with random factors."""
    program = lora_mcu.compile(path, board="native", adapt="all", loss="mse", rank=3)
    twin, reference, graph = quick_twin(program), Reference(program), StraightThrough(program)
    x, labels = labelled(program.info, 3, seed)
    alive = 0
    for adapter in (twin.adapter(), random_adapter(program.info, seed)):
        for learner in (twin, reference):
            learner.load(adapter)
        assert differing(twin.infer(x), reference.infer(x)) == 0
        for sample, label in zip(x, labels, strict=True):
            got, want = twin.gradients(sample, label), reference.gradients(sample, label)
            _, real = graph.gradients(reference.activations(sample), adapter, label)
            for key, value in got.items():
                assert differing(value, want[key]) == 0, key
                size = np.linalg.norm(real[key])
                assert np.linalg.norm(value - real[key]) <= 1e-3 * size, f"{key}: {size}"
                alive += bool(value.any())
    return alive


@pytest.mark.parametrize("kind", ["batch_matmul", "dense_of_activations", "inner_softmax"])
def test_gradients(kind: str, tmp_path: Path) -> None:
    alive = 0
    for seed in range(8):
        path = tmp_path / f"{kind}{seed}.tflite"
        path.write_bytes(case(kind, seed))
        alive += _compare_gradients(path, seed)
    assert alive >= 30


def test_a_tensor_times_itself(tmp_path: Path) -> None:
    """Both gradients go into one buffer: first that of a, then that of b."""
    b = Builder()
    x, w = b.tensor((1, 6), scale=0.1, zero_point=3), b.tensor((16, 6), scale=0.02, data=_ramp(16, 6))
    flat, square, y = b.tensor((1, 16), scale=0.05, zero_point=-9), b.tensor((4, 4), scale=0.05, zero_point=-9), 0
    b.op("FULLY_CONNECTED", [x, w, -1], [flat], "FullyConnectedOptions")
    b.op("RESHAPE", [flat, b.tensor((2,), "int32", data=(4, 4))], [square], "ReshapeOptions")
    y = b.tensor((4, 4), scale=0.2, zero_point=5)
    b.op("BATCH_MATMUL", [square, square], [y], "BatchMatMulOptions", adjY=True)
    path = tmp_path / "square.tflite"
    path.write_bytes(b.build([x], [y]))
    assert _compare_gradients(path, 1) >= 6
    program = lora_mcu.compile(path, board="native", adapt="none", loss="mse")
    samples = random_samples(program.info.input, 50, 3)
    got = quick_twin(program).infer(samples)
    assert differing(got, Oracle(path).infer(samples).reshape(got.shape)) == 0


def _ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 37 % 255 - 127).astype(np.int8)


@pytest.mark.parametrize(
    ("a", "w", "message"),
    [
        ((2, 3), (4, 5), r"shapes \[2, 3\] and \[4, 5\] do not fit"),
        ((2, 2, 3), (3, 3, 4), r"shapes \[2, 2, 3\] and \[3, 3, 4\] do not fit"),
        ((1, 40_000), (40_000, 1), "sums of 40000 products may overflow; at most 33000"),
    ],
)
def test_refusals(a: tuple[int, ...], w: tuple[int, ...], message: str) -> None:
    b = Builder()
    x, other = b.tensor(a, scale=0.1), b.tensor(w, scale=0.1, data=np.ones(w))
    y = b.tensor((*a[:-1], w[-1]), scale=0.1)
    b.op("BATCH_MATMUL", [x, other], [y], "BatchMatMulOptions")
    with pytest.raises(ModelError, match=rf"operator 0 BATCH_MATMUL \(output 't2'\): {message}"):
        loads(b.build([x], [y]))

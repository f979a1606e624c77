# SPDX-License-Identifier: Apache-2.0
"""Products of activations, and a softmax inside a model: the gradients are the NumPy reference's, byte for byte, and
close to TensorFlow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.models import convert
from conformance.op_cases import case
from conformance.oracle import Oracle, differing
from conformance.samples import random_samples, structured_samples
from conformance.straight_through import StraightThrough
from conformance.tflite_builder import Builder
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu import ModelError
from lora_mcu.importer import loads
from lora_mcu.importer.flatbuffer import read
from lora_mcu.reference import Reference

NEAR = {"f32": 1e-3, "i16": 0.1}  # relative distance to autodiff's gradients
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "transformer"


def _compare_gradients(path: Path, seed: int, numerics: str) -> int:
    """Number of gradients that are not all zero, of one model at B = 0 and with random factors."""
    program = lora_mcu.compile(path, board="native", adapt="all", loss="mse", rank=3, numerics=numerics)
    twin, reference, graph = program.twin(), Reference(program), StraightThrough(program)
    x, labels = labelled(program.info, 3, seed)
    alive, near = 0, NEAR[numerics]
    for adapter in (twin.adapter(), random_adapter(program.info, seed)):
        for learner in (twin, reference):
            learner.load(adapter)
        assert differing(twin.infer(x), reference.infer(x)) == 0
        for sample, label in zip(x, labels, strict=True):
            got, want = twin.gradients(sample, label), reference.gradients(sample, label)
            _, real = graph.gradients(reference.activations(sample), adapter, label)
            # a softmax subtracts nearly equal numbers: what is left of a small gradient is as exact as the largest
            rest = 1e-6 * max(np.linalg.norm(value) for value in real.values())
            for key, value in got.items():
                assert differing(value, want[key]) == 0, key
                assert np.linalg.norm(value - real[key]) <= near * np.linalg.norm(real[key]) + rest, key
                alive += bool(value.any())
    return alive


@pytest.mark.parametrize("numerics", sorted(NEAR))
@pytest.mark.parametrize("kind", ["batch_matmul", "dense_of_activations", "inner_softmax"])
def test_gradients(kind: str, numerics: str, tmp_path: Path) -> None:
    alive = 0
    for seed in range(8):
        path = tmp_path / f"{kind}{seed}.tflite"
        path.write_bytes(case(kind, seed))
        alive += _compare_gradients(path, seed, numerics)
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
    assert all(_compare_gradients(path, 1, numerics) >= 6 for numerics in NEAR)
    program = lora_mcu.compile(path, board="native", adapt="none", loss="mse")
    samples = random_samples(program.info.input, 50, 3)
    got = program.twin().infer(samples)
    assert differing(got, Oracle(path).infer(samples).reshape(got.shape)) == 0


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The example's transformer, small and untrained; its batch fixed, or left open as is the default."""
    import tensorflow as tf

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        import make_vit
    tf.keras.utils.set_random_seed(5)
    model = make_vit.build(width=8, heads=2, hidden=12, blocks=1)
    calibration = np.random.default_rng(5).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    folder, made = tmp_path_factory.mktemp("transformer"), {}
    made["fixed"] = folder / "fixed.tflite"
    made["fixed"].write_bytes(make_vit.convert(model, calibration))
    made["open"] = folder / "open.tflite"
    made["open"].write_bytes(convert(model, calibration[:, None]))
    return made


@pytest.mark.parametrize("batch", ["fixed", "open"])
def test_a_transformer_equals_the_oracle(batch: str, blocks: dict[str, Path]) -> None:
    kinds = {op.kind for op in read(blocks[batch].read_bytes()).ops}
    assert {"BATCH_MATMUL", "GELU", "RSQRT", "SQUARED_DIFFERENCE", "TRANSPOSE", "SOFTMAX", "MEAN"} <= kinds
    for adapt in ("none", "all"):
        program = lora_mcu.compile(blocks[batch], board="native", adapt=adapt)
        edge = program.info.input
        x = np.concatenate([structured_samples(edge), random_samples(edge, 100, 3)])
        got = program.twin().infer(x)
        assert differing(got, Oracle(blocks[batch]).infer(x)) == 0
        assert len(np.unique(got)) >= 8


@pytest.mark.parametrize("numerics", sorted(NEAR))
def test_a_transformer_trains_through_attention(numerics: str, blocks: dict[str, Path]) -> None:
    """All projections of a block by pattern; gradients and steps as in NumPy, byte for byte."""
    adapt = "q,k,v,attention_output,expand,contract"
    program = lora_mcu.compile(blocks["fixed"], board="native", adapt=adapt, rank=2, numerics=numerics)
    names = [layer.name for layer in program.info.layers]
    for part in ("query", "key", "value", "attention_output", "expand", "contract"):
        assert sum(part in name for name in names) == 1
    assert len(names) == 6
    (scores, mixed) = (layer for layer in program.report().layers if layer.kind == "BATCH_MATMUL")
    assert scores.macs_forward == mixed.macs_forward == 16 * 16 * 8 and scores.macs_backward == 2 * scores.macs_forward
    twin, reference, graph = program.twin(), Reference(program), StraightThrough(program)
    x, labels = labelled(program.info, 6, 4)
    for adapter in (twin.adapter(), random_adapter(program.info, 8)):
        for learner in (twin, reference):
            learner.load(adapter)
        for sample, label in zip(x[:2], labels[:2], strict=True):
            got, want = twin.gradients(sample, label), reference.gradients(sample, label)
            _, real = graph.gradients(reference.activations(sample), adapter, label)
            for key, value in got.items():
                assert differing(value, want[key]) == 0, key
                assert np.linalg.norm(value - real[key]) <= NEAR[numerics] * np.linalg.norm(real[key]), key
            assert sum(bool(value.any()) for value in got.values()) >= 6
    for learner in (twin, reference):
        learner.configure(lr=0.01, batch_size=2, momentum=0.5)
        learner.train(x, labels)
    assert twin._read_factors() == reference._read_factors()


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

# SPDX-License-Identifier: Apache-2.0
"""Gradients of every adapted layer against TensorFlow's autodiff, and against finite differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conformance.models import LOSS, MADE
from conformance.oracle import Array, Oracle, differing
from conformance.real_models import for_oracle
from conformance.samples import random_samples
from conformance.straight_through import StraightThrough
from conformance.tflite_builder import Builder
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu import Adapter
from lora_mcu.program import Program
from lora_mcu.reference import Reference
from lora_mcu.twin import Twin

SAMPLES = 3
REAL = (
    "mlperf_ad01_int8", "mlperf_kws_ref_model", "mlperf_pretrainedResnet_quant", "mlperf_str_ww_ref_model",
    "silabs_tflm_magic_wand", "tflm_hello_world_int8", "tflm_micro_speech_quantized", "tinymaix_mnist_resnet_q",
)  # fmt: skip
LARGE = ("mlperf_vww_96_int8", "tinymaix_mbnet128_025_q", "tflm_person_detect")


def _samples(program: Program, oracle: Oracle, real: Array | None = None) -> tuple[Array, Array]:
    """Samples with a label that the base thinks unlikely, so that gradients do not vanish."""
    x = random_samples(program.info.input, 2 * SAMPLES, 21)[1::2] if real is None else real
    if program.info.loss == "mse":
        return x, labelled(program.info, len(x), 22)[1]
    outputs = [y.ravel() for y in oracle.infer(x)]
    return x, np.array([int(y.argmin()) if y.size > 1 else int(y[0] < 0) for y in outputs])  # of one: p < 0.5


def _check(got: dict[str, Array], want: dict[str, Array], a_is_zero: bool) -> None:
    assert got.keys() == want.keys()
    for key, expected in want.items():
        found, size = got[key].astype(np.float64), np.linalg.norm(expected)
        assert found.shape == expected.shape
        if a_is_zero and key.endswith("lora_A"):
            assert not found.any() and size == 0.0, key
            continue
        if size == 0.0:  # masked throughout
            assert not found.any(), key
            continue
        cosine = float((found * expected).sum() / (np.linalg.norm(found) * size))
        error = float(np.linalg.norm(found - expected) / size)
        assert cosine >= 0.9999 and error <= 1e-3, f"{key}: cosine {cosine:.6f}, relative error {error:.2e}"


def _gradients_agree(path: Path, loss: str = "auto", real: Array | None = None) -> None:
    program = lora_mcu.compile(path, board="native", adapt="all", loss=loss, numerics="f32")  # i16: test_modes.py
    twin, reference, graph = program.twin(), Reference(program), StraightThrough(program)
    oracle = Oracle(for_oracle(path), keep_all=True)
    x, labels = _samples(program, oracle, real)
    zero, factors = twin.adapter(), random_adapter(program.info, 31)
    alive = 0
    for sample, label in zip(x, labels, strict=True):
        tensors = oracle.tensors(sample)
        twin.load(zero)
        value, want = graph.gradients(tensors, zero, label)
        assert twin.evaluate(sample[None], label[None]).loss == pytest.approx(value, rel=1e-5, abs=1e-6)
        got = twin.gradients(sample, label)
        _check(got, want, a_is_zero=True)
        alive += sum(bool(got[key].any()) for key in got if key.endswith("lora_B"))
        for learner in (twin, reference):
            learner.load(factors)
        value, want = graph.gradients(reference.activations(sample), factors, label)
        assert twin.evaluate(sample[None], label[None]).loss == pytest.approx(value, rel=1e-5, abs=1e-6)
        _check(twin.gradients(sample, label), want, a_is_zero=False)
    assert alive >= len(program.info.layers), "at B = 0 most layers must have a dB"


@pytest.mark.parametrize("name", sorted(MADE))
def test_made_model(name: str, made_models: dict[str, Path]) -> None:
    _gradients_agree(made_models[name], LOSS.get(name, "auto"))


def test_rescaling_between_layers(tmp_path: Path) -> None:
    """A QUANTIZE from int8 to int8 in the middle: its gradient passes straight through, but for what hits a rail."""
    rng = np.random.default_rng(8)
    b = Builder()
    x, h = b.tensor((1, 9), "int8", 0.02, -5), b.tensor((1, 13), "int8", 0.02, 4)
    narrow, y = b.tensor((1, 13), "int8", 0.006, -30), b.tensor((1, 5), "int8", 0.01, 3)
    w0 = b.tensor((13, 9), "int8", 0.004, 0, data=rng.integers(-127, 128, (13, 9)))
    w1 = b.tensor((5, 13), "int8", rng.uniform(0.003, 0.006, 5), 0, data=rng.integers(-127, 128, (5, 13)))
    b.op("FULLY_CONNECTED", [x, w0, -1], [h], "FullyConnectedOptions")
    b.op("QUANTIZE", [h], [narrow])
    b.op("FULLY_CONNECTED", [narrow, w1, -1], [y], "FullyConnectedOptions")
    path = tmp_path / "rescaled.tflite"
    path.write_bytes(b.build([x], [y]))
    _gradients_agree(path)


def test_har_on_real_windows(har_model: Path) -> None:
    with np.load(har_model.parent / "har.npz", allow_pickle=False) as data:
        _gradients_agree(har_model, real=data["x"][:: len(data["x"]) // 8])


@pytest.mark.parametrize("name", REAL)
def test_real_model(name: str, models_dir: Path) -> None:
    _gradients_agree(models_dir / f"{name}.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_real_model(name: str, models_dir: Path) -> None:
    _gradients_agree(models_dir / f"{name}.tflite")


@pytest.mark.parametrize("name", ["convolutions", "residual"])
def test_reference_activations_are_the_oracles(name: str, made_models: dict[str, Path]) -> None:
    """Every tensor between the operators, not the output alone."""
    program = lora_mcu.compile(made_models[name], board="native", adapt="all")
    reference, oracle = Reference(program), Oracle(made_models[name], keep_all=True)
    for sample in random_samples(program.info.input, 4, 5):
        tensors = oracle.tensors(sample)
        for i, value in reference.activations(sample).items():
            if program.graph.tensors[i].data is None:
                assert differing(value, tensors[i].reshape(value.shape)) == 0, program.graph.tensors[i].name


def test_gradients_change_no_state(har_model: Path) -> None:
    program = lora_mcu.compile(har_model, board="native", adapt="all")
    asked, plain = program.twin(), program.twin()
    x, labels = labelled(program.info, 12, 3)
    for twin in (asked, plain):
        twin.configure(lr=0.02, momentum=0.9, batch_size=4, seed=3)
        twin.store(x, labels)
        twin.train(x, labels)
    before = asked._read_factors()
    first = asked.gradients(x[0], labels[0])
    again = asked.gradients(x[0], labels[0])
    assert all(differing(first[key], again[key]) == 0 for key in first) and any(g.any() for g in first.values())
    assert asked._read_factors() == before == plain._read_factors()
    assert repr(asked.run_epochs(2)) == repr(plain.run_epochs(2))
    assert asked._read_factors() == plain._read_factors() != before


# ---- finite differences on a smooth case ----

N, K, HIDDEN, OUT = 80, 24, 16, 48
STEP = 0.2  # of the twin's difference: far above the int8 steps, and the loss is almost quadratic


def _smooth_model(path: Path) -> None:
    """Two dense layers without an activation; scales such that no clamp is ever hit."""
    rng = np.random.default_rng(9)
    b = Builder()
    x = b.tensor((1, K), "int8", 1 / 64, 0)
    weights = [rng.integers(-127, 128, shape).astype(np.int8) for shape in ((HIDDEN, K), (OUT, HIDDEN))]
    scales = [1 / 127 / np.sqrt(K), 1 / 127 / np.sqrt(HIDDEN)]
    w0 = b.tensor((HIDDEN, K), "int8", scales[0], 0, data=weights[0])
    w1 = b.tensor((OUT, HIDDEN), "int8", scales[1], 0, data=weights[1])
    hidden, y = b.tensor((1, HIDDEN), "int8", 1 / 64, 0), b.tensor((1, OUT), "int8", 1 / 64, 0)
    b.op("FULLY_CONNECTED", [x, w0, -1], [hidden], "FullyConnectedOptions")
    b.op("FULLY_CONNECTED", [hidden, w1, -1], [y], "FullyConnectedOptions")
    path.write_bytes(b.build([x], [y]))


def _moved(info: lora_mcu.info.ModelInfo, adapter: Adapter, direction: dict[str, Array], step: float) -> Adapter:
    parts = []
    for name, pair in adapter.layers.items():
        for part, value in zip("AB", pair, strict=True):
            parts.append((value.astype(np.float64) + step * direction[f"{name}.lora_{part}"]).ravel())
    return Adapter.from_factors(info, np.concatenate(parts).astype("<f2").tobytes())


def _mean_loss(twin: Twin, adapter: Adapter, x: Array, targets: Array) -> float:
    twin.load(adapter)
    return twin.evaluate(x, targets).loss


def test_finite_differences(tmp_path: Path) -> None:
    """The directional derivative along random directions: of the float graph, and of the twin's own loss.

    The int8 steps of the activations remain: within 1 % of the float graph, within 2 % of the twin's loss, whose
    rounding averages out over samples, outputs and a wide difference.
    """
    _smooth_model(tmp_path / "smooth.tflite")
    program = lora_mcu.compile(
        tmp_path / "smooth.tflite", board="native", adapt="all", rank=2, loss="mse", numerics="f32"
    )
    twin, graph = program.twin(), StraightThrough(program, quantized=False)
    rng = np.random.default_rng(4)
    x = np.clip(np.rint(rng.normal(0, 25, (N, K))), -80, 80).astype(np.int8)
    targets = (x / 64 @ rng.normal(size=(K, OUT))).astype(np.float32)
    adapter = random_adapter(program.info, 6, strength=1.0)
    twin.load(adapter)
    assert np.abs(twin.infer(x).astype(int)).max() < 127, "no clamp may be hit"
    sums: dict[str, Array] = {}
    for sample, target in zip(x, targets, strict=True):
        for key, value in twin.gradients(sample, target).items():
            sums[key] = sums.get(key, 0.0) + value.astype(np.float64) / len(x)
    for seed in range(3):
        draw = np.random.default_rng(seed)
        # along the gradient with noise: a direction in which the loss really changes
        direction = {
            key: g / np.linalg.norm(g) + draw.normal(size=g.shape) / np.sqrt(g.size) for key, g in sums.items()
        }
        slope = sum(float((sums[key] * direction[key]).sum()) for key in sums)

        def float_loss(step: float, direction: dict[str, Array] = direction) -> float:
            factors = {
                f"{name}.lora_{part}": tf.constant(value.astype(np.float64) + step * direction[f"{name}.lora_{part}"])
                for name, pair in adapter.layers.items()
                for part, value in zip("AB", pair, strict=True)
            }
            losses = [graph.loss({0: s[None]}, factors, t) for s, t in zip(x, targets, strict=True)]
            return float(np.mean(losses))

        assert (float_loss(1e-4) - float_loss(-1e-4)) / 2e-4 == pytest.approx(slope, rel=0.01)
        ends = [_mean_loss(twin, _moved(program.info, adapter, direction, s), x, targets) for s in (STEP, -STEP)]
        assert (ends[0] - ends[1]) / (2 * STEP) == pytest.approx(slope, rel=0.02)

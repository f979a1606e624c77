# SPDX-License-Identifier: Apache-2.0
"""The C against the NumPy reference of the numerics contract: the same bytes, forward, backward and over several steps.

The reference is written from the contract, not from the C, and gives the twin nothing but the model's structure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.models import LOSS, MADE
from conformance.oracle import Array, differing
from conformance.samples import random_samples, structured_samples
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu import Adapter
from lora_mcu.passes.blocks import NUMERICS
from lora_mcu.program import Program
from lora_mcu.reference import Reference
from lora_mcu.reference.scalar import exp, half_nearest, half_stochastic, log
from lora_mcu.twin import Twin

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.02, "batch_size": 3, "seed": 5},
    "everything": {
        "lr": 0.02, "lr_b_ratio": 8.0, "momentum": 0.9, "weight_decay": 0.05, "clip_norm": 0.7, "batch_size": 4,
        "seed": 77,
    },
    "nearest": {"lr": 0.05, "batch_size": 1, "rounding": "nearest"},
}  # fmt: skip


def _compile(name: str, made: dict[str, Path], har: Path, **options: Any) -> Program:
    path = har if name == "har" else made[name]
    options = {"adapt": "all", "loss": LOSS.get(name, "auto"), **options}
    return lora_mcu.compile(path, board="native", **options)


def _one_nan(values: Array) -> Array:
    """IEEE leaves a NaN's sign and payload open."""
    return np.where(np.isnan(values), np.float32(np.nan), values)


def _assert_equal(twin: Twin, reference: Reference, seed: int) -> None:
    info = twin.info
    x, labels = labelled(info, 6, seed)
    x = np.concatenate([x, structured_samples(info.input)])
    assert differing(twin.infer(x), reference.infer(x)) == 0
    for i in range(3):
        got, want = twin.gradients(x[i], labels[i]), reference.gradients(x[i], labels[i])
        assert got.keys() == want.keys()
        for key in got:
            assert differing(_one_nan(got[key]), _one_nan(want[key])) == 0, key


@pytest.mark.parametrize("name", [*sorted(MADE), "har"])
@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize(
    "options",
    [{}, {"rank": 3, "alpha": 5.0, "rslora": True, "seed": 9}, {"adapt": "last:2", "rank": 9}],
    ids=["rank4", "rank3_rslora", "last2_rank9"],
)
def test_forward_and_gradients(
    name: str, numerics: str, options: dict[str, Any], made_models: dict[str, Path], har_model: Path
) -> None:
    program = _compile(name, made_models, har_model, numerics=numerics, **options)
    twin, reference = program.twin(), Reference(program)
    assert twin._read_factors() == reference._read_factors()
    _assert_equal(twin, reference, 1)
    adapter = random_adapter(program.info, 3)
    before = twin.infer(random_samples(program.info.input, 20, 2))
    for learner in (twin, reference):
        learner.load(adapter)
    assert differing(before, twin.infer(random_samples(program.info.input, 20, 2))) > 0, "the adapter must act"
    _assert_equal(twin, reference, 4)


@pytest.mark.parametrize("name", [*sorted(MADE), "har"])
@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("settings", sorted(SETTINGS))
def test_training_gives_the_same_bytes(
    name: str, numerics: str, settings: str, made_models: dict[str, Path], har_model: Path
) -> None:
    program = _compile(name, made_models, har_model, numerics=numerics)
    twin, reference = program.twin(), Reference(program)
    x, labels = labelled(program.info, 10, 7)
    start = twin._read_factors()
    for learner in (twin, reference):
        learner.configure(**SETTINGS[settings])
        learner.store(x[:7], labels[:7])
    streamed = [learner.train(x, labels) for learner in (twin, reference)]
    assert repr(streamed[0]) == repr(streamed[1]) and streamed[0].steps >= 3
    assert twin._read_factors() == reference._read_factors() != start
    stored = [learner.run_epochs(3) for learner in (twin, reference)]
    assert repr(stored[0]) == repr(stored[1]) and stored[0].steps >= 6
    assert twin._read_factors() == reference._read_factors()
    assert repr(twin.evaluate(x, labels)) == repr(reference.evaluate(x, labels))


@pytest.mark.parametrize("name", [*sorted(MADE), "har"])
@pytest.mark.parametrize("numerics", NUMERICS)
def test_an_exploded_adapter_saturates_alike(
    name: str, numerics: str, made_models: dict[str, Path], har_model: Path
) -> None:
    """Factors at the ends of binary16: accumulators saturate, nothing overflows, the bytes stay the reference's."""
    program = _compile(name, made_models, har_model, numerics=numerics)
    twin, reference = program.twin(), Reference(program)
    rng = np.random.default_rng(12)
    factors = rng.choice([65504.0, -65504.0, 1.0, 6e-8, 0.0], program.info.parameters).astype("<f2")
    for learner in (twin, reference):
        learner.load(Adapter.from_factors(program.info, factors.tobytes()))
    _assert_equal(twin, reference, 8)
    x, labels = labelled(program.info, 4, 9)
    stats = []
    for learner in (twin, reference):
        learner.configure(lr=1.0, batch_size=2, momentum=0.9)
        stats.append(learner.train(x, labels))
    assert repr(stats[0]) == repr(stats[1])
    assert twin._read_factors() == reference._read_factors()


@pytest.mark.parametrize("name", ["mlperf_ad01_int8", "mlperf_kws_ref_model", "tinymaix_mnist_resnet_q"])
def test_real_models_train_to_the_same_bytes(name: str, models_dir: Path) -> None:
    program = lora_mcu.compile(models_dir / f"{name}.tflite", board="native", adapt="all")
    twin, reference = program.twin(), Reference(program)
    x, labels = labelled(program.info, 8, 3)
    for learner in (twin, reference):
        learner.configure(lr=1e-3, momentum=0.5, batch_size=2)
        learner.train(x, labels)
    factors = twin._read_factors()
    assert factors == reference._read_factors()
    b = np.concatenate([b.ravel() for _, b in twin.adapter().layers.values()])
    assert (b != 0).mean() > 0.5


def test_half_rounding_is_unbiased_and_nearest_is_ieee() -> None:
    """The reference's own rounding: nearest is NumPy's float16; stochastic draws both neighbours by distance."""
    rng = np.random.default_rng(1)
    value = (rng.normal(size=4000) * 10.0 ** rng.uniform(-9, 4, 4000)).astype(np.float32)
    assert (half_nearest(value) == value.astype(np.float16).view(np.uint16)).all()
    assert half_nearest(np.float32([1e6, -1e6])).tolist() == [0x7BFF, 0xFBFF]
    bits = np.arange(0, 65536, 16, dtype=np.uint32)
    for one in np.float32([1.00030517578125, -0.333, 3e-8, 6.1e-5]):
        drawn = half_stochastic(np.full(len(bits), one), bits).view(np.float16).astype(np.float64)
        assert abs(drawn.mean() - float(one)) <= np.ptp(drawn) / 2048
        assert len(np.unique(drawn)) == 2


def test_exp_and_log_are_close_to_the_real_ones() -> None:
    x = np.linspace(-87, 0, 20001, dtype=np.float32)
    assert np.abs(exp(x) / np.exp(x.astype(np.float64)) - 1).max() < 2e-7
    assert exp(np.float32([-90.0, 0.0, 200.0])).tolist() == [0.0, 1.0, np.inf]
    for value in np.float32([1.0, 1.5, 2.0, 10.0, 1000.0, 1e-30]):
        assert abs(float(log(value)) - np.log(float(value))) <= 2e-7 * max(1.0, abs(np.log(float(value))))

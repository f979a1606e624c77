# SPDX-License-Identifier: Apache-2.0
"""Mode i16 held to mode f32: the same base, alike outputs, gradients that point the same way, equal accuracy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conformance.fsdd import compare
from conformance.models import LOSS, MADE
from conformance.oracle import Array, differing
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu.passes.blocks import NUMERICS
from lora_mcu.twin import Twin

HAR = Path(__file__).parents[2] / "examples" / "har"
sys.path.append(str(HAR))
MODELS = ("mlperf_ad01_int8", "mlperf_kws_ref_model", "tinymaix_mnist_resnet_q")


def _twins(path: Path, **options: object) -> list[Twin]:
    return [lora_mcu.compile(path, board="native", numerics=n, **options).twin() for n in NUMERICS]  # type: ignore[arg-type]


def _cosine(a: Array, b: Array) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _check_gradients(twins: list[Twin], samples: int) -> None:
    """Summed over samples, as a batch is; every layer, A and B."""
    x, labels = labelled(twins[0].info, samples, 5)
    assert differing(*(t.infer(x) for t in twins)) == 0, "the base is the same"
    for twin in twins:
        twin.load(random_adapter(twin.info, 3))
    outputs = [t.infer(x).astype(np.float64) for t in twins]
    assert np.abs(outputs[0] - outputs[1]).mean() <= 0.1, "a rounding here and there"
    sums: list[dict[str, Array]] = []
    for twin in twins:
        found = [twin.gradients(x[i], labels[i]) for i in range(samples)]
        sums.append({key: np.sum([g[key] for g in found], axis=0) for key in found[0]})
    for key, wanted in sums[0].items():
        if np.any(wanted):
            assert _cosine(wanted, sums[1][key]) >= 0.99, key
            assert np.linalg.norm(sums[1][key]) == pytest.approx(np.linalg.norm(wanted), rel=0.1), key


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_gradients_point_the_same_way(name: str, rank: int, made_models: dict[str, Path]) -> None:
    _check_gradients(_twins(made_models[name], adapt="all", rank=rank, loss=LOSS.get(name, "auto")), 8)


def test_gradients_of_the_demo_model(har_model: Path) -> None:
    _check_gradients(_twins(har_model, adapt="all"), 8)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_real_models(name: str, models_dir: Path) -> None:
    _check_gradients(_twins(models_dir / f"{name}.tflite", adapt="all"), 4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_data_is_learned_alike(har_model: Path) -> None:
    """Six people, three seeds, as examples/har/demo.py trains them: within 0.3 points in the mean."""
    import demo
    import demo_report
    import windows

    har, baselines = windows.load(), demo_report.baselines()
    accuracies = []
    for twin in _twins(har_model, adapt="all"):
        found = []
        for person in har.people:
            for seed in baselines["seeds"]:
                split = windows.split_person(har, person, seed)
                twin.reset()
                twin.clear_store()
                twin.configure(lr=baselines["recommended_lr"], batch_size=8, seed=seed)
                twin.store(har.x[split.train], har.y[split.train])
                twin.run_epochs(demo.EPOCHS)
                found.append(twin.evaluate(har.x[split.test], har.y[split.test]).accuracy)
        accuracies.append(float(np.mean(found)))
    assert accuracies[1] >= accuracies[0] - 0.003, accuracies


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_spoken_digits_are_learned_alike(data_dir: Path) -> None:
    """Two of the six speakers (all: fsdd.py --seeds 3), within the noise of 1,200 test answers."""
    f32, i16 = (compare([1, 2], range(2), data_dir, numerics=n) for n in NUMERICS)
    assert abs(i16.twin_accuracy - f32.twin_accuracy) <= 0.01, (f32, i16)

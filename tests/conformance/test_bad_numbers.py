# SPDX-License-Identifier: Apache-2.0
"""Numbers that must not get through: NaN, infinite targets, a rate that explodes; and the way back to the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.models import LOSS, MADE
from conformance.odd_models import odd_regression
from conformance.oracle import Oracle, differing
from conformance.samples import random_samples, structured_samples
from conformance.training_data import labelled

import lora_mcu
from lora_mcu import DataError
from lora_mcu.twin import Twin


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad_numbers") / "odd_regression.tflite"
    path.write_bytes(odd_regression())
    return path


def _twin(path: Path, loss: str = "auto") -> Twin:
    return lora_mcu.compile(path, board="native", adapt="all", loss=loss).twin()


def _inputs(twin: Twin) -> Any:
    edge = twin.info.input
    return np.concatenate([structured_samples(edge), random_samples(edge, 30, 1)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite_is_refused_and_changes_nothing(bad: float, regression: Path, har_model: Path) -> None:
    for path, loss in ((regression, "mse"), (har_model, "auto")):
        twin = _twin(path, loss)
        x, labels = labelled(twin.info, 6, 2)
        real = x.astype(np.float32)
        real[3].flat[0] = bad
        twin.configure(lr=0.05, batch_size=2)
        twin.train(x, labels)
        factors = twin._read_factors()
        for call in (twin.train, twin.store, twin.evaluate):
            with pytest.raises(DataError, match="x of sample 3 holds NaN or infinity"):
                call(real, labels)
        with pytest.raises(DataError, match="x of sample 3 holds NaN or infinity"):
            twin.infer(real)
        assert twin._read_factors() == factors and twin.stored == 0
    targets = labelled(_twin(regression, "mse").info, 6, 2)[1]
    targets[1, 0] = bad
    with pytest.raises(DataError, match="labels of sample 1 holds NaN or infinity"):
        _twin(regression, "mse").train(x=np.zeros((6, 3, 5), np.float32), labels=targets)


@pytest.mark.parametrize("label", [-1, 6, 2**31])
def test_labels_out_of_range_are_refused(label: int, har_model: Path) -> None:
    twin = _twin(har_model)
    x, labels = labelled(twin.info, 4, 2)
    labels[2] = label
    with pytest.raises(DataError, match=rf"label {label} of sample 2 is not in 0\.\.5.*reserve outputs"):
        twin.train(x, labels)


def test_a_rate_that_explodes_shows_and_reset_restores_the_base(har_model: Path) -> None:
    twin, oracle = _twin(har_model), Oracle(har_model)
    with np.load(har_model.parent / "har.npz", allow_pickle=False) as data:
        x, labels = data["x"][:64], data["y"][:64]
    probe = _inputs(twin)
    want = oracle.infer(probe)
    start = twin.evaluate(x, labels).loss
    twin.configure(lr=1000.0, batch_size=8)
    stats = [twin.train(x, labels) for _ in range(5)]
    assert stats[-1].skipped > 0 or not stats[-1].loss < 2 * start, "training that diverged must show in the stats"
    factors = np.frombuffer(twin._read_factors(), np.float16)
    assert np.isfinite(factors).all() and np.abs(factors.astype(np.float32)).max() > 100
    assert differing(twin.infer(probe), want) > 0
    twin.reset()
    assert differing(twin.infer(probe), want) == 0
    assert twin._read_factors() == _twin(har_model)._read_factors()


def test_steps_that_would_not_be_finite_are_skipped_whole(har_model: Path) -> None:
    twin = _twin(har_model)
    x, labels = labelled(twin.info, 40, 3)
    factors = twin._read_factors()
    twin.configure(lr=3e38, lr_b_ratio=1000.0, batch_size=4)
    stats = twin.train(x, labels)
    assert (stats.steps, stats.skipped) == (0, 10)
    assert twin._read_factors() == factors, "a skipped step writes nothing"
    twin.configure(lr=0.01, batch_size=4)
    assert twin.train(x, labels).skipped == 0 and twin._read_factors() != factors


def test_targets_that_overflow_are_skipped_and_show_in_the_loss(regression: Path) -> None:
    twin = _twin(regression, "mse")
    x, targets = labelled(twin.info, 8, 4)
    factors = twin._read_factors()
    twin.configure(lr=0.01, batch_size=4)
    stats = twin.train(x, np.full_like(targets, 3e38))
    assert stats.skipped == 2 and stats.steps == 0 and np.isinf(stats.loss)
    assert twin._read_factors() == factors
    assert twin.train(x, targets).steps == 2


@pytest.mark.parametrize("name", [*sorted(MADE), "har"])
def test_dropping_the_adapter_restores_the_exact_base(name: str, made_models: dict[str, Path], har_model: Path) -> None:
    path = har_model if name == "har" else made_models[name]
    twin = _twin(path, LOSS.get(name, "auto"))
    probe = _inputs(twin)
    want = Oracle(path).infer(probe)
    initial = twin.adapter()
    twin.configure(lr=0.05, lr_b_ratio=4.0, momentum=0.5, batch_size=4)
    twin.train(*labelled(twin.info, 40, 5))
    assert differing(twin.infer(probe), want) > 0, "training must have changed the outputs"
    twin.load(initial)
    assert differing(twin.infer(probe), want) == 0
    twin.train(*labelled(twin.info, 40, 6))
    twin.reset()
    assert differing(twin.infer(probe), want) == 0

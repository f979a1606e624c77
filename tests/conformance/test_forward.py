# SPDX-License-Identifier: Apache-2.0
"""Whole models against LiteRT's reference kernels: 200 random and 20 structured inputs, 0 differing bytes.

Each model runs twice, without adapters and with all layers adapted and B = 0: an untrained adapter is not there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.models import LOSS, MADE
from conformance.oracle import Array, Oracle, differing
from conformance.real_models import ACCEPTED, for_oracle, others
from conformance.samples import STRUCTURED, random_samples, structured_samples

import lora_mcu
from lora_mcu.session.data import quantize

RANDOM = 200
# outputs of at least this many different values are expected, so that equality says something
LIVELY = 8


def _compare(path: Path, loss: str = "auto", real: Array | None = None) -> None:
    oracle = Oracle(for_oracle(path))
    want: Array | None = None
    for adapt in ("none", "all"):
        program = lora_mcu.compile(path, board="native", adapt=adapt, loss=loss)
        edge = program.info.input
        assert bool(program.info.layers) == (adapt == "all")
        x = np.concatenate([structured_samples(edge), random_samples(edge, RANDOM, 11)])
        if real is not None:
            x = np.concatenate([x, real if real.dtype == edge.dtype else quantize(edge, real)])
        assert len(x) >= STRUCTURED + RANDOM
        want = oracle.infer(x) if want is None else want
        got = program.twin().infer(x)
        assert differing(got, want) == 0, f"{path.name}, adapt {adapt}"
        assert len(np.unique(got)) >= (2 if program.info.streaming else LIVELY)


@pytest.mark.parametrize("name", sorted(MADE))
def test_made_model_equals_oracle(name: str, made_models: dict[str, Path]) -> None:
    _compare(made_models[name], LOSS.get(name, "auto"))


def test_har_equals_oracle_on_real_windows(har_model: Path) -> None:
    with np.load(har_model.parent / "har.npz", allow_pickle=False) as data:
        _compare(har_model, real=data["x"])


@pytest.mark.parametrize("name", ACCEPTED)
def test_real_model_equals_oracle(name: str, models_dir: Path) -> None:
    _compare(models_dir / f"{name}.tflite")


def test_keyword_model_equals_oracle_on_speech(models_dir: Path, data_dir: Path) -> None:
    with np.load(data_dir / "fsdd_mfcc49x10.npz", allow_pickle=False) as data:
        speech = data["x"][::30, :, :, None].astype(np.float32)
    assert speech.shape == (100, 49, 10, 1)
    _compare(models_dir / "mlperf_kws_ref_model.tflite", real=speech)


def test_any_other_model_is_exact_or_refused(models_dir: Path) -> None:
    for name in others(models_dir):
        path = models_dir / f"{name}.tflite"
        try:
            lora_mcu.compile(path, board="native", adapt="all")
        except lora_mcu.Error as refusal:
            assert "\n" not in str(refusal)
            continue
        _compare(path)


def test_all_operators_are_covered(made_models: dict[str, Path]) -> None:
    """The made models use every operator that the importer takes and the reshapes that it folds."""
    from lora_mcu.importer import load
    from lora_mcu.importer.flatbuffer import read

    kinds, raw = set(), set()
    for path in made_models.values():
        kinds |= {op.KIND for op in load(path).ops}
        raw |= {op.kind for op in read(path.read_bytes()).ops}
    assert kinds == {
        "ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "MAX_POOL_2D",
        "MEAN", "PAD", "QUANTIZE", "RESHAPE", "SOFTMAX",
    }  # fmt: skip
    assert {"SHAPE", "STRIDED_SLICE", "PACK"} <= raw

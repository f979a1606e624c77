# SPDX-License-Identifier: Apache-2.0
"""Cached features: the cut is valid and cheap, and epochs over features train the bytes that inputs train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.odd_models import odd_classifier, odd_regression
from conformance.tflite_builder import Builder
from conformance.training_data import labelled

import lora_mcu
from lora_mcu.passes.cut import Cut
from lora_mcu.program import Program
from lora_mcu.twin import Twin

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"
SETTINGS: dict[str, Any] = {"lr": 0.02, "momentum": 0.5, "batch_size": 4, "seed": 9}


def skip_model() -> bytes:
    """x [1, 8] -> dense a [1, 6]; a -> dense b [1, 6]; a + b -> dense c [1, 4] -> softmax: a crosses beside b."""
    rng = np.random.default_rng(4)
    b = Builder()

    def weights(m: int, k: int) -> int:
        return b.tensor((m, k), scale=0.02, data=rng.integers(-100, 100, (m, k)).astype(np.int8))

    x = b.tensor((1, 8), scale=0.05)
    first, second, total = (b.tensor((1, 6), scale=0.05) for _ in range(3))
    logits, y = b.tensor((1, 4), scale=0.1), b.tensor((1, 4), scale=1 / 256, zero_point=-128)
    b.op("FULLY_CONNECTED", [x, weights(6, 8)], [first], "FullyConnectedOptions")
    b.op("FULLY_CONNECTED", [first, weights(6, 6)], [second], "FullyConnectedOptions")
    b.op("ADD", [first, second], [total], "AddOptions")
    b.op("FULLY_CONNECTED", [total, weights(4, 6)], [logits], "FullyConnectedOptions")
    b.op("SOFTMAX", [logits], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def made(folder: Path, content: bytes, **options: Any) -> Program:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return lora_mcu.compile(path, board="netduinoplus2", **options)


def tune(program: Program) -> tuple[Twin, bytes]:
    twin = program.twin()
    initial = twin._read_factors()
    twin.configure(**SETTINGS)
    twin.store(*labelled(program.info, 10, 3))
    twin.run_epochs(6)
    assert twin._read_factors() != initial
    return twin, twin._read_factors()


def both(folder: Path, model: str, **options: Any) -> tuple[Program, Program]:
    if model == "har":
        return (lora_mcu.compile(HAR, board="netduinoplus2", cache="on", **options),
                lora_mcu.compile(HAR, board="netduinoplus2", cache="off", **options))  # fmt: skip
    content = {"skip": skip_model, "odd": odd_classifier, "regression": odd_regression}[model]()
    return made(folder, content, cache="on", **options), made(folder, content, cache="off", **options)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("har", {"adapt": "last:1"}),
        ("har", {"adapt": "last:2"}),
        ("har", {"adapt": "har_1_classes_1_MatMul,har_1_conv2_1_Relu"}),
        ("skip", {"adapt": "last:1"}),
        ("skip", {"adapt": "last:2"}),
        ("odd", {"adapt": "last:1"}),
        ("regression", {"adapt": "last:1", "loss": "mse"}),
    ],
    ids=lambda v: v if isinstance(v, str) else v["adapt"],
)
def test_features_train_the_bytes_of_inputs(model: str, options: dict[str, Any], tmp_path: Path) -> None:
    cached, plain = both(tmp_path, model, **options)
    assert cached.info.cached and not plain.info.cached
    assert cached.info.layout_sha256 == plain.info.layout_sha256, "the adapter's layout does not depend on the store"
    twin, factors = tune(cached)
    other, expected = tune(plain)
    assert factors == expected
    x, labels = labelled(cached.info, 6, 8)
    assert np.array_equal(twin.infer(x), other.infer(x)) and twin.evaluate(x, labels) == other.evaluate(x, labels)
    twin.train(x, labels)
    other.train(x, labels)
    assert twin._read_factors() == other._read_factors(), "streamed samples run the prefix"


def test_epochs_over_features_do_not_run_the_prefix() -> None:
    """Planted: a prefix that gives something else after the samples were stored changes nothing."""
    program = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1")
    files, guard = program.files(), b"static int calls; if (calls++ >= 10) { lmcu_arena[0] ^= 1; return; }\n"
    head = b"void lmcu_model_prefix(void)\n{\n"
    assert files["src/model.c"].count(head) == 1
    files["src/model.c"] = files["src/model.c"].replace(head, head + guard)
    planted = Twin.from_files(files, program.info)
    planted.configure(**SETTINGS)
    planted.store(*labelled(program.info, 10, 3))
    planted.run_epochs(6)
    assert planted._read_factors() == tune(program)[1]
    planted.train(*labelled(program.info, 4, 3))
    twin = tune(program)[0]
    twin.train(*labelled(program.info, 4, 3))
    assert planted._read_factors() != twin._read_factors(), "the planted prefix shows where it is run"


def cut_of(folder: Path, adapt: str, cache: str = "auto") -> Cut:
    return made(folder, skip_model(), adapt=adapt, cache=cache).cut


def test_the_cut_takes_all_tensors_that_cross_it(tmp_path: Path) -> None:
    """Behind the ADD one tensor of 6 bytes crosses; before the second dense layer only its input does."""
    assert (cut_of(tmp_path, "last:1").at, cut_of(tmp_path, "last:1").nbytes) == (3, 8)
    assert (cut_of(tmp_path, "last:2").at, len(cut_of(tmp_path, "last:2").tensors)) == (1, 1)
    assert cut_of(tmp_path, "all") == Cut(0, (0,), 8, 0, False)


def test_of_equal_savings_the_smaller_record_is_taken(tmp_path: Path) -> None:
    """A convolution, then a cheap PAD that makes its output larger: what is stored comes from before the PAD."""
    b = Builder()
    x = b.tensor((1, 8, 8, 4), scale=0.05)
    w = b.tensor((4, 7, 7, 4), scale=0.02, data=np.ones((4, 7, 7, 4), np.int8))
    small, wide = b.tensor((1, 8, 8, 4), scale=0.05), b.tensor((1, 10, 10, 4), scale=0.05)
    out = b.tensor((1, 4), scale=0.1)
    wd = b.tensor((4, 400), scale=0.02, data=np.ones((4, 400), np.int8))
    pads = b.tensor((4, 2), "int32", data=np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    conv = {"options": "Conv2DOptions", "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    b.op("CONV_2D", [x, w], [small], **conv)
    b.op("PAD", [small, pads], [wide], "PadOptions")
    b.op("FULLY_CONNECTED", [wide, wd], [out], "FullyConnectedOptions")
    program = made(tmp_path, b.build([x], [out]), adapt="last:1")
    assert (program.cut.at, program.cut.nbytes, program.cut.cached) == (1, 256, True)


def test_auto_does_not_store_features_that_are_larger_than_the_input(models_dir: Path) -> None:
    kws = models_dir / "mlperf_kws_ref_model.tflite"
    auto = lora_mcu.compile(kws, board="netduinoplus2", adapt="last:2")
    asked = lora_mcu.compile(kws, board="netduinoplus2", adapt="last:2", cache="on")
    assert (auto.info.cached, auto.info.record_bytes) == (False, 496)
    assert (asked.info.cached, asked.info.record_bytes) == (True, 8004)


def test_the_report_states_the_record(tmp_path: Path) -> None:
    report = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1").report()
    assert [part["bytes"] for part in report.record] == [64, 4] and report.record[1]["name"] == "label"
    assert report.cached and report.record_bytes == 68
    assert report.step_instructions_stored == report.step_instructions(1) - report.prefix_instructions
    plain = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1", cache="off").report()
    assert plain.record == [{"name": "input", "bytes": 768}, {"name": "label", "bytes": 4}]
    assert plain.step_instructions_stored == plain.step_instructions(1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adapt": "all", "cache": "on"}, "har_1_conv1_1_Relu, reads the model's input"),
        ({"adapt": "none", "cache": "on"}, "no layer is adapted"),
        ({"adapt": "all", "cache": "maybe"}, "use one of auto, on, off"),
    ],
)
def test_refusals(options: dict[str, Any], says: str) -> None:
    with pytest.raises(lora_mcu.ModelError, match=says):
        lora_mcu.compile(HAR, board="netduinoplus2", **options)

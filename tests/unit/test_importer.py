# SPDX-License-Identifier: Apache-2.0
"""The importer refuses in one line what cannot be served, and reads everything else without TensorFlow."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conformance.tflite_builder import SAME, VALID, Builder

from lora_mcu.errors import ModelError
from lora_mcu.importer import load, loads

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"


def dense_model(**changes: object) -> bytes:
    """x [1, 4] -> dense [1, 3]; ``changes`` replace arguments of one tensor or the file's outputs."""
    b = Builder()
    arguments = {
        "x": {"shape": (1, 4), "scale": 0.5},
        "w": {"shape": (3, 4), "scale": 0.1, "data": np.ones((3, 4), np.int8)},
        "b": {"shape": (3,), "dtype": "int32", "scale": 0.05, "data": np.zeros(3, np.int32)},
        "y": {"shape": (1, 3), "scale": 0.2},
    }
    for name, change in changes.items():
        if name in arguments:
            arguments[name] |= change
    x, w, bias, y = (b.tensor(**arguments[name]) for name in "xwby")
    b.op("FULLY_CONNECTED", changes.get("inputs", [x, w, bias]), [y], "FullyConnectedOptions")
    return b.build(changes.get("model_inputs", [x]), changes.get("model_outputs", [y]))


def test_reads_the_demo_model_with_names_and_without_tensorflow() -> None:
    graph = load(HAR)
    assert [op.KIND for op in graph.ops][:2] == ["RESHAPE", "CONV_2D"]
    assert list(graph.layer_names().values())[-1] == "har_1_classes_1_MatMul"
    assert "CONV_2D" in graph.dump() and "int8[1x128x6]" in graph.dump()
    assert len(set(graph.layer_names().values())) == len(graph.adaptable()) == 4


def test_operator_codes_are_read_from_the_new_field_too() -> None:
    """Some quantizers leave the deprecated field empty also where the operator is older than the new one."""
    b = Builder()
    x, y = b.tensor((1, 4), scale=0.5), b.tensor((1, 4), scale=0.25)
    b.op("QUANTIZE", [x], [y])
    b._model.operatorCodes[0].deprecatedBuiltinCode = 0
    assert [op.KIND for op in loads(b.build([x], [y])).ops] == ["QUANTIZE"]


def test_tensorflow_is_not_imported() -> None:
    code = f"import sys, lora_mcu; lora_mcu.compile({str(HAR)!r}, board='native'); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .tflite file"),
        (b"PK\x03\x04 this is a zip", "not a .tflite file"),
        (HAR.read_bytes()[:200], "truncated or damaged"),
        (HAR.read_bytes()[: len(HAR.read_bytes()) // 2], "truncated or damaged"),
    ],
)
def test_files_that_are_no_models(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        loads(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": {"dtype": "float32", "scale": None}, "w": {"dtype": "float32", "scale": None}},
            "float or dynamic-range",
        ),
        ({"x": {"shape": (1, 5)}}, "do not fit"),
        ({"x": {"shape": (1, 0)}}, "dynamic shape"),
        ({"y": {"scale": float("nan")}}, "not a positive number"),
        ({"y": {"scale": -1.0}}, "not a positive number"),
        ({"x": {"zero_point": 300}}, "zero point outside"),
        ({"w": {"scale": [0.1, 0.2]}}, "2 scales along dimension 0"),
        ({"w": {"data": None}}, "'t1' is neither constant nor made"),
        ({"b": {"data": np.zeros(2, np.int32)}}, "holds 8 bytes"),
        ({"b": {"shape": (2,), "data": np.zeros(2, np.int32)}}, "must be 3 constant int32"),
        ({"b": {"data": np.array([0, 2**31 - 500, 0], np.int32)}}, "beyond 32 bits"),
        ({"x": {"scale": None}}, "without quantization"),
        ({"inputs": [0]}, "missing or malformed"),
        ({"inputs": [0, 99, 2]}, "tensor 99 of 4"),
        ({"model_inputs": [0, 1]}, "2 inputs"),
        ({"model_outputs": []}, "0 outputs"),
        ({"model_outputs": [0]}, "does not depend on the input"),
        ({"model_outputs": [77]}, "tensor 77 of 4"),
    ],
)
def test_broken_models_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        loads(dense_model(**changes))
    assert "\n" not in str(caught.value)


def test_unknown_operator_is_named_with_its_index() -> None:
    b = Builder()
    x, y, z = (b.tensor((1, 4), scale=0.5) for _ in range(3))
    b.op("CUMSUM", [x], [y])
    b.op("ATAN2", [y, y], [z])
    with pytest.raises(ModelError, match=r"operator 0 CUMSUM \(output 't1'\): not supported \(nor are ATAN2\)"):
        loads(b.build([x], [z]))


def test_a_cycle_is_refused() -> None:
    b = Builder()
    x, y, z = (b.tensor((1, 4), scale=0.5) for _ in range(3))
    b.op("ADD", [x, z], [y], "AddOptions")
    b.op("RESHAPE", [y], [z])
    with pytest.raises(ModelError, match="neither constant nor made by an operator before"):
        loads(b.build([x], [z]))


@pytest.mark.parametrize(
    ("padding", "stride", "out", "pads"), [(SAME, 2, 3, (1, 1)), (VALID, 2, 2, (0, 0)), (SAME, 1, 5, (1, 1))]
)
def test_padding_becomes_explicit(padding: int, stride: int, out: int, pads: tuple[int, int]) -> None:
    b = Builder()
    x = b.tensor((1, 5, 5, 1), scale=0.5)
    w = b.tensor((2, 3, 3, 1), scale=[0.1, 0.2], data=np.ones((2, 3, 3, 1), np.int8))
    y = b.tensor((1, out, out, 2), scale=0.5)
    b.op("CONV_2D", [x, w], [y], "Conv2DOptions", padding=padding, strideH=stride, strideW=stride, dilationHFactor=1,
         dilationWFactor=1)  # fmt: skip
    (op,) = loads(b.build([x], [y])).ops
    assert (op.window.pad_top, op.window.pad_left) == pads
    assert op.macs(loads(b.build([x], [y]))) == out * out * 18


def test_every_truncation_and_many_mutations_end_in_a_model_or_one_line() -> None:
    """No other exception, whatever the bytes: 400 lengths and 1,500 files with flipped bytes."""
    good = HAR.read_bytes()
    rng = random.Random(0)
    cases = [good[: rng.randrange(len(good))] for _ in range(400)]
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 8))):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        cases.append(bytes(bad))
    refused = 0
    for content in cases:
        try:
            loads(content)
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 400

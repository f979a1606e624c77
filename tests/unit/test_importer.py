# SPDX-License-Identifier: Apache-2.0
"""The importer refuses in one line what cannot be served, and reads everything else without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conformance.tflite_builder import SAME, VALID, Builder, dense_model

from lora_mcu.errors import ModelError
from lora_mcu.importer import load, loads

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"


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


def two_outputs() -> bytes:
    """x [1, 4] -> dense t2 [1, 3] -> t4 = t2 + t2, and x -> CUMSUM -> t3 [1, 4]; outputs t4 and t3."""
    b = Builder()
    x = b.tensor((1, 4), scale=0.5)
    w = b.tensor((3, 4), scale=0.1, data=np.ones((3, 4), np.int8))
    y, other, total = b.tensor((1, 3), scale=0.2), b.tensor((1, 4), scale=0.5), b.tensor((1, 3), scale=0.4)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    b.op("CUMSUM", [x], [other])
    b.op("ADD", [y, y], [total], "AddOptions")
    return b.build([x], [total, other])


def test_of_several_outputs_one_is_named_and_the_others_are_dropped() -> None:
    graph = loads(two_outputs(), output="t4")
    assert [op.KIND for op in graph.ops] == ["FULLY_CONNECTED", "ADD"] and graph.tensors[graph.output].name == "t4"
    with pytest.raises(
        ModelError, match=r"2 outputs; name the one to train: output='...' of 't4' \[1, 3\], 't3' \[1, 4\]"
    ):
        loads(two_outputs())
    with pytest.raises(ModelError, match=r"no output 't9'; its outputs are 't4' \[1, 3\], 't3' \[1, 4\]"):
        loads(two_outputs(), output="t9")
    with pytest.raises(ModelError, match="operator 1 CUMSUM"):
        loads(two_outputs(), output="t3")


def ints(b: Builder, *values: int) -> int:
    return b.tensor((len(values),), "int32", data=values)


def test_shape_arithmetic_is_computed_here() -> None:
    """A transpose's permutation and a slice's end, made of SHAPE, CAST, STRIDED_SLICE, SUB, PACK and RANGE."""
    b = Builder()
    x = b.tensor((1, 2, 3), scale=0.5)
    shape, wide, last, size, end, perm = (b.tensor(s, "int32") for s in ((3,), (3,), (), (), (3,), (3,)))
    turned, y = b.tensor((3, 2, 1), scale=0.5), b.tensor((2, 2, 1), scale=0.5)
    b.op("SHAPE", [x], [shape], "ShapeOptions")
    b.op("CAST", [shape], [wide], "CastOptions")
    b.op("STRIDED_SLICE", [wide, ints(b, -1), ints(b, 0), ints(b, 1)], [last], "StridedSliceOptions", shrinkAxisMask=1)
    b.op("SUB", [last, b.tensor((), "int32", data=1)], [size], "SubOptions")
    b.op("PACK", [size, size, b.tensor((), "int32", data=1)], [end], "PackOptions", axis=0, valuesCount=3)
    b.op("RANGE", [b.tensor((), "int32", data=v) for v in (2, -1, -1)], [perm], "RangeOptions")
    b.op("TRANSPOSE", [x, perm], [turned], "TransposeOptions")
    b.op("SLICE", [turned, ints(b, 0, 0, 0), end], [y], "SliceOptions")
    graph = loads(b.build([x], [y]))
    assert [op.KIND for op in graph.ops] == ["TRANSPOSE", "SLICE"]
    assert graph.ops[0].perm == (2, 1, 0) and graph.ops[1].size == (2, 2, 1)


def test_folding_is_bounded() -> None:
    """4 million by 4 million elements, a range without end, a division by zero: they stay, and are refused by name."""
    for kind, values, options in (
        ("BROADCAST_TO", ([1], [1 << 22, 1 << 22]), ""),
        ("RANGE", ([0], [2**31 - 1], [1]), "RangeOptions"),
        ("FLOOR_DIV", ([1, 2], [0, 1]), "FloorDivOptions"),
    ):
        b = Builder()
        x, y, made = b.tensor((1, 2), scale=0.5), b.tensor((2, 1), scale=0.5), b.tensor((2,), "int32")
        b.op(kind, [ints(b, *v) for v in values], [made], options)
        b.op("TRANSPOSE", [x, made], [y], "TransposeOptions")
        with pytest.raises(ModelError, match=f"operator (0 {kind}|1 TRANSPOSE)"):
            loads(b.build([x], [y]))


def test_an_embedding_of_constants_becomes_a_constant() -> None:
    b = Builder()
    q = {"scale": 0.5, "zero_point": 1}
    x, table = b.tensor((1, 3, 2), **q), b.tensor((5, 2), data=np.arange(10), **q)
    rows, turned, batch = b.tensor((2, 2), **q), b.tensor((2, 2), **q), b.tensor((1, 2, 2), **q)
    y = b.tensor((1, 5, 2), **q)
    b.op("GATHER", [table, ints(b, 4, 1)], [rows], "GatherOptions")
    b.op("TRANSPOSE", [rows, ints(b, 1, 0)], [turned], "TransposeOptions")
    b.op("EXPAND_DIMS", [turned, ints(b, 0)], [batch])
    b.op("CONCATENATION", [batch, x], [y], "ConcatenationOptions", axis=1)
    (op,) = loads(b.build([x], [y])).ops
    assert op.KIND == "CONCATENATION"
    data = loads(b.build([x], [y])).tensors[op.inputs[0]].data
    assert data is not None and data.tolist() == [[[8, 2], [9, 3]]]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("CONCATENATION", {"axis": 7}, "axis 7 is out of range for 2 dimensions"),
        ("CONCATENATION", {"axis": 1, "fusedActivationFunction": 1}, "fused activation"),
        ("PACK", {"axis": 0}, "do not fill its output"),
        ("CONCATENATION", {"axis": 1}, "quantized differently; LiteRT copies no int8"),
    ],
)
def test_what_cannot_be_joined_is_said(kind: str, options: dict[str, object], message: str) -> None:
    b = Builder()
    x, other, y = (
        b.tensor((1, 4), scale=0.5),
        b.tensor((1, 4), scale=0.25, data=np.zeros(4)),
        b.tensor((1, 8), scale=0.5),
    )
    b.op(kind, [x, other], [y], {"PACK": "PackOptions"}.get(kind, "ConcatenationOptions"), **options)
    with pytest.raises(ModelError, match=f"operator 0 {kind}.*{message}"):
        loads(b.build([x], [y]))


@pytest.mark.parametrize(
    ("begin", "end", "step", "message"),
    [(0, 0, 1, "it takes nothing"), (9, 12, 1, "it takes nothing"), (0, 4, 0, "step of 0")],
)
def test_slices_of_nothing(begin: int, end: int, step: int, message: str) -> None:
    b = Builder()
    x, y = b.tensor((4,), scale=0.5), b.tensor((4,), scale=0.5)
    b.op("STRIDED_SLICE", [x, ints(b, begin), ints(b, end), ints(b, step)], [y], "StridedSliceOptions")
    with pytest.raises(ModelError, match=f"operator 0 STRIDED_SLICE.*{message}"):
        loads(b.build([x], [y]))

# SPDX-License-Identifier: Apache-2.0
"""What cannot be served is named with operator, tensor and the way out, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conformance.tflite_builder import Builder

from lora_mcu.errors import ModelError
from lora_mcu.importer import loads


def refusal(b: Builder, x: int, y: int, **arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        loads(b.build([x], [y]), **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one(kind: str, count: int = 1) -> tuple[Builder, int, int]:
    """x -> ADD -> t1 -> ``kind`` -> t2 [-> RELU ...]: an operator behind one that is served."""
    b = Builder()
    x, inner, y = (b.tensor((1, 4), scale=0.5) for _ in range(3))
    b.op("ADD", [x, x], [inner], "AddOptions")
    b.op(kind, [inner], [y])
    for _ in range(count - 1):
        following = b.tensor((1, 4), scale=0.5)
        b.op("RELU", [y], [following])
        y = following
    return b, x, y


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "unroll=True"),
        ("SVDF", "depthwise"),
        ("WHILE", "control flow: unroll the loop"),
        ("ARG_MAX", "--model-output 't1'"),
        ("TOPK_V2", "--model-output 't1'"),
        ("CONV_3D", "2-D convolutions"),
        ("CUMSUM", "replace it in the model"),
    ],
)
def test_operators_that_are_not_served_name_the_way_out(kind: str, way: str) -> None:
    line = refusal(*one(kind))
    assert line.startswith(f"operator 1 {kind} (output 't2'): not supported") and way in line


def test_an_operator_far_from_the_end_offers_no_cut() -> None:
    assert "--model-output" in refusal(*one("CUMSUM", 2))
    assert "--model-output" not in refusal(*one("CUMSUM", 9))


def test_custom_operators_are_named() -> None:
    for code, way in ((b"TFLite_Detection_PostProcess", "--model-output 't1'"), (b"FlexErf", "without SELECT_TF_OPS")):
        b, x, y = one("CUSTOM")
        b._model.operatorCodes[1].customCode = code
        line = refusal(b, x, y)
        assert f"operator 1 CUSTOM {code.decode()} (output 't2')" in line and way in line


def test_a_model_can_end_inside() -> None:
    b, x, y = one("ARG_MAX")
    graph = loads(b.build([x], [y]), output="t1")
    assert [op.KIND for op in graph.ops] == ["ADD"] and graph.tensors[graph.output].name == "t1"
    assert "no output 't11'; its outputs are 't2' [1, 4]; near in name: 't1'" in refusal(b, x, y, output="t11")


def dense(**changes: Any) -> tuple[Builder, int, int]:
    b = Builder()
    x, w, y = {"scale": 0.5}, {"scale": 0.1, "data": np.ones((3, 4), np.int8)}, {"scale": 0.5}
    x |= changes.get("x", {})
    w |= changes.get("w", {})
    y |= changes.get("y", {})
    ids = b.tensor((1, 4), **x), b.tensor((3, 4), **w), b.tensor((1, 3), **y)
    b.op("FULLY_CONNECTED", [ids[0], ids[1], -1], [ids[2]], "FullyConnectedOptions")
    return b, ids[0], ids[2]


FLOAT = {"dtype": "float32", "scale": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": FLOAT, "w": {**FLOAT}, "y": FLOAT}, "is float32; this is a float or dynamic-range model"),
        ({"x": FLOAT, "y": FLOAT}, "this is a dynamic-range model: only its weights are int8"),
        ({"x": {"dtype": "int16"}, "y": {"dtype": "int16"}}, "without INT16"),
        ({"w": {"dtype": "int4", "data": None}}, "'t1' is int4; weights of fewer than 8 bits"),
        ({"x": {"dtype": "uint8"}, "w": {"dtype": "uint8"}, "y": {"dtype": "uint8"}}, "uint8, as TensorFlow 1"),
    ],
)
def test_other_quantizations_name_the_way_out(changes: dict[str, Any], message: str) -> None:
    line = refusal(*dense(**changes))
    assert line.startswith("operator 0 FULLY_CONNECTED: tensor 't") and message in line
    if "float32" in line:
        assert "`lora-mcu quantize" in line and "TFLITE_BUILTINS_INT8" in line


def test_sparse_weights_are_refused() -> None:
    b, x, y = dense()
    b._graph.tensors[1].sparsity = schema.SparsityParametersT()
    assert "'t1' is stored sparse; convert again without EXPERIMENTAL_SPARSITY" in refusal(b, x, y)


def test_a_float16_model_is_a_float_model() -> None:
    b = Builder()
    x, y = b.tensor((1, 4), "float32"), b.tensor((1, 3), "float32")
    half, w = b.tensor((3, 4), "float16"), b.tensor((3, 4), "float32")
    b.op("DEQUANTIZE", [half], [w])
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    assert "float model" in refusal(b, x, y) or "float or dynamic-range" in refusal(b, x, y)


def test_a_resize_that_leaves_its_input_is_refused() -> None:
    b = Builder()
    x, y = b.tensor((1, 1001, 1, 1), scale=0.5), b.tensor((1, 2000, 1, 1), scale=0.5)
    b.op("RESIZE_BILINEAR", [x, b.tensor((2,), "int32", data=(2000, 1))], [y], "ResizeBilinearOptions")
    assert "rounded scale leaves the input" in refusal(b, x, y)


def test_a_resize_of_more_rows_than_its_tables_hold_names_the_limit() -> None:
    b = Builder()
    x, y = b.tensor((1, 2, 1, 1), scale=0.5), b.tensor((1, 40000, 1, 1), scale=0.5)
    b.op("RESIZE_BILINEAR", [x, b.tensor((2,), "int32", data=(40000, 1))], [y], "ResizeBilinearOptions")
    assert "more than 32767 rows or columns" in refusal(b, x, y)


def test_a_group_a_channel_needs_its_scales_by_output() -> None:
    """Scales along another dimension cannot follow the weights into a depthwise convolution."""
    b = Builder()
    x, y = b.tensor((1, 8, 8, 3), scale=0.5), b.tensor((1, 8, 8, 3), scale=0.5)
    w = b.tensor((3, 3, 3, 1), data=np.ones((3, 3, 3, 1), np.int8), scale=np.full(3, 0.1, np.float32), axis=1)
    b.op("CONV_2D", [x, w, -1], [y], "Conv2DOptions", strideH=1, strideW=1)
    assert "operator 0 CONV_2D" in refusal(b, x, y)


def test_a_batch_of_several_is_refused() -> None:
    b = Builder()
    x, y = b.tensor((8, 4, 4, 1), scale=0.5), b.tensor((8, 2, 2, 1), scale=0.5)
    b.op("MAX_POOL_2D", [x], [y], "Pool2DOptions", strideH=2, strideW=2, filterHeight=2, filterWidth=2, padding=1)
    assert "[1, H, W, C] is needed: convert with batch 1" in refusal(b, x, y)

# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile .tflite files: a program or one line, never another exception; what fuzzing found stays found."""

from __future__ import annotations

import collections
import contextlib

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conformance.tflite_builder import Builder, dense_model
from unit.importer_fuzz import judge, mutant, small_bases

from lora_mcu.errors import ModelError
from lora_mcu.importer import loads


def test_hostile_files_end_in_a_program_or_in_one_line() -> None:
    """3,000 of the files that `make fuzz-importer` tries by the hundred thousand; every 40th compiles when it loads."""
    files = small_bases()
    ends = collections.Counter(judge(mutant(files, i), i % 40 == 0) for i in range(3000))
    assert min(ends["served"], ends["named"], ends["damaged"]) > 300, ends  # else it tries one thing only


def test_names_are_cut_and_printable() -> None:
    """Found by fuzzing: a damaged length made a name of 5,000 control characters, a shape of 25 dimensions."""
    b = Builder()
    x, y = b.tensor((1, 4), scale=0.5), b.tensor((1, 4), scale=-1.0)
    b._graph.tensors[y].name = b"\x1b[2J\n" * 1000
    b.op("RELU", [x], [y])
    with pytest.raises(ModelError) as caught:
        loads(b.build([x], [y]))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    with pytest.raises(ModelError, match="'t0' has 25 dimensions; at most 8 are read"):
        loads(dense_model(x={"shape": (1,) * 25}))


def test_names_of_variables_are_cut_and_printable() -> None:
    """Found by fuzzing: a variable that nothing assigns, with a name of control characters."""
    b = Builder()
    x, y, z = (b.tensor((1, 4), scale=0.5) for _ in range(3))
    b.op("READ_VARIABLE", [b.variable("a\x01\x1b" * 2000)], [y])
    b.op("ADD", [x, y], [z], "AddOptions")
    with pytest.raises(ModelError) as caught:
        loads(b.build([x], [z]))
    assert "READ_VARIABLE" in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": {"shape": (1, 1 << 20, 1 << 20)}}, "more than 268435456 elements"),
        ({"x": {"shape": (1, -5)}}, "dynamic shape"),
        ({"w": {"shape": (3, 0), "data": np.zeros((3, 0), np.int8)}}, "dynamic shape"),
        ({"y": {"scale": float("inf")}}, "not a positive number"),
        ({"y": {"scale": 0.0}}, "not a positive number"),
        ({"x": {"zero_point": -129}}, "zero point outside"),
        ({"w": {"scale": [0.1, 0.2, 0.3], "axis": 9}}, "3 scales along dimension 9"),
        ({"w": {"scale": [0.1, 0.2, 0.3], "axis": -1}}, "3 scales along dimension -1"),
        ({"x": {"scale": [0.1, 0.2]}}, "2 scales along dimension 0"),
    ],
)
def test_hostile_fields_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        loads(dense_model(**changes))
    assert "\n" not in str(caught.value)


def test_a_bias_with_its_dimension_out_of_range_is_read() -> None:
    """As TFLM's person_detect has it; a bias' scales follow from input and weights."""
    (op,) = loads(dense_model(b={"scale": [0.05, 0.05, 0.05], "axis": 3})).ops
    assert op.KIND == "FULLY_CONNECTED"


def relu_twice(second: tuple[str, str]) -> bytes:
    """x -> RELU -> t1 -> RELU -> t2, the second operator from and to the tensors named."""
    b = Builder()
    ids = {name: b.tensor((1, 4), scale=0.5) for name in ("x", "t1", "t2")}
    b.op("RELU", [ids["x"]], [ids["t1"]])
    b.op("RELU", [ids[second[0]]], [ids[second[1]]])
    return b.build([ids["x"]], [ids[second[1]]])


def test_tensors_written_twice_are_refused() -> None:
    assert len(loads(relu_twice(("t1", "t2"))).ops) == 2
    with pytest.raises(ModelError, match="tensor 1 is written twice"):
        loads(relu_twice(("x", "t1")))
    with pytest.raises(ModelError, match="tensor 0 is written twice"):
        loads(relu_twice(("t1", "x")))
    with pytest.raises(ModelError, match="'t2' is neither constant nor made by an operator before"):
        loads(relu_twice(("t2", "t2")))


def test_buffers_may_be_shared_but_not_of_another_size() -> None:
    """Weights of two layers in one buffer are those of each; a tensor that overlaps half of it is refused."""
    for shape, message in (((4, 4), ""), ((2, 4), r"shape \[2, 4\] holds 16 bytes")):
        b = Builder()
        x, y, z = b.tensor((1, 4), scale=0.5), b.tensor((1, 4), scale=0.5), b.tensor((1, shape[0]), scale=0.5)
        one = b.tensor((4, 4), scale=0.1, data=np.arange(16))
        other = b.tensor(shape, scale=0.1)
        b._graph.tensors[other].buffer = b._graph.tensors[one].buffer
        b.op("FULLY_CONNECTED", [x, one, -1], [y], "FullyConnectedOptions")
        b.op("FULLY_CONNECTED", [y, other, -1], [z], "FullyConnectedOptions")
        with pytest.raises(ModelError, match=message) if message else contextlib.nullcontext():
            assert len(loads(b.build([x], [z])).ops) == 2


def test_a_buffer_outside_the_file_is_refused() -> None:
    for offset, size in ((1 << 40, 12), (100, 1 << 62), (2, (1 << 64) - 1)):
        b = Builder()
        x, w, y = b.tensor((1, 4), scale=0.5), b.tensor((3, 4), scale=0.1), b.tensor((1, 3), scale=0.5)
        b._model.buffers.append(schema.BufferT())
        b._model.buffers[-1].offset, b._model.buffers[-1].size = offset, size
        b._graph.tensors[w].buffer = len(b._model.buffers) - 1
        b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
        with pytest.raises(ModelError, match="'t1' lies beyond the end of the file"):
            loads(b.build([x], [y]))

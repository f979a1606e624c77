# SPDX-License-Identifier: Apache-2.0
"""Embeddings: GATHER of a constant table by the model's input, as converters write it, and indices from outside."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.oracle import Oracle, differing
from conformance.tflite_builder import Builder

import lora_mcu
from lora_mcu.importer import loads
from lora_mcu.reference import Reference

ROWS, WIDTH, TOKENS = 13, 5, 7
INT8_SCALE = 0.051


def model(dtype: str, wraps: bool = False, dense: bool = False, axis: int = 0, foreign: bool = False) -> bytes:
    """Indices [1, 7] of ``dtype`` -> rows [1, 7, 5], or classes behind a dense layer."""
    rng, b = np.random.default_rng(3), Builder()
    x = i = b.tensor((1, TOKENS), dtype, *((INT8_SCALE, -128) if dtype == "int8" else ()))
    if dtype == "int8":
        i = b.tensor((1, TOKENS), "float32")
        b.op("DEQUANTIZE", [x], [i])
    if dtype != "int32":
        whole = b.tensor((1, TOKENS), "int32")
        b.op("CAST", [i], [whole], "CastOptions")
        i = whole
    if wraps:
        zero, rows = b.tensor((), "int32", data=0), b.tensor((), "int32", data=ROWS)
        negative, shifted, chosen = (b.tensor((1, TOKENS), t) for t in ("bool", "int32", "int32"))
        b.op("LESS", [i, zero], [negative])
        b.op("ADD", [i, rows], [shifted], "AddOptions")
        b.op("SELECT", [negative, shifted, i], [chosen])
        i = chosen
    if foreign:
        other = b.tensor((1, TOKENS), "int32")
        b.op("MUL", [i, i], [other], "MulOptions")
        i = other
    table = b.tensor((ROWS, WIDTH), "int8", 0.02, 3, 0, rng.integers(-128, 128, (ROWS, WIDTH)))
    y = b.tensor((1, TOKENS, WIDTH), "int8", 0.02, 3)
    b.op("GATHER", [table, i], [y], "GatherOptions", axis=axis)
    if dense:
        w = b.tensor((4, TOKENS * WIDTH), "int8", 0.01, 0, 0, rng.integers(-127, 128, (4, TOKENS * WIDTH)))
        z = b.tensor((1, 4), "int8", 0.05, 0)
        b.op("FULLY_CONNECTED", [y, w, -1], [z], "FullyConnectedOptions")
        p = b.tensor((1, 4), "int8", 1 / 256, -128)
        b.op("SOFTMAX", [z], [p], "SoftmaxOptions", beta=1.0)
        y = p
    return b.build([x], [y])


def indices(dtype: str, wraps: bool, count: int = 60) -> Any:
    rng = np.random.default_rng(5)
    if dtype == "int8":
        return rng.integers(-128, 127, (count, TOKENS)).astype(np.int8)
    found = rng.integers(-ROWS if wraps else 0, ROWS, (count, TOKENS))
    if dtype == "float32":  # truncated towards zero
        return np.where(found >= 0, found + rng.choice([0, 0.25, 0.96], found.shape), found).astype(np.float32)
    return found.astype(np.int32)


def compiled(content: bytes, folder: Path, **options: Any) -> lora_mcu.Program:
    (folder / "embedding.tflite").write_bytes(content)
    return lora_mcu.compile(folder / "embedding.tflite", board="native", **options)


def raw(twin: lora_mcu.Twin, sample: Any) -> Any:
    """What the C makes of a sample that the host would refuse."""
    output = np.frombuffer(twin._infer(np.ascontiguousarray(sample).tobytes()), np.int8)
    return output.reshape(twin.info.output.shape)


@pytest.mark.parametrize(("dtype", "wraps"), [*itertools.product(("int32", "float32", "int8"), (False, True))])
def test_rows_equal_oracle(dtype: str, wraps: bool, tmp_path: Path) -> None:
    content = model(dtype, wraps)
    program = compiled(content, tmp_path, adapt="none", loss="mse")
    assert program.info.input.dtype == dtype and program.info.index_rows == ROWS
    x = indices(dtype, wraps)
    twin, reference = program.twin(), Reference(program)
    got = np.stack([raw(twin, sample) for sample in x])
    assert differing(got, Oracle(content).infer(x)) == 0
    assert len(np.unique(got.reshape(-1, WIDTH), axis=0)) >= ROWS - 1
    assert all(
        np.array_equal(a, reference.activations(s)[program.graph.output][0]) for a, s in zip(got, x, strict=True)
    )


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("wraps", [False, True])
def test_an_index_from_outside_reads_the_nearest_row(dtype: str, wraps: bool, tmp_path: Path) -> None:
    program = compiled(model(dtype, wraps), tmp_path, adapt="none", loss="mse")
    table = next(t.data for t in program.graph.tensors.values() if t.shape == (ROWS, WIDTH))
    values: list[Any] = [2**31 - 128, -(2**31), ROWS, -ROWS - 1, ROWS - 1, -1, 0]
    if dtype == "float32":
        values[:2] = [float("inf"), float("-inf")]
        values[6] = float("nan")
    want = [ROWS - 1, 0, ROWS - 1, 0, ROWS - 1, ROWS - 1 if wraps else 0, 0]
    sample = np.array(values, dtype)
    assert table is not None
    assert np.array_equal(raw(program.twin(), sample), table[want])
    assert np.array_equal(Reference(program).activations(sample)[program.graph.output][0], table[want])


def test_a_model_with_an_embedding_trains(tmp_path: Path) -> None:
    """Token classification that a dense layer behind the table can learn; hosts take integers and check their range."""
    program = compiled(model("int32", wraps=True, dense=True), tmp_path, adapt="all")
    x = indices("int32", False, 24)
    y = x[:, 0] % 4
    twin, reference = program.twin(), Reference(program)
    before = twin.evaluate(x, y)
    for learner in (twin, reference):
        learner.configure(lr=0.05, batch_size=4)
        learner.store(x.astype(np.int64), y)
        learner.run_epochs(8)
    assert twin.adapter().to_factors(twin.info) == reference.adapter().to_factors(twin.info)
    assert twin.evaluate(x, y).loss < 0.7 * before.loss
    with pytest.raises(lora_mcu.DataError, match=r"index 13 in sample 1 is not in 0\.\.12: .* has 13 rows"):
        twin.infer(np.array([[0] * 7, [0, 13, 0, 0, 0, 0, 0]]))
    with pytest.raises(lora_mcu.DataError, match="x is float64, the model takes int32"):
        twin.infer(np.zeros((1, 7)))


def test_refused_by_name() -> None:
    with pytest.raises(
        lora_mcu.ModelError, match="GATHER .*its indices are computed by operator 0 MUL; feed the indices"
    ):
        loads(model("int32", foreign=True))
    with pytest.raises(lora_mcu.ModelError, match="GATHER .*along axis 0 without batch dimensions, not axis 1"):
        loads(model("int32", axis=1))

# SPDX-License-Identifier: Apache-2.0
"""Streaming models: sequences equal to LiteRT's byte for byte, state reset, training on sequences, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.oracle import Oracle, differing
from conformance.real_models import STREAMING
from conformance.samples import random_samples, structured_samples
from conformance.stream_models import MADE, Stream
from conformance.tflite_builder import Builder

import lora_mcu
from lora_mcu.importer import load, loads, rewrite
from lora_mcu.ir import ReadState
from lora_mcu.passes.normalize import normalize
from lora_mcu.program import Program
from lora_mcu.reference import Reference

FRAMES = 64


def frames(program: Program, count: int, seed: int) -> Any:
    """[20 + count, *sample]: a stream of structured and random frames."""
    edge = program.info.input
    return np.concatenate([structured_samples(edge), random_samples(edge, count, seed)])


@pytest.fixture(params=sorted(MADE))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.tflite"
    path.write_bytes(MADE[request.param]())
    return path


@pytest.mark.parametrize("adapt", ["none", "all"])
def test_stream_equals_oracle(made: Path, adapt: str) -> None:
    """One stream of 84 frames; then the state is reset and gives the same again; the order of frames matters."""
    program = lora_mcu.compile(made, board="native", adapt=adapt)
    twin, x = program.twin(), frames(program, FRAMES, 3)
    want = Oracle(made).infer(x)
    got = twin.infer(x)
    assert differing(got, want.reshape(got.shape)) == 0
    assert len(np.unique(got)) >= 8
    alone = np.concatenate([_fresh(twin, frame) for frame in x])
    assert differing(got, alone) > 0.3 * len(x), "the state changes nothing"
    twin.reset_state()
    assert differing(twin.infer(x), got) == 0
    twin.reset()  # the base again, bit for bit: state included
    assert differing(twin.infer(x), got) == 0


def _fresh(twin: lora_mcu.Twin, frame: Any) -> Any:
    twin.reset_state()
    return twin.infer(frame[None])


def test_sequences_start_from_the_reset_state(made: Path) -> None:
    program = lora_mcu.compile(made, board="native", adapt="none")
    twin = program.twin()
    x = random_samples(program.info.input, 24, 5).reshape(4, 6, *program.info.input.shape)
    twin.infer(x[0])  # leaves some state
    got = twin.infer(x)
    assert got.shape == (4, 6, *program.info.output.shape)
    for sequence, outputs in zip(x, got, strict=True):
        want = Oracle(made).infer(sequence)
        assert differing(outputs, want.reshape(outputs.shape)) == 0


@pytest.mark.parametrize("name", STREAMING)
def test_real_model_equals_oracle(name: str, models_dir: Path, tmp_path: Path) -> None:
    """The output, and what its last dense layer reads (the output alone has few values on random input)."""
    path = models_dir / f"{name}.tflite"
    dense = load(path).adaptable()[-1]
    before = tmp_path / "before.tflite"
    before.write_bytes(rewrite.end_at(path.read_bytes(), dense.inputs[0]))
    for model, adapts, lively in ((path, ("none", "all"), 2), (before, ("all",), 16)):
        for adapt in adapts:
            program = lora_mcu.compile(model, board="netduinoplus2", adapt=adapt, loss="mse")
            x = np.concatenate([frames(program, 200, 7), _quiet(program, 80)])
            want, got = Oracle(model).infer(x), program.twin().infer(x)
            assert differing(got, want.reshape(got.shape)) == 0
            assert len(np.unique(got)) >= lively


def _quiet(program: Program, count: int) -> Any:
    """Frames near the zero point, as a quiet room gives."""
    rng = np.random.default_rng(11)
    noise = np.abs(rng.normal(0, 25, (count, *program.info.input.shape)))
    return np.clip(program.info.input.zero_point + noise, -128, 127).astype(np.int8)


# ---- training ----


def labelled(program: Program, count: int, length: int) -> tuple[Any, Any]:
    info, rng = program.info, np.random.default_rng(9)
    x = random_samples(info.input, count * length, 8).reshape(count, length, *info.input.shape)
    if info.loss == "cross_entropy":
        return x, rng.integers(0, info.classes, count)
    return x, rng.uniform(0, 1, (count, *info.output.shape)).astype(np.float32)


def test_training_equals_the_reference(made: Path) -> None:
    """Layers in front of and behind the state train; the reference truncates the gradient at every read."""
    program = lora_mcu.compile(made, board="native", adapt="all", rank=2)
    x, y = labelled(program, 7, 4)
    twin, reference = program.twin(), Reference(program)
    before = twin.evaluate(x, y)
    for learner in (twin, reference):
        learner.configure(lr=0.05, batch_size=3, momentum=0.5, seed=3)
        learner.train(x, y)
        learner.train(x[::-1], y[::-1])
    factors = twin.adapter().to_factors(program.info)
    assert factors == reference.adapter().to_factors(program.info)
    assert twin.evaluate(x, y) == reference.evaluate(x, y)
    assert twin.evaluate(x, y).loss != before.loss
    assert differing(twin.infer(x), reference.infer(x)) == 0
    ours, theirs = twin.gradients(x[2], y[2]), reference.gradients(x[2], y[2])
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert any(g.any() for g in ours.values())


def test_a_sequence_is_its_last_frame_behind_the_others(made: Path) -> None:
    """The label counts once, on the output that infer gives for the last frame."""
    program = lora_mcu.compile(made, board="native", adapt="all")
    x, y = labelled(program, 6, 3)
    twin = program.twin()
    outputs = twin.infer(x)[:, -1]
    if program.info.loss == "cross_entropy":
        flat = outputs.reshape(len(x), -1)
        hits = (flat[:, 0] > 128 if program.info.logit_count == 1 else flat.argmax(axis=1)) == y
        assert twin.evaluate(x, y).accuracy == pytest.approx(hits.mean())
    else:
        real = (outputs.astype(np.float64) - program.info.output.zero_point) * (program.info.output.scale or 1.0)
        want = np.mean((real - y).reshape(len(x), -1) ** 2)
        assert twin.evaluate(x, y).loss == pytest.approx(want, rel=1e-4)


def test_training_lowers_the_loss_on_its_sequences(tmp_path: Path) -> None:
    path = tmp_path / "gated_unit.tflite"
    path.write_bytes(MADE["gated_unit"]())
    program = lora_mcu.compile(path, board="native", adapt="all")
    twin, (x, y) = program.twin(), labelled(program, 12, 5)
    before = twin.evaluate(x, y)
    twin.configure(lr=0.1, batch_size=4)
    for _ in range(40):
        twin.train(x, y)
    after = twin.evaluate(x, y)
    assert after.loss < 0.6 * before.loss and after.accuracy > before.accuracy


# ---- what is safe to read in place, memory ----


def _reads(name: str) -> int:
    return sum(isinstance(op, ReadState) for op in normalize(loads(MADE[name]())).ops)


def test_reads_that_no_assignment_overtakes_need_no_copy() -> None:
    assert _reads("ring_convolution") == 0
    assert _reads("shared_names") == 3  # the concatenation reads them behind the assignments
    assert _reads("crossed_variables") == 3  # the second read of b is behind its last assignment
    assert _reads("running_average") == 1  # a product reads it again in the backward pass


def test_state_is_a_symbol_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ring.tflite"
    path.write_bytes(MADE["ring_convolution"]())
    program = lora_mcu.compile(path, board="netduinoplus2", adapt="all")
    report = program.report()
    assert report.sram["lmcu_state"] == 32 + 48 and report.constants["lmcu_initial_state"] == 32 + 48
    assert [(s["name"], s["bytes"]) for s in report.states] == [("stream/states", 27), ("stream_1/states", 48)]
    assert program.info.state_bytes == 80 and program.info.store_capacity == 0
    assert "'stream/states' = all -100" in program.graph.dump()


# ---- refusals ----


def _one_variable(
    dtype: str = "int8",
    scale: float | None = 0.02,
    init: bool = True,
    computed: bool = False,
    value_scale: float = 0.02,
) -> bytes:
    """y = dense([x, v]), v = x, with one thing wrong."""
    s = Stream(0)
    b = s.b
    x = b.tensor((1, 4), "int8", 0.02, 0)
    v = b.tensor((1, 4), dtype, scale, 0)
    b.op("READ_VARIABLE", [b.variable("v")], [v])
    value = x if dtype == "int8" and value_scale == 0.02 else b.tensor((1, 4), dtype, value_scale, 0)
    if value != x:
        b.op("QUANTIZE", [x], [value])
    s.assign("v", value)
    both = b.like(x, (1, 8))
    b.op("CONCATENATION", [x, v], [both], "ConcatenationOptions", axis=1)
    y = s.dense(both, 8, 3, 0.05, 0, 0.02)
    b.subgraph()
    if init:
        start = b.tensor((1, 4), dtype, scale, 0, 0, np.zeros((1, 4)))
        if computed:
            made = b.tensor((1, 4), dtype, scale, 0)
            b.op("LOGISTIC", [start], [made])
            start = made
        b.op("ASSIGN_VARIABLE", [b.variable("v"), start], [])
    return b.build([x], [y])


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (lambda: _one_variable("float32", None), ("READ_VARIABLE", "'v' is float32", "_experimental_variable")),
        (lambda: _one_variable(dtype="int16"), ("READ_VARIABLE", "'v' is int16", "only int8")),
        (lambda: _one_variable(init=False), ("READ_VARIABLE", "'v' is read before anything gave it a value")),
        (lambda: _one_variable(computed=True), ("LOGISTIC in the initialization subgraph 1", "by constants")),
        (lambda: _one_variable(value_scale=0.05), ("ASSIGN_VARIABLE", "scale 0.02", "0.05", "LiteRT copies its bytes")),
    ],
    ids=["float32", "int16", "uninitialized", "computed", "two scales"],
)  # fmt: skip
def test_refused_by_name(model: Callable[[], bytes], parts: tuple[str, ...]) -> None:
    with pytest.raises(lora_mcu.ModelError) as refusal:
        loads(model())
    message = str(refusal.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_initialization_that_is_not_there() -> None:
    b = Builder()
    b.op("CALL_ONCE", [], [], "CallOnceOptions", initSubgraphIndex=3)
    x = b.tensor((1, 4), "int8", 0.02, 0)
    y = b.tensor((1, 4), "int8", 1 / 256, -128)
    b.op("SOFTMAX", [x], [y], "SoftmaxOptions", beta=1.0)
    with pytest.raises(lora_mcu.ModelError, match="subgraph 3 of 1; the file is damaged"):
        loads(b.build([x], [y]))


def test_data_of_a_streaming_model(tmp_path: Path) -> None:
    """Labelled samples are sequences; nothing is stored; a model without state has none to reset."""
    path = tmp_path / "gated_unit.tflite"
    path.write_bytes(MADE["gated_unit"]())
    twin = lora_mcu.compile(path, board="native", adapt="all").twin()
    x = np.zeros((3, 6), np.int8)
    with pytest.raises(lora_mcu.DataError, match=r"x has shape \[3, 6\]; .* a sequence of T frames, \[N, T, 6\]"):
        twin.train(x, [0, 1, 2])
    with pytest.raises(lora_mcu.DataError, match="sequences of frames are not stored"):
        twin.store(x[:, None], [0, 1, 2])
    with pytest.raises(lora_mcu.DataError, match="x holds 3 samples but labels holds 2"):
        twin.evaluate(x[:, None], [0, 1])
    har = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"
    with pytest.raises(lora_mcu.ModelError, match="has no state to reset"):
        lora_mcu.compile(har, board="native", adapt="none").twin().reset_state()

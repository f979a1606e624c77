# SPDX-License-Identifier: Apache-2.0
"""Elementwise operators: tables entry by entry, forward against LiteRT, gradients against NumPy and TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conformance import elementwise_cases as cases
from conformance.elementwise_cases import BODIES, UNARY, Edge, f32, zero
from conformance.oracle import Array, Oracle, differing
from conformance.samples import random_samples, structured_samples
from conformance.tflite_builder import Builder
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu.importer import loads
from lora_mcu.ir import Activation, Graph, Lookup, Op, Tensor, tables
from lora_mcu.ir.elementwise import Add, Binary, Maximum, Minimum, Mul, Prelu, SquaredDifference, Sub, broadcast
from lora_mcu.passes.fold_islands import fold_islands
from lora_mcu.reference import Reference, binary

ALL_INPUTS = np.arange(-128, 128).astype(np.int8)


def _table_of(content: bytes) -> Lookup:
    (op,) = fold_islands(loads(content)).ops
    assert isinstance(op, Lookup)
    return op


def _one(kind: str, seed: int) -> bytes:
    """x [1, 256] -> y [1, 256]."""
    rng = np.random.default_rng([seed, *kind.encode()])
    b, shape = Builder(), (1, 256)
    scale, at = cases.unary_input(rng, kind)
    x = b.tensor(shape, "int8", scale, at)
    return b.build([x], [cases.add_unary(rng, b, kind, Edge(x, shape, scale, at))])


@pytest.mark.parametrize("kind", UNARY)
def test_every_entry_of_a_table_equals_the_oracle(kind: str) -> None:
    lively = 0
    for seed in range(50):
        content = _one(kind, seed)
        found = _table_of(content).table.values
        assert differing(found, Oracle(content).infer(ALL_INPUTS[None])[0]) == 0, f"{kind} seed {seed}"
        lively += len(np.unique(found)) >= 16
    assert lively >= 10


def test_elu_equals_litert() -> None:
    """The reference resolver lacks ELU; the other one has a single kernel for it."""
    for seed in range(50):
        content = _one("ELU", seed)
        interpreter = Interpreter(
            model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], ALL_INPUTS[None])
        interpreter.invoke()
        want = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        assert differing(_table_of(content).table.values, want) == 0


# ---- slopes ----

SMOOTH: dict[str, Callable[[Any], Any]] = {
    "RELU": tf.nn.relu, "RELU6": tf.nn.relu6, "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
    "LOGISTIC": tf.sigmoid, "TANH": tf.tanh, "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "ABS": tf.abs, "EXP": tf.exp, "LOG": tf.math.log, "SQRT": tf.sqrt, "RSQRT": tf.math.rsqrt, "NEG": tf.negative,
    "ELU": tf.nn.elu,
}  # fmt: skip


def _autodiff(function: Callable[[Any], Any], x: Array) -> Array:
    variable = tf.constant(x.astype(np.float64))
    with tf.GradientTape() as tape:
        tape.watch(variable)
        y = function(variable)
    return np.asarray(tape.gradient(y, variable))


@pytest.mark.parametrize("kind", sorted(SMOOTH))
def test_slopes_equal_autodiff(kind: str) -> None:
    rng, compared = np.random.default_rng(5), 0
    for _ in range(5):
        scale, at = cases.unary_input(rng, kind)
        x = Tensor("x", (1, 256), "int8", np.float32([scale]), np.array([at]))
        y = Tensor("y", (1, 256), "int8", np.float32([f32(scale)]), np.array([at]))
        with np.errstate(all="ignore"):
            table = tables.neg() if kind == "NEG" else tables.MAKERS[kind](x, y)
        real = tables.real(x).astype(np.float64)
        want = _autodiff(SMOOTH[kind], real)
        y_real = np.asarray(SMOOTH[kind](tf.constant(real)))
        low, high = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}.get(
            kind, (-np.inf, np.inf)
        )
        bounded = (
            (y_real <= low + scale)
            | (y_real >= high - scale)
            | (kind.startswith("RELU") & (np.abs(table.values + 0.5) > 127))
        )
        bounded |= (kind in ("LOG", "SQRT", "RSQRT")) & (real < 0)
        asked = np.isfinite(want) & (np.abs(want) < 3e38) & (real != 0) & ~bounded
        compared += int(asked.sum())
        np.testing.assert_allclose(table.slopes[asked], want[asked], rtol=2e-6, atol=1e-12)
        assert np.isfinite(table.slopes).all()
    assert compared >= 250


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_slope_equals_autodiff(approximate: bool) -> None:
    x = Tensor("x", (1, 256), "int8", np.float32([0.04]), np.array([3]))
    want = _autodiff(lambda v: tf.nn.gelu(v, approximate=approximate), tables.real(x))
    np.testing.assert_allclose(tables.gelu(x, x, approximate).slopes, want, rtol=1e-5, atol=1e-7)


def test_island_slope_equals_autodiff() -> None:
    """GELU as Keras decomposes it: 0.5 x (1 + tanh(0.8 (x + 0.044715 x^3))), POW and TANH in float32."""
    b, shape = Builder(), (1, 256)
    x = b.tensor(shape, "int8", 0.03, -7)
    opened, y = b.tensor(shape, "float32"), b.tensor(shape, "int8", 0.03, -7)
    b.op("DEQUANTIZE", [x], [opened])

    def step(kind: str, options: str, *inputs: int) -> int:
        out = b.tensor(shape, "float32")
        b.op(kind, list(inputs), [out], options)
        return out

    def number(value: float) -> int:
        return b.tensor((), "float32", data=np.float32(value))

    cube = step("MUL", "MulOptions", step("POW", "", opened, number(3.0)), number(0.044715))
    inner = step("MUL", "MulOptions", step("ADD", "AddOptions", opened, cube), number(0.7978845608))
    outer = step("ADD", "AddOptions", step("TANH", "", inner), number(1.0))
    half = step("MUL", "MulOptions", opened, number(0.5))
    b.op("QUANTIZE", [step("MUL", "MulOptions", outer, half)], [y])
    content = b.build([x], [y])
    op = _table_of(content)
    assert op.function == "POW+MUL+ADD+MUL+TANH+ADD+MUL+MUL"
    assert differing(op.table.values, Oracle(content).infer(ALL_INPUTS[None])[0]) == 0
    real = np.float32(0.03) * (np.arange(-128, 128) + 7).astype(np.float32)
    want = _autodiff(lambda v: tf.nn.gelu(v, approximate=True), real)
    np.testing.assert_allclose(op.table.slopes, want, rtol=1e-5, atol=1e-6)


# ---- operators behind an input and behind an adapted layer ----


@pytest.mark.parametrize("kind", sorted(BODIES))
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 30), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_operator_equals_oracle(kind: str, seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "case.tflite"
    lively = 0
    for seed in seeds:
        content = cases.direct(kind, seed)
        path.write_bytes(content)
        program = lora_mcu.compile(path, board="native", adapt="none", loss="mse")
        edge = program.info.input
        x = np.concatenate([structured_samples(edge), random_samples(edge, 20, seed)])
        got, want = program.twin().infer(x), Oracle(content).infer(x)
        assert differing(got, want.reshape(got.shape)) == 0, f"{kind} seed {seed}\n{program.graph.dump()}"
        lively += len(np.unique(got)) >= 8
    assert lively >= len(seeds) // 5


@pytest.mark.parametrize("kind", sorted(BODIES))
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 24), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_gradient_equals_reference(kind: str, seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "case.tflite"
    alive = 0
    for seed in seeds:
        content = cases.behind_dense(kind, seed)
        path.write_bytes(content)
        program = lora_mcu.compile(path, board="native", adapt="all", loss="mse")
        twin, reference = program.twin(), Reference(program)
        x, targets = labelled(program.info, 4, seed)
        got = twin.infer(x)
        assert differing(got, Oracle(content).infer(x).reshape(got.shape)) == 0, f"{kind} seed {seed}"
        for learner in (twin, reference):
            learner.load(random_adapter(program.info, seed))
        assert differing(twin.infer(x), reference.infer(x)) == 0, f"{kind} seed {seed}"
        found, want = twin.gradients(x[0], targets[0]), reference.gradients(x[0], targets[0])
        for key in want:
            assert differing(found[key], want[key]) == 0, f"{kind} seed {seed} {key}\n{program.graph.dump()}"
        alive += any(v.any() for v in found.values())
    assert alive >= len(seeds) // 2


# ---- gradients of two operands against autodiff ----

SHAPES = [((1, 3, 4, 5), (1, 3, 4, 5)), ((1, 3, 4, 5), (5,)), ((1, 3, 4, 5), ()), ((1, 1, 4, 1), (1, 3, 1, 5)),
          ((2, 1, 3), (4, 1))]  # fmt: skip
PAIRS: dict[type[Binary], Callable[[Any, Any], Any]] = {
    Add: tf.add, Sub: tf.subtract, Mul: tf.multiply, SquaredDifference: tf.math.squared_difference,
    Maximum: tf.maximum, Minimum: tf.minimum, Prelu: lambda x, a: tf.where(x > 0, x, a * x),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(PAIRS), ids=lambda k: k.KIND)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_binary_gradient_equals_autodiff(kind: type[Binary], shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """The NumPy reference, away from the rails, against TensorFlow: sums over what was broadcast."""
    rng = np.random.default_rng(9)
    shape = tuple(np.broadcast_shapes(*shapes))
    scales = (0.05, 0.05) if issubclass(kind, Maximum | Minimum) else (0.05, 0.11)
    tensors = {i: Tensor(f"t{i}", s, "int8", np.float32([scale]), np.array([i]))
               for i, s, scale in ((0, shapes[0], scales[0]), (1, shapes[1], scales[1]), (2, shape, 1.0))}  # fmt: skip
    op = kind(0, [0, 1], [2], Activation.NONE)
    graph = Graph("g", "", tensors, [op], 0, 2)
    a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in shapes)
    y, g = np.zeros(shape, np.int8), rng.normal(size=shape).astype(np.float32)
    into: list[Array | None] = [np.zeros(s, np.float32) for s in shapes][: len(op.data_inputs())]
    binary.backward(op, graph, (a, b, y), g, into)
    real = [tf.constant(float(t.s) * (v.astype(np.float64) - t.z)) for t, v in ((tensors[0], a), (tensors[1], b))]
    with tf.GradientTape() as tape:
        tape.watch(real)
        total = tf.reduce_sum(PAIRS[kind](*real) * tf.constant(g.astype(np.float64)))
    for found, want in zip(into, tape.gradient(total, real), strict=False):
        assert found is not None
        np.testing.assert_allclose(found, np.asarray(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(40))
def test_broadcast_strides_are_numpys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = tuple(int(v) for v in rng.integers(1, 5, rng.integers(1, 6)))
    a, b = (tuple(d if rng.integers(2) else 1 for d in y)[rng.integers(0, len(y)) :] for _ in range(2))
    y = tuple(np.broadcast_shapes(a, b))
    try:
        made = broadcast(a, b, y)
    except ValueError:
        assert len(y) > 4
        return
    for shape, strides in ((a, made.a_strides), (b, made.b_strides)):
        numbered = np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), y).ravel()
        index = np.zeros(made.dims, int)
        for axis, stride in enumerate(strides):
            index += np.arange(made.dims[axis]).reshape([-1 if i == axis else 1 for i in range(4)]) * stride
        assert (index.ravel() == numbered).all()


# ---- a binary classifier, and refusals ----


def _classifier(outputs: int) -> bytes:
    b, rng = Builder(), np.random.default_rng(3)
    x = b.tensor((1, 6), "int8", 0.05, 0)
    weights = b.tensor((outputs, 6), "int8", 0.02, 0, data=rng.integers(-127, 128, (outputs, 6)))
    z, y = b.tensor((1, outputs), "int8", 0.06, 0), b.tensor((1, outputs), "int8", 1 / 256, -128)
    b.op("FULLY_CONNECTED", [x, weights, -1], [z], "FullyConnectedOptions")
    b.op("LOGISTIC", [z], [y])
    return b.build([x], [y])


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_that_ends_in_logistic_trains_on_its_probabilities(outputs: int, tmp_path: Path) -> None:
    path = tmp_path / "logistic.tflite"
    path.write_bytes(_classifier(outputs))
    assert lora_mcu.compile(path, board="native").info.loss == ("mse" if outputs > 1 else "cross_entropy")
    program = lora_mcu.compile(path, board="native", adapt="all", loss="mse")
    twin = program.twin()
    x = random_samples(program.info.input, 40, 1)
    targets = np.repeat((x[:, :1] > 0).astype(np.float32), outputs, axis=1).reshape(40, *program.info.output.shape)
    before = twin.evaluate(x, targets).loss
    twin.configure(lr=0.1, batch_size=4)
    for _ in range(15):
        twin.train(x, targets)
    assert twin.evaluate(x, targets).loss < 0.7 * before


def test_a_binary_classifier_trains_on_classes_0_and_1(tmp_path: Path) -> None:
    """LOGISTIC is stripped; the C equals the reference, the first loss TensorFlow's formula."""
    path = tmp_path / "binary.tflite"
    path.write_bytes(_classifier(1))
    program = lora_mcu.compile(path, board="native", adapt="all")
    x = random_samples(program.info.input, 40, 1)
    y = (x[:, 0] > 0).astype(np.int64)
    twin, reference = program.twin(), Reference(program)
    before = twin.evaluate(x, y)
    logits = program.graph.tensors[program.split.logits]
    z = np.array([float(logits.s) * (int(reference.activations(s)[program.split.logits].item()) - logits.z) for s in x])
    want = tf.nn.sigmoid_cross_entropy_with_logits(labels=y.astype(np.float64), logits=z).numpy().mean()
    assert before.loss == pytest.approx(want, rel=1e-5)
    for learner in (twin, reference):
        learner.configure(lr=0.05, batch_size=4)
        learner.store(x, y)
        learner.run_epochs(5)
    assert twin.adapter().to_factors(twin.info) == reference.adapter().to_factors(reference.info)
    after = twin.evaluate(x, y)
    assert after.loss < 0.5 * before.loss and after.accuracy > 0.9
    with pytest.raises(lora_mcu.DataError, match=r"label 2 of sample \d+ is not in 0\.\.1"):
        twin.evaluate(x, y + 1)


def _message(content: bytes, tmp_path: Path) -> str:
    path = tmp_path / "odd.tflite"
    path.write_bytes(content)
    with pytest.raises(lora_mcu.ModelError) as refusal:
        lora_mcu.compile(path, board="native", adapt="none")
    message = str(refusal.value)
    assert message.startswith(("odd.tflite: operator ", "operator "))
    assert "\n" not in message
    return message


def _opened(b: Builder, shape: tuple[int, ...]) -> tuple[int, int]:
    x, opened = b.tensor(shape, "int8", 0.1, 0), b.tensor(shape, "float32")
    b.op("DEQUANTIZE", [x], [opened])
    return x, opened


def test_an_island_with_a_constant_per_channel_is_refused(tmp_path: Path) -> None:
    b = Builder()
    x, opened = _opened(b, (1, 3))
    scaled, y = b.tensor((1, 3), "float32"), b.tensor((1, 3), "int8", 0.1, 0)
    b.op("MUL", [opened, b.tensor((3,), "float32", data=[1, 2, 3])], [scaled], "MulOptions")
    b.op("QUANTIZE", [scaled], [y])
    assert "MUL (output 't2'): the float32 constant 't4'" in _message(b.build([x], [y]), tmp_path)


def test_an_island_over_two_tensors_is_refused(tmp_path: Path) -> None:
    b = Builder()
    x, opened = _opened(b, (1, 3))
    other, other_float = b.tensor((1, 3), "int8", 0.2, 1), b.tensor((1, 3), "float32")
    b.op("QUANTIZE", [x], [other])
    b.op("DEQUANTIZE", [other], [other_float])
    joined, y = b.tensor((1, 3), "float32"), b.tensor((1, 3), "int8", 0.1, 0)
    b.op("MUL", [opened, other_float], [joined], "MulOptions")
    b.op("QUANTIZE", [joined], [y])
    assert "MUL (output 't4'): it joins two int8 tensors in float32" in _message(b.build([x], [y]), tmp_path)


def test_an_island_without_its_second_operand_is_refused(tmp_path: Path) -> None:
    b = Builder()
    x, opened = _opened(b, (1, 3))
    cube, y = b.tensor((1, 3), "float32"), b.tensor((1, 3), "int8", 0.1, 0)
    b.op("POW", [opened], [cube])
    b.op("QUANTIZE", [cube], [y])
    assert "operator 1 POW (output 't2'): it needs 2 inputs" in _message(b.build([x], [y]), tmp_path)


def test_float_operators_outside_an_island_are_refused(tmp_path: Path) -> None:
    b = Builder()
    x, y = b.tensor((1, 3), "float32"), b.tensor((1, 3), "float32")
    b.op("TANH", [x], [y])
    assert "TANH: tensor 't0' is float32; this is a float or dynamic-range model" in _message(
        b.build([x], [y]), tmp_path
    )
    b = Builder()
    x, opened = _opened(b, (1, 3))
    y = b.tensor((1, 3), "float32")
    b.op("TANH", [opened], [y])
    assert "TANH: tensor 't2' is float32; this is a float" in _message(b.build([x], [y]), tmp_path)


@pytest.mark.parametrize(
    "kind, edges, why",
    [
        ("LOGISTIC", [(0.1, 0), (1 / 128, -128)], "quantized with scale 1/256"),
        ("NEG", [(0.1, 3), (0.1, 3)], "LiteRT negates bare integers"),
        ("HARD_SWISH", [(1.0, 0), (0.001, 0)], "output scale 0.001 does not fit input scale 1;"),
        ("SQUARE", [(0.1, 0), (0.1, 0)], "LiteRT computes it in float32 only"),
        ("RELU", [(1e9, 0), (1e-9, 0)], "output scale 1e-09 does not fit input scale 1e+09"),
    ],
)
def test_unary_refusals(kind: str, edges: list[tuple[float, int]], why: str, tmp_path: Path) -> None:
    b = Builder()
    x, y = (b.tensor((1, 4), "int8", *edge) for edge in edges)
    b.op(kind, [x], [y])
    message = _message(b.build([x], [y]), tmp_path)
    assert f"operator 0 {kind} (output 't1'): " in message and why in message


@pytest.mark.parametrize(
    "kind, options, edges, why",
    [
        ("MAXIMUM", "MaximumMinimumOptions", [(0.1, 0), (0.2, 0), (0.1, 0)], "quantized differently"),
        ("MUL", "MulOptions", [(1e3, 0), (1e3, 0), (1e-3, 0)], "output scale 0.001 does not fit input scales 1000"),
        ("SUB", "SubOptions", [(1.0, 0), (1.0, 0), (1e-7, 0)], "LiteRT refuses it too"),
        ("SQUARED_DIFFERENCE", "SquaredDifferenceOptions", [(1.0, 0), (1.0, 0), (1e-5, 0)], "LiteRT refuses it too"),
    ],
)
def test_binary_refusals(kind: str, options: str, edges: list[tuple[float, int]], why: str, tmp_path: Path) -> None:
    b = Builder()
    x = b.tensor((1, 4), "int8", *edges[0])
    other, y = b.tensor((1, 4), "int8", *edges[1], data=[1, 2, 3, 4]), b.tensor((1, 4), "int8", *edges[2])
    b.op(kind, [x, other], [y], options)
    message = _message(b.build([x], [y]), tmp_path)
    assert f"operator 0 {kind} (output 't2'): " in message and why in message


def test_shapes_that_do_not_broadcast_are_refused(tmp_path: Path) -> None:
    b = Builder()
    x = b.tensor((1, 4), "int8", 0.1, 0)
    other, y = b.tensor((3,), "int8", 0.1, 0, data=[1, 2, 3]), b.tensor((1, 4), "int8", 0.1, 0)
    b.op("MUL", [x, other], [y], "MulOptions")
    assert "shapes [1, 4] and [3] do not broadcast to [1, 4]" in _message(b.build([x], [y]), tmp_path)


def test_quantization_shown_in_the_dump() -> None:
    graph = loads(_one("TANH", 1))
    assert "LOOKUP" in graph.dump() and "function=TANH" in graph.dump() and "values" in graph.dump()
    assert isinstance(graph.ops[0], Op) and zero(np.random.default_rng(0)) in range(-128, 128)


# ---- as Keras and the converter produce them ----


def _keras_model() -> bytes:
    """Keras's activations but ELU, which the reference resolver lacks; squeeze and excitation, layer normalization."""
    from conformance.models import _calibration, convert

    k = tf.keras
    k.utils.set_random_seed(4)
    x = entry = k.Input((8, 7, 3))
    x = k.layers.Conv2D(8, 3, padding="same", bias_initializer="glorot_uniform")(x)
    x = k.layers.LeakyReLU(negative_slope=0.2)(x)
    x = k.layers.Conv2D(8, 1)(x)
    x = k.layers.PReLU(shared_axes=[1, 2], alpha_initializer=k.initializers.RandomUniform(0.0, 0.5))(x)
    x = k.layers.Conv2D(8, 1, activation="hard_silu")(x)
    s = k.layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = k.layers.Conv2D(4, 1, activation="silu")(s)
    s = k.layers.Conv2D(8, 1, activation="sigmoid")(s)
    x = k.layers.Multiply()([x, s])
    x = k.layers.LayerNormalization()(x)
    x = k.layers.Conv2D(8, 1, activation="gelu")(x)
    x = k.layers.Maximum()([x, k.layers.Conv2D(8, 1, activation="tanh")(x)])
    x = k.layers.Subtract()([x, k.layers.Conv2D(8, 1, activation="relu6")(x)])
    x = k.layers.Flatten()(x)
    model = k.Model(entry, k.layers.Dense(1, activation="sigmoid")(x))
    return convert(model, _calibration((8, 7, 3), 4), fixed_batch=True)


def test_keras_activations_have_autodiffs_gradients(tmp_path: Path) -> None:
    from conformance.test_gradients import _gradients_agree

    path = tmp_path / "activations.tflite"
    path.write_bytes(_keras_model())
    for loss in ("mse", "cross_entropy"):  # through the sigmoid at its end, and from the logit before it
        _gradients_agree(path, loss)


def test_keras_activations_equal_oracle_and_reference(tmp_path: Path) -> None:
    content = _keras_model()
    path = tmp_path / "activations.tflite"
    path.write_bytes(content)
    program = lora_mcu.compile(path, board="native", adapt="all", loss="mse")
    twin, reference = program.twin(), Reference(program)
    x = np.concatenate([structured_samples(program.info.input), random_samples(program.info.input, 100, 2)])
    got = twin.infer(x)
    assert differing(got, Oracle(content).infer(x).reshape(got.shape)) == 0
    for learner in (twin, reference):
        learner.load(random_adapter(program.info, 2))
    samples, targets = labelled(program.info, 2, 3)
    assert differing(twin.infer(samples), reference.infer(samples)) == 0
    found, want = twin.gradients(samples[0], targets[0]), reference.gradients(samples[0], targets[0])
    for key in want:
        assert differing(found[key], want[key]) == 0, key
        assert want[key].any(), key

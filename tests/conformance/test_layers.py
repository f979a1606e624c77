# SPDX-License-Identifier: Apache-2.0
"""Windows and shapes that converters seldom give, in stacks that train: the C equals the reference in both modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.op_cases import Rng, _activation, _scale, _weighted, _window, _zero
from conformance.oracle import Oracle, differing
from conformance.tflite_builder import RELU, SAME, Builder
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu.passes.blocks import NUMERICS
from lora_mcu.reference import Reference

SEEDS = 24


def _stack(rng: Rng, kind: str) -> bytes:
    """1x1 convolution, a window operator, a dense layer over all its positions: every one with a gradient."""
    b, win = Builder(), _window(rng, dilated=True)
    c, inner, out = int(rng.integers(1, 6)), int(rng.integers(1, 10)), int(rng.integers(1, 10))
    times = int(rng.integers(1, 4)) if kind == "DEPTHWISE_CONV_2D" else 1
    h, w, oh, ow = win["h"], win["w"], win["oh"], win["ow"]
    x_scale = _scale(rng, -2.0, -0.5)
    x = b.tensor((1, h, w, c), "int8", x_scale, _zero(rng))
    inputs, scale = _weighted(rng, b, x, x_scale, (inner, 1, 1, c), inner, 0, c, True)
    maps = b.tensor((1, h, w, inner), "int8", scale, _zero(rng))
    b.op("CONV_2D", inputs, [maps], "Conv2DOptions", padding=SAME, strideH=1, strideW=1, dilationHFactor=1,
         dilationWFactor=1, fusedActivationFunction=_activation(rng))  # fmt: skip
    area = win["kh"] * win["kw"]
    if kind == "DEPTHWISE_CONV_2D":
        out = inner * times
        inputs, scale = _weighted(rng, b, maps, scale, (1, win["kh"], win["kw"], out), out, 3, area, True)
    else:
        inputs, scale = _weighted(rng, b, maps, scale, (out, win["kh"], win["kw"], inner), out, 0, area * inner, True)
    y = b.tensor((1, oh, ow, out), "int8", scale, _zero(rng))
    more = {"depthMultiplier": times} if kind == "DEPTHWISE_CONV_2D" else {}
    b.op(kind, inputs, [y], "DepthwiseConv2DOptions" if more else "Conv2DOptions", padding=win["padding"],
         strideH=win["sh"], strideW=win["sw"], dilationHFactor=win["dh"], dilationWFactor=win["dw"],
         fusedActivationFunction=_activation(rng), **more)  # fmt: skip
    rows = b.like(y, (oh * ow, out))
    b.op("RESHAPE", [y, b.tensor((2,), "int32", data=(oh * ow, out))], [rows], "ReshapeOptions",
         newShape=[oh * ow, out])  # fmt: skip
    inputs, last_scale = _weighted(rng, b, rows, scale, (3, out), 3, 0, out, bool(rng.integers(2)))
    last = b.tensor((oh * ow, 3), "int8", last_scale, _zero(rng))
    b.op("FULLY_CONNECTED", inputs, [last], "FullyConnectedOptions", fusedActivationFunction=RELU["NONE"])
    return b.build([x], [last])


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_a_stack_trains_as_the_reference(kind: str, numerics: str, tmp_path: Path) -> None:
    reached = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, len(kind)])
        path = tmp_path / f"{seed}.tflite"
        path.write_bytes(_stack(rng, kind))
        rank = int(rng.choice([1, 3, 4, 5, 8]))
        program = lora_mcu.compile(path, board="native", adapt="all", rank=rank, loss="mse", numerics=numerics)
        twin, reference = program.twin(), Reference(program)
        x, labels = labelled(program.info, 4, seed)
        for adapter in (twin.adapter(), random_adapter(program.info, seed)):
            for learner in (twin, reference):
                learner.load(adapter)
            assert differing(twin.infer(x), reference.infer(x)) == 0, seed
            got, want = twin.gradients(x[0], labels[0]), reference.gradients(x[0], labels[0])
            assert all(differing(got[key], want[key]) == 0 for key in want), seed
        reached += bool(next(iter(got.values())).any())  # in front of the window operator
        for learner in (twin, reference):
            learner.configure(lr=1e-3, batch_size=2, momentum=0.5, seed=seed)
            learner.train(x, labels)
        assert twin._read_factors() == reference._read_factors(), seed
    assert reached >= SEEDS // 2


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("k", [2100, 9001, 16_384, 16_385])
def test_long_sums_equal_the_reference(k: int, numerics: str, tmp_path: Path) -> None:
    """Where A keeps fewer bits than binary16 has."""
    b, rng = Builder(), np.random.default_rng(k)
    x = b.tensor((1, k), "int8", 0.05, -128)
    inputs, scale = _weighted(rng, b, x, 0.05, (3, k), 3, 0, k, True)
    y = b.tensor((1, 3), "int8", scale, 5)
    b.op("FULLY_CONNECTED", inputs, [y], "FullyConnectedOptions", fusedActivationFunction=RELU["NONE"])
    path = tmp_path / "long.tflite"
    path.write_bytes(b.build([x], [y]))
    program = lora_mcu.compile(path, board="native", adapt="all", rank=3, loss="mse", numerics=numerics)
    twin, reference = program.twin(), Reference(program)
    samples, labels = labelled(program.info, 3, 1)
    samples[0] = 127  # every patch value 255
    for learner in (twin, reference):
        learner.load(random_adapter(program.info, 2))
    assert differing(twin.infer(samples), reference.infer(samples)) == 0
    got, want = twin.gradients(samples[0], labels[0]), reference.gradients(samples[0], labels[0])
    assert all(differing(got[key], want[key]) == 0 and want[key].any() for key in want)


RATIOS = (0.002, 0.01, 0.7, 3e-7, 0.004, 2.0**-9, 0.3, 0.0005, 0.03)  # of an accumulator's step to the output's


def _uneven(kind: str, ratios: tuple[float, ...], large_bias: int) -> bytes:
    """Outputs of one layer whose scales are ``ratios``; the fourth's bias is large."""
    b, rng, m, k = Builder(), np.random.default_rng(9), len(ratios), 40
    x_scale, y_scale = 0.05, 0.1
    scales = (np.array(ratios) * y_scale / x_scale).astype(np.float32)
    conv = kind == "CONV_2D"
    x = b.tensor((1, 5, 1, k) if conv else (1, k), "int8", x_scale, -7)
    w = b.tensor((m, 1, 1, k) if conv else (m, k), "int8", scales, 0, 0, rng.integers(-127, 128, (m, k)))
    bias = rng.integers(-3000, 3000, m)
    bias[3] = large_bias
    inputs = [x, w, b.tensor((m,), "int32", x_scale * scales, 0, 0, bias)]
    y = b.tensor((1, 5, 1, m) if conv else (1, m), "int8", y_scale, 5)
    none = RELU["NONE"]
    if conv:
        b.op(kind, inputs, [y], "Conv2DOptions", padding=SAME, strideH=1, strideW=1, dilationHFactor=1,
             dilationWFactor=1, fusedActivationFunction=none)  # fmt: skip
    else:
        b.op(kind, inputs, [y], "FullyConnectedOptions", fusedActivationFunction=none)
    return b.build([x], [y])


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("large_bias", [-2_000_000, 1_150_000_000])
@pytest.mark.parametrize("ratios", [RATIOS, (0.002,) * 8 + (0.01,), (0.002, 0.01, 0.7, 3e-44)])
@pytest.mark.parametrize("kind", ["FULLY_CONNECTED", "CONV_2D"])
def test_outputs_of_uneven_scales_and_biases(
    kind: str, ratios: tuple[float, ...], large_bias: int, numerics: str, tmp_path: Path
) -> None:
    """Every form of rounding in one layer; a bias that cannot take in what an adapter adds."""
    path = tmp_path / "uneven.tflite"
    path.write_bytes(_uneven(kind, ratios, large_bias))
    program = lora_mcu.compile(path, board="native", adapt="all", rank=4, loss="mse", numerics=numerics)
    twin, reference = program.twin(), Reference(program)
    x, _ = labelled(program.info, 20, 1)
    assert differing(twin.infer(x), Oracle(path).infer(x)) == 0
    for learner in (twin, reference):
        learner.load(random_adapter(program.info, 2))
    assert differing(twin.infer(x), reference.infer(x)) == 0
    source = program.files()["src/model.c"].decode()
    assert ("_lora = {4, 0, 160, 1," in source) == (large_bias < 0)  # A: 4 * 40 elements

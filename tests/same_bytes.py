# SPDX-License-Identifier: Apache-2.0
"""A thousand steps of a small model on any two learners: where their factors part, to the step and the parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from conformance.tflite_builder import RELU, SAME, Builder
from numpy.typing import NDArray

from lora_mcu.info import ModelInfo
from lora_mcu.session.learner import Learner

STEPS, BATCH = 1000, 2
CHUNK = 100  # steps of a streamed pass, after which the factors are pulled
SETTINGS: dict[str, Any] = {"lr": 0.005, "momentum": 0.5, "clip_norm": 4.0, "batch_size": BATCH, "seed": 7}

Samples = tuple[NDArray[np.int8], NDArray[np.int64]]
History = list[bytes]  # factors after 0, 1, 2, ... steps


def small_model() -> bytes:
    """A strided convolution, two dense layers and a softmax: [6, 6, 2] to 3 classes."""
    b, rng = Builder(), np.random.default_rng(4)

    def weights(shape: tuple[int, ...], x_scale: float) -> list[int]:
        scales = np.full(shape[0], 0.012, np.float32) * rng.uniform(0.5, 1, shape[0]).astype(np.float32)
        w = b.tensor(shape, "int8", scales, 0, 0, rng.integers(-127, 128, shape))
        bias = b.tensor(shape[:1], "int32", np.float32(x_scale) * scales, 0, 0, rng.integers(0, 900, shape[0]))
        return [w, bias]

    x = b.tensor((1, 6, 6, 2), "int8", 0.02, 5)
    maps = b.tensor((1, 3, 3, 4), "int8", 0.05, -128)
    b.op("CONV_2D", [x, *weights((4, 3, 3, 2), 0.02)], [maps], "Conv2DOptions", padding=SAME, strideH=2, strideW=2,
         dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=RELU["RELU"])  # fmt: skip
    flat = b.tensor((1, 36), "int8", 0.05, -128)
    b.op("RESHAPE", [maps, b.tensor((2,), "int32", data=[1, 36])], [flat], "ReshapeOptions", newShape=[1, 36])
    hidden = b.tensor((1, 6), "int8", 0.1, -128)
    b.op("FULLY_CONNECTED", [flat, *weights((6, 36), 0.05)], [hidden], "FullyConnectedOptions",
         fusedActivationFunction=RELU["RELU"])  # fmt: skip
    logits = b.tensor((1, 3), "int8", 0.1, 0)
    b.op("FULLY_CONNECTED", [hidden, *weights((3, 6), 0.1)], [logits], "FullyConnectedOptions",
         fusedActivationFunction=RELU["NONE"])  # fmt: skip
    y = b.tensor((1, 3), "int8", 1 / 256, -128)
    b.op("SOFTMAX", [logits], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def samples() -> Samples:
    """Noisy copies of three patterns: what the model's classes are, it has to learn. A step takes the next BATCH."""
    rng = np.random.default_rng(8)
    patterns = rng.integers(-40, 40, (3, 6, 6, 2))
    y = rng.integers(0, 3, STEPS * BATCH)
    return (patterns[y] + rng.integers(-87, 88, (len(y), 6, 6, 2))).astype(np.int8), y


def history(learner: Learner, data: Samples) -> History:
    """Train on all samples, and keep the factors after each step."""
    learner.configure(**SETTINGS)
    found = [_factors(learner)]
    for step in range(STEPS):
        _train(learner, data, step, step + 1)
        found.append(_factors(learner))
    return found


def parting(learner: Learner, data: Samples, expected: History) -> str | None:
    """Train on all samples; None if the factors are those of ``expected``, else where they part.

    They are compared after every CHUNK steps. Where they differ, training is repeated from the start up to there, and
    then step by step.
    """
    learner.configure(**SETTINGS)
    if _factors(learner) != expected[0]:
        return _describe(learner.info, 0, _factors(learner), expected[0])
    for step in range(0, STEPS, CHUNK):
        _train(learner, data, step, step + CHUNK)
        if _factors(learner) != expected[step + CHUNK]:
            return _search(learner, data, expected, step)
    return None


def _search(learner: Learner, data: Samples, expected: History, equal_until: int) -> str:
    learner.reset()
    learner.configure(**SETTINGS)
    for step in range(0, equal_until, CHUNK):
        _train(learner, data, step, step + CHUNK)
    for step in range(equal_until, equal_until + CHUNK):
        if _factors(learner) != expected[step]:
            return _describe(learner.info, step, _factors(learner), expected[step])
        _train(learner, data, step, step + 1)
    if _factors(learner) != expected[equal_until + CHUNK]:
        return _describe(learner.info, equal_until + CHUNK, _factors(learner), expected[equal_until + CHUNK])
    return f"between steps {equal_until} and {equal_until + CHUNK}, but not when they are repeated one by one"


def _train(learner: Learner, data: Samples, first: int, end: int) -> None:
    chosen = slice(first * BATCH, end * BATCH)
    stats = learner.train(data[0][chosen], data[1][chosen])
    assert (stats.steps, stats.skipped) == (end - first, 0)


def _factors(learner: Learner) -> bytes:
    return learner.adapter().to_factors(learner.info)


def _describe(info: ModelInfo, step: int, found: bytes, expected: bytes) -> str:
    """The first of the differing parameters by name, and how many they are."""
    ours, theirs = np.frombuffer(found, "<u2"), np.frombuffer(expected, "<u2")
    differing = np.flatnonzero(ours != theirs)
    first = int(differing[0])
    return (
        f"after step {step}: {len(differing)} of {len(ours)} parameters differ, the first is {_name(info, first)}:"
        f" 0x{ours[first]:04x}, not 0x{theirs[first]:04x}"
    )


def _name(info: ModelInfo, parameter: int) -> str:
    """Such as dense.lora_B[3, 1] (parameter 77)."""
    at = parameter
    for layer in info.layers:
        for key, rows, columns in (("lora_A", info.rank, layer.k), ("lora_B", layer.m, info.rank)):
            if at < rows * columns:
                return f"{layer.name}.{key}[{at // columns}, {at % columns}] (parameter {parameter})"
            at -= rows * columns
    raise AssertionError(parameter)

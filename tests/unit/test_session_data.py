# SPDX-License-Identifier: Apache-2.0
"""Samples, labels and settings: what is taken, to the bit, and what is refused, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lora_mcu.errors import DataError
from lora_mcu.info import ModelInfo, TensorInfo
from lora_mcu.session import Settings
from lora_mcu.session.data import decode_output, encode_label, encode_labels, encode_sample, encode_samples
from lora_mcu.session.shuffle import epoch_order


def model(dtype: str = "int8", scale: float | None = 0.5, zero: int = -3, loss: str = "cross_entropy") -> ModelInfo:
    return ModelInfo(
        name="m",
        board="native",
        numerics="f32",
        loss=loss,
        model_sha256="",
        layout_sha256="",
        input=TensorInfo((2, 3), dtype, scale, zero),
        output=TensorInfo((4,), dtype, scale, zero),
        logit_count=4,
        rank=1,
        alpha=2.0,
        rslora=False,
        layers=(),
        store_capacity=5,
    )


def quantized(values: list[float], info: ModelInfo) -> list[int]:
    x = np.zeros((1, 2, 3), np.float32)
    x.flat[: len(values)] = values
    return np.frombuffer(encode_samples(info, x)[0], info.input.dtype)[: len(values)].tolist()


def test_float_samples_are_rounded_half_away_from_zero_and_clipped() -> None:
    assert quantized([0.0, 0.25, -0.25, 0.24, 1.0], model()) == [-3, -2, -4, -3, -1]
    assert quantized([1e30, -1e30, 65.0, 65.25, -62.5, -62.75], model()) == [127, -128, 127, 127, -128, -128]
    assert quantized([0.0, 0.25, 1e30, -1e30], model("uint8", 0.5, 128)) == [128, 129, 255, 0]
    just_below_half = float(np.nextafter(np.float32(0.25), np.float32(0)))
    assert quantized([just_below_half, -just_below_half], model()) == [-3, -3]


def test_the_division_is_float32() -> None:
    """As in the model's own QUANTIZE: 0.25 / fl32(0.1) is 2.49999996 in double and 2.5 in float32."""
    assert 0.25 / float(np.float32(0.1)) < 2.5
    assert quantized([0.25], model(scale=0.1, zero=0)) == [3]


def test_samples_of_the_models_dtype_pass_untouched() -> None:
    for dtype in ("int8", "uint8", "float32"):
        x = np.arange(12).reshape(2, 2, 3).astype(dtype)
        assert encode_samples(model(dtype), x) == [x[0].tobytes(), x[1].tobytes()]
        swapped = x.astype(np.dtype(dtype).newbyteorder(">"))
        assert encode_samples(model(dtype), swapped) == encode_samples(model(dtype), x)
    transposed = np.arange(12, dtype=np.int8).reshape(2, 3, 2).transpose(0, 2, 1)
    assert encode_samples(model(), transposed)[0] == bytes([0, 2, 4, 1, 3, 5])


@pytest.mark.parametrize("dtype", ["float64", "int64", "int16", "uint8", "float16", "bool", "complex64", "object"])
def test_another_dtype_names_both_and_the_way_out(dtype: str) -> None:
    with pytest.raises(DataError, match=f"x is {dtype}, the model takes int8 or float32: convert it"):
        encode_samples(model(), np.zeros((1, 2, 3), dtype))


def test_a_float_model_takes_float32_only() -> None:
    with pytest.raises(DataError, match="x is int8, the model takes float32: convert it"):
        encode_samples(model("float32", None), np.zeros((1, 2, 3), np.int8))


@pytest.mark.parametrize("shape", [(3, 2), (1, 6), (2, 3, 2), (1, 2, 3, 1), (), (6,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"the model takes \[N, 2, 3\]: reshape it to \[-1, 2, 3\]"):
        encode_samples(model(), np.zeros(shape, np.int8))


def test_a_single_sample_is_told_how_to_become_a_batch() -> None:
    with pytest.raises(
        DataError, match=r"x has shape \[2, 3\]; the model takes \[N, 2, 3\]: give one sample as x\[None\]"
    ):
        encode_samples(model(), np.zeros((2, 3), np.int8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_values_that_are_not_finite_name_the_sample(dtype: str, bad: float) -> None:
    x = np.zeros((5, 2, 3), np.float32)
    x[3, 1, 1] = x[4, 0, 0] = bad
    with pytest.raises(DataError, match=r"x of sample 3 holds NaN or infinity \(2 such samples\)"):
        encode_samples(model(dtype), x)


def test_class_labels_are_four_bytes() -> None:
    for dtype in (np.int8, np.uint8, np.int64, np.uint64):
        assert encode_labels(model(), np.array([0, 3, 1], dtype)) == [b"\0\0\0\0", b"\3\0\0\0", b"\1\0\0\0"]
    assert encode_labels(model(), [2]) == [b"\2\0\0\0"]


@pytest.mark.parametrize(
    "labels, text",
    [
        (
            [0, 4, 1],
            r"label 4 of sample 1 is not in 0..3: the model has 4 outputs and LoRA adds no classes; reserve",
        ),
        ([0, 1, -1], r"label -1 of sample 2 is not in 0..3"),
        (np.array([2**64 - 1], np.uint64), r"label 18446744073709551615 of sample 0 is not in 0..3"),
        ([0.0, 1.0], r"labels are float64, class labels are integers"),
        ([True, False], r"labels are bool, class labels are integers"),
        ([[0], [1]], r"labels have shape \[2, 1\]; the model takes \[N\]"),
        (2, r"labels have shape \[\]; the model takes \[N\]"),
    ],
)
def test_wrong_class_labels_are_refused(labels: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        encode_labels(model(), labels)


def test_targets_are_float32_in_real_units() -> None:
    info = model(loss="mse")
    real = np.array([[1, 2.5, -1, 0]], np.float32)
    assert encode_labels(info, real) == [real[0].tobytes()]
    steps = np.array([[-3, -2, 127, -128]], np.int8)
    assert encode_labels(info, steps) == [np.array([0, 0.5, 65, -62.5], np.float32).tobytes()]


@pytest.mark.parametrize(
    "targets, text",
    [
        (np.zeros((2, 4)), "labels are float64, targets of this model are int8 or float32"),
        (np.zeros((2, 3), np.float32), r"labels has shape \[2, 3\]; the model takes \[N, 4\]"),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]], np.float32), "labels of sample 1 holds NaN or infinity"),
        (np.zeros(4, np.float32), r"give one sample as labels\[None\]"),
    ],
)
def test_wrong_targets_are_refused(targets: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        encode_labels(model(loss="mse"), targets)


def test_one_sample_with_or_without_a_leading_axis() -> None:
    x = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert encode_sample(model(), x) == encode_sample(model(), x[None]) == x.tobytes()
    assert encode_label(model(), 3) == encode_label(model(), np.array([3])) == b"\3\0\0\0"
    target = np.ones(4, np.float32)
    assert encode_label(model(loss="mse"), target) == encode_label(model(loss="mse"), target[None]) == target.tobytes()
    with pytest.raises(DataError, match="x holds 2 samples; exactly one"):
        encode_sample(model(), np.stack([x, x]))
    with pytest.raises(DataError, match="labels holds 2 labels; exactly one"):
        encode_label(model(), [1, 2])


def test_outputs_have_the_models_dtype_and_shape() -> None:
    assert decode_output(model(), b"\xff\x01\x80\x7f").tolist() == [-1, 1, -128, 127]
    real = decode_output(model("float32"), np.array([1, 2, 3, 4], "<f4").tobytes())
    assert (real.dtype, real.tolist()) == (np.float32, [1, 2, 3, 4])


# ---- settings ----


@pytest.mark.parametrize(
    "field, values, text",
    [
        ("lr", [0, -1, float("nan"), float("inf"), 1e39, 1e-60, "fast", None], "must be a finite number above 0"),
        ("lr_b_ratio", [0, -2.0, float("nan")], "must be a finite number above 0"),
        ("momentum", [1, 1.5, -0.1, float("nan"), 0.99999999999], "must be at least 0 and below 1"),
        ("weight_decay", [-1e-9, float("inf")], "must be a finite number of at least 0"),
        ("clip_norm", [-1, float("nan")], "must be a finite number of at least 0"),
        ("batch_size", [0, -1, 2**32, 1.5, True, None], "must be a whole number from 1 to 4294967295"),
        ("seed", [-1, 2**32, 0.5, "x"], "must be a whole number from 0 to 4294967295"),
        ("rounding", ["up", "", None, 0], "must be one of stochastic, nearest"),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, values: list[Any], text: str) -> None:
    for value in values:
        with pytest.raises(DataError, match=f"{field} is .*{text}"):
            Settings(**{field: value})


def test_settings_in_range_are_kept() -> None:
    settings = Settings(lr=np.float32(0.5), batch_size=np.int64(4), seed=2**32 - 1, momentum=0, rounding="nearest")
    assert dataclasses.asdict(settings) == {
        "lr": 0.5, "lr_b_ratio": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "batch_size": 4,
        "rounding": "nearest", "seed": 2**32 - 1,
    }  # fmt: skip
    assert type(settings.batch_size) is int and type(settings.lr) is float
    assert Settings() == Settings(0.01, 1.0, 0.0, 0.0, 0.0, 8, "stochastic", 0)


# ---- shuffle ----


def mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_the_epoch_order_is_the_contracts() -> None:
    """Against the formula of the numerics contract in plain integers; the firmware's is compared in tests/link."""
    for n, seed, epoch in ((1, 0, 0), (2, 1, 0), (60, 5, 3), (200, 2**32 - 1, 79)):
        order = list(range(n))
        key = mix(epoch ^ mix(seed ^ 3 * 0x85EBCA6B % 2**32))
        for i in range(n - 1, 0, -1):
            j = mix((i * 0x9E3779B9 + key) % 2**32) * (i + 1) >> 32
            order[i], order[j] = order[j], order[i]
        assert epoch_order(n, seed, epoch).tolist() == order
    assert epoch_order(0, 1, 1).tolist() == []
    assert sorted(epoch_order(50, 7, 1)) == list(range(50))
    assert epoch_order(50, 7, 1).tolist() != epoch_order(50, 7, 2).tolist()

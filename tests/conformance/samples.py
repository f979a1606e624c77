# SPDX-License-Identifier: Apache-2.0
"""Inputs that find rounding and border errors: random ones, and twenty with a structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.info import TensorInfo

Array = NDArray[Any]
STRUCTURED = 20


def random_samples(edge: TensorInfo, count: int, seed: int) -> Array:
    """[count, *sample]: half of them over the whole range, half near the middle."""
    rng = np.random.default_rng(seed)
    shape = (count, *edge.shape)
    if edge.dtype == "float32":
        return (rng.normal(size=shape) * rng.choice([0.3, 3.0, 30.0], size=(count, *[1] * len(edge.shape)))).astype(
            np.float32
        )
    low, high = _limits(edge.dtype)
    wide = rng.integers(low, high + 1, shape)
    near = np.clip(np.rint(rng.normal(edge.zero_point, 25.0, shape)), low, high)
    return np.where(np.arange(count).reshape(-1, *[1] * len(edge.shape)) % 2 == 0, wide, near).astype(edge.dtype)


def structured_samples(edge: TensorInfo) -> Array:
    """[20, *sample]: constants, extremes, ramps, one-hot, stripes, sparse."""
    low, high = _limits(edge.dtype)
    n = edge.elements
    at = np.arange(n)
    ramp = low + (at * (high - low)) // max(n - 1, 1)
    middle = edge.zero_point if edge.dtype != "float32" else 0

    def one_hot(place: int, value: int, rest: int) -> Array:
        return np.where(at == place, value, rest)

    last = edge.shape[-1] if edge.shape else 1
    rng = np.random.default_rng(7)
    made = [
        np.full(n, low), np.full(n, high), np.full(n, middle), np.full(n, 0), np.full(n, low + 1),
        np.full(n, high - 1), ramp, ramp[::-1], low + at % (high - low + 1), high - at % (high - low + 1),
        one_hot(0, high, middle), one_hot(n - 1, high, middle), one_hot(n // 2, low, middle),
        one_hot(n // 3, high, low),
        np.where(at % 2 == 0, low, high), np.where(at % last == 0, high, low), np.where(at // last % 2 == 0, low, high),
        np.where(at < n // 2, low, high), np.where(rng.random(n) < 0.1, high, middle), rng.choice([low, high], n),
    ]  # fmt: skip
    assert len(made) == STRUCTURED
    scale = 0.05 if edge.dtype == "float32" else 1
    return (np.stack(made).reshape(STRUCTURED, *edge.shape) * scale).astype(edge.dtype)


def _limits(dtype: str) -> tuple[int, int]:
    return (0, 255) if dtype == "uint8" else (-128, 127)

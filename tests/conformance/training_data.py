# SPDX-License-Identifier: Apache-2.0
"""Samples with labels, and adapters with random factors, for any compiled model."""

from __future__ import annotations

import numpy as np
from conformance.samples import Array, random_samples

from lora_mcu import Adapter
from lora_mcu.info import ModelInfo


def labelled(info: ModelInfo, count: int, seed: int) -> tuple[Array, Array]:
    """Random inputs, and random classes or regression targets."""
    rng = np.random.default_rng([seed, 1])
    x = random_samples(info.input, count, seed)
    if info.loss == "cross_entropy":
        return x, rng.integers(0, info.logit_count, count)
    return x, rng.normal(size=(count, *info.output.shape)).astype(np.float32)


def random_adapter(info: ModelInfo, seed: int, strength: float = 0.5) -> Adapter:
    """A as at the start, B random: each layer's outputs move, none is swamped."""
    rng = np.random.default_rng([seed, 2])
    parts = []
    for layer in info.layers:
        a = rng.uniform(-1, 1, (info.rank, layer.k)) / np.sqrt(layer.k)
        b = rng.normal(size=(layer.m, info.rank)) * strength * info.rank / info.alpha / np.sqrt(layer.k * info.rank)
        parts += [a.ravel(), b.ravel()]
    return Adapter.from_factors(info, np.concatenate(parts).astype("<f2").tobytes())

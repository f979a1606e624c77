# SPDX-License-Identifier: Apache-2.0
"""One SGD step on binary16 factors: all of it or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_mcu.random_bits import STREAM_UPDATE, rand
from lora_mcu.reference.ordered import F32, ordered_sum
from lora_mcu.reference.scalar import half_nearest, half_stochastic
from lora_mcu.session.settings import Settings

Floats = NDArray[np.float32]


@dataclass
class State:
    """``factors`` are binary16 bits; ``is_b`` marks the parameters of the B matrices."""

    factors: NDArray[np.uint16]
    momentum: Floats
    is_b: NDArray[np.bool_]
    step: int = 0


def mean_gradient(sums: Floats, samples: int, clip_norm: float) -> Floats | None:
    """Sums times fl32(1 / n), clipped to the norm; None if a value is not finite."""
    gradient = sums * (F32(1) / F32(samples))
    if not np.isfinite(gradient).all():
        return None
    if clip_norm == 0:
        return gradient
    squares = ordered_sum(gradient * gradient, axis=0)
    if not np.isfinite(squares):
        return None
    norm = np.sqrt(squares)
    scale = F32(clip_norm) / norm if norm > F32(clip_norm) else F32(1)
    return np.asarray(gradient * scale, F32)


def update(state: State, sums: Floats, samples: int, settings: Settings) -> bool:
    """m <- mu m + g, p <- round(p - lr m - lr wd p); False: a value was not finite and nothing changed."""
    with np.errstate(over="ignore", invalid="ignore"):
        gradient = mean_gradient(sums, samples, settings.clip_norm)
        if gradient is None:
            return False
        momentum = F32(settings.momentum) * state.momentum + gradient
        lr = np.where(state.is_b, F32(settings.lr_b_ratio) * F32(settings.lr), F32(settings.lr)).astype(F32)
        p = state.factors.view(np.float16).astype(F32)
        value = (p - lr * momentum) - (lr * F32(settings.weight_decay)) * p
    if not (np.isfinite(momentum).all() and np.isfinite(value).all()):
        return False
    state.momentum = momentum
    if settings.rounding == "nearest":
        state.factors = half_nearest(value)
    else:
        index = np.arange(len(value), dtype=np.uint32)
        words = rand(settings.seed, STREAM_UPDATE, state.step, index >> np.uint32(1))
        state.factors = half_stochastic(value, np.where(index & 1, words >> np.uint32(16), words & np.uint32(0xFFFF)))
    state.step += 1
    return True

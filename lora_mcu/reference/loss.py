# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy (softmax, or sigmoid of one logit) and mean squared error, on dequantized logits, with gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.reference.ordered import F32, Array, ordered_sum
from lora_mcu.reference.scalar import exp, log

Floats = NDArray[np.float32]


def cross_entropy(logits: Array, z: Floats, label: int) -> tuple[np.float32, bool, Floats]:
    """(loss, first largest logit is the label's, gradient) for int8 ``logits`` and their real values ``z``."""
    best = int(logits.argmax())
    powers = exp(z - z[best])
    total = ordered_sum(powers, axis=0)
    gradient = powers / total
    gradient[label] -= F32(1)
    return F32(log(F32(total)) - (z[label] - z[best])), best == label, gradient


def binary_cross_entropy(logit: int, zero_point: int, z: np.float32, label: int) -> tuple[np.float32, bool, Floats]:
    """(loss, whether the logit's side of 0 is the label's, gradient) of one int8 ``logit`` with real value ``z``."""
    e = exp(np.array([-abs(z)], F32))[0]
    over = F32(1) + e
    p = F32(1) / over if logit > zero_point else e / over
    hit = (logit > zero_point) == bool(label)
    value = log(over) + (F32(0) if hit else abs(z))
    return F32(value), hit, np.array([p - F32(label)], F32)


def mean_squared_error(z: Floats, target: Floats) -> tuple[np.float32, Floats]:
    """(sum (z - t)^2 / n, 2 (z - t) / n)."""
    n, difference = F32(z.size), z - target
    return F32(ordered_sum(difference * difference, axis=0) / n), F32(2) * difference / n

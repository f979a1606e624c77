# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy and mean squared error on dequantized logits, with their gradients."""

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


def mean_squared_error(z: Floats, target: Floats) -> tuple[np.float32, Floats]:
    """(sum (z - t)^2 / n, 2 (z - t) / n)."""
    n, difference = F32(z.size), z - target
    return F32(ordered_sum(difference * difference, axis=0) / n), F32(2) * difference / n

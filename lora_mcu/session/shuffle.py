# SPDX-License-Identifier: Apache-2.0
"""The device's random numbers and epoch order in Python, so that a streamed epoch equals a stored one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHUFFLE_STREAM = 3
_U32 = 0xFFFFFFFF


def mix(x: int) -> int:
    """Return the 32-bit mixing function of the numerics contract (docs/numerics.md)."""
    x &= _U32
    x ^= x >> 16
    x = x * 0x7FEB352D & _U32
    x ^= x >> 15
    x = x * 0x846CA68B & _U32
    return x ^ x >> 16


def rand(seed: int, stream: int, step: int, i: int) -> int:
    """Return 32 random bits: number ``i`` of ``step`` in ``stream``."""
    return mix(i * 0x9E3779B9 + mix(step ^ mix(seed ^ stream * 0x85EBCA6B & _U32)))


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order [n] in which epoch ``epoch`` (0 is the first after ``configure``) visits ``n`` stored samples.

    Fisher-Yates from the identity, downwards, j = (rand * (i + 1)) >> 32.
    """
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = rand(seed, SHUFFLE_STREAM, epoch, i) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)

# SPDX-License-Identifier: Apache-2.0
"""The device's epoch order in Python, so that a streamed epoch equals a stored one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_mcu.random_bits import STREAM_SHUFFLE, rand


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order [n] in which epoch ``epoch`` (0 is the first after ``configure``) visits ``n`` stored samples.

    Fisher-Yates from the identity, downwards: j = (rand(shuffle, epoch, i) * (i + 1)) >> 32 (docs/numerics.md).
    """
    order = np.arange(n, dtype=np.int64)
    bits = rand(seed, STREAM_SHUFFLE, epoch, np.arange(n)) if n else order
    for i in range(n - 1, 0, -1):
        j = int(bits[i]) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order

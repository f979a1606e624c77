# SPDX-License-Identifier: Apache-2.0
"""Float32 sums in one order: one accumulator per result from +0, terms rounded, then added, indices ascending."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F32 = np.float32


def ordered_sum(terms: Array, axis: int) -> NDArray[np.float32]:
    """Sum of float32 ``terms`` along ``axis``, one addition after the other (NumPy's own sum adds pairwise)."""
    if terms.shape[axis] == 0:
        return np.zeros(np.delete(terms.shape, axis), F32)
    running = np.add.accumulate(terms.astype(F32, copy=False), axis=axis, dtype=F32)
    # + 0 turns the -0 of all-(-0) terms into the +0 that an accumulator from +0 gives
    return np.asarray(np.take(running, -1, axis=axis) + F32(0), F32)


def add_in_order(total: NDArray[np.float32], terms: Array) -> None:
    """total += terms[0], then terms[1], …: each a float32 addition."""
    for term in terms:
        total += term

# SPDX-License-Identifier: Apache-2.0
"""The adapter of one dense or convolution layer, mode f32, on patches [P, K] = x_q - z_x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_mcu.reference.ordered import F32, Array, add_in_order, ordered_sum


@dataclass
class Factors:
    """``a`` [r, K] and ``b`` [M, r] as float32; ``da`` and ``db`` are the open batch's sums, written in place."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    da: NDArray[np.float32]
    db: NDArray[np.float32]
    gamma: np.float32
    input_scale: np.float32
    c: NDArray[np.float32]  # [M] fl32(gamma / s_w[o])


def project(f: Factors, patches: Array) -> NDArray[np.float32]:
    """t [P, r] = sum over k of A[j, k] * (float)patch[k]."""
    return ordered_sum(f.a[None] * patches.astype(F32)[:, None, :], axis=2)


def delta(f: Factors, patches: Array) -> Array:
    """The integers [P, M] that the adapter adds to the accumulators."""
    sums = ordered_sum(f.b[None] * project(f, patches)[:, None, :], axis=2)
    limited = np.clip(f.c * sums, F32(-(2.0**30)), F32(2.0**30))
    whole = np.trunc(limited)
    rest = limited - whole
    return np.asarray(whole.astype(np.int64) + (rest >= 0.5) - (rest <= -0.5))


def backward(f: Factors, patches: Array, g: NDArray[np.float32]) -> NDArray[np.float32]:
    """Adds dB and dA of ``g`` [P, M], position after position; returns h [P, r]."""
    u = f.input_scale * project(f, patches)
    add_in_order(f.db, (f.gamma * g)[:, :, None] * u[:, None, :])
    h = f.gamma * ordered_sum(f.b[None] * g[:, :, None], axis=1)
    add_in_order(f.da, (h * f.input_scale)[:, :, None] * patches.astype(F32)[:, None, :])
    return h


def input_gradient(f: Factors, h: NDArray[np.float32]) -> NDArray[np.float32]:
    """[P, K] = sum over j of A[j, k] * h[j]."""
    return ordered_sum(f.a[None] * h[:, :, None], axis=1)

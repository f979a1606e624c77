# SPDX-License-Identifier: Apache-2.0
"""The runtime's counter-based random bits (docs/numerics.md), on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

STREAM_INIT, STREAM_UPDATE, STREAM_GRADIENT, STREAM_SHUFFLE, STREAM_STORE = range(5)


def mix(x: ArrayLike) -> NDArray[np.uint32]:
    """The 32-bit finalizer x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16."""
    v = np.atleast_1d(np.asarray(x, np.uint64)).astype(np.uint32)
    v ^= v >> np.uint32(16)
    v *= np.uint32(0x7FEB352D)
    v ^= v >> np.uint32(15)
    v *= np.uint32(0x846CA68B)
    return v ^ (v >> np.uint32(16))


def rand(seed: int, stream: int, step: int, i: ArrayLike) -> NDArray[np.uint32]:
    """rand(stream, step, i) = mix(i * 0x9E3779B9 + mix(step ^ mix(seed ^ stream * 0x85EBCA6B))), 32 bits each."""
    inner = mix((seed ^ (stream * 0x85EBCA6B)) & 0xFFFFFFFF)
    middle = mix((step & 0xFFFFFFFF) ^ int(inner[0]))
    return mix(np.atleast_1d(np.asarray(i, np.uint32)) * np.uint32(0x9E3779B9) + middle)


def initial_a(seed: int, offset: int, count: int, fan_in: int) -> NDArray[np.uint16]:
    """fp16 bits of ``count`` values of A from parameter index ``offset``: Kaiming-uniform with a = sqrt(5), as PEFT.

    A0 = fp16(fl32(1 / sqrt(fan_in)) * u), u = 2 * (r >> 8) / 2^24 - 1, r = rand(init, 0, parameter index).
    """
    bits = rand(seed, STREAM_INIT, 0, np.arange(offset, offset + count, dtype=np.uint32)) >> np.uint32(8)
    uniform = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    bound = np.float32(1.0 / np.sqrt(np.float64(fan_in)))
    return (bound * uniform).astype(np.float16).view(np.uint16)

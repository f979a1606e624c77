# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's handwritten digits (8 x 8 pixels, shipped in its package), split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TRAIN, ADAPT = 1000, 200
SEED = 3

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """``x`` float32 [N, 8, 8, 1] in 0..1, ``y`` [N]."""

    x: Floats
    y: Labels


def load() -> tuple[Digits, Digits, Digits]:
    """Digits to train the base on, to personalize with (as many of each class), and to test on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images / 16.0).astype(np.float32)[..., None]
    order = np.random.default_rng(SEED).permutation(len(x))
    rest = order[TRAIN:]
    adapt = np.concatenate([rest[data.target[rest] == digit][: ADAPT // 10] for digit in range(10)])
    test = np.setdiff1d(rest, adapt)
    return tuple(Digits(x[chosen], data.target[chosen]) for chosen in (order[:TRAIN], adapt, test))  # type: ignore[return-value]


def inverted(digits: Digits) -> Digits:
    """Dark digits on a bright ground, which the base has never seen."""
    return Digits(1.0 - digits.x, digits.y)

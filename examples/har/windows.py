# SPDX-License-Identifier: Apache-2.0
"""har.npz as the demo and the baselines use it: who, which windows to adapt with, which to test on. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
PER_CLASS = 10
ADAPT, TEST = 0, 1

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Har:
    """The six held-out people, rotated, as int8 for the model's input."""

    x: npt.NDArray[np.int8]  # [N, 128, 6]
    y: Indices  # [N]
    subject: Indices  # [N]
    part: Indices  # [N] 0 adapt, 1 test
    label_names: list[str]
    people: list[int]
    scale: float
    zero_point: int

    def real(self, indices: Indices) -> npt.NDArray[np.float32]:
        """Those windows in g and rad/s."""
        return ((self.x[indices].astype(np.int32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)


@dataclass(frozen=True)
class Split:
    """Indices into Har for one person and one seed."""

    train: Indices  # 10 windows a class of the adaptation part, class by class
    rest: Indices  # what is left of the adaptation part: rates are chosen on it
    test: Indices  # the test part: looked at once, at the end


def load(path: Path = HERE / "har.npz") -> Har:
    """Read har.npz (no pickle in it)."""
    with np.load(path, allow_pickle=False) as file:
        stored: dict[str, Any] = {name: file[name] for name in file.files}
    people = stored["people"].tolist()
    return Har(
        stored["x"], stored["y"], stored["subject"], stored["part"], stored["label_names"].tolist(), people,
        float(stored["input_scale"]), int(stored["input_zero_point"]),
    )  # fmt: skip


def split_person(har: Har, person: int, seed: int, per_class: int = PER_CLASS) -> Split:
    """`per_class` windows of each class drawn from the person's adaptation part, the rest of it, and the test part."""
    rng = np.random.default_rng([seed, person])
    mine = har.subject == person
    train: list[int] = []
    for label in range(len(har.label_names)):
        found = np.flatnonzero(mine & (har.part == ADAPT) & (har.y == label))
        train.extend(np.sort(rng.permutation(found)[:per_class]).tolist())
    adapt = np.flatnonzero(mine & (har.part == ADAPT))
    chosen = np.asarray(train, dtype=np.int64)
    return Split(chosen, np.setdiff1d(adapt, chosen), np.flatnonzero(mine & (har.part == TEST)))

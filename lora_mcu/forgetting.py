# SPDX-License-Identifier: Apache-2.0
"""How much a model forgets of what it knew when it learns something new: two figures of a table of accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lora_mcu.errors import DataError

if TYPE_CHECKING:
    from lora_mcu.adapters import Adapter
    from lora_mcu.datasets import Dataset
    from lora_mcu.session.learner import Learner


@dataclass(frozen=True)
class Forgetting:
    """Accuracies from 0 to 1. ``forgetting`` above 0 and ``backward_transfer`` below 0: something was lost."""

    forgetting: float
    backward_transfer: float


def forgetting(accuracy: ArrayLike) -> Forgetting:
    """Average forgetting and backward transfer of ``accuracy`` [T, T], T >= 2.

    ``accuracy[l, j]`` is the accuracy on task j after learning task l (row 0: the base model, which learned task 0).

    Average forgetting, Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018 (arXiv 1801.10112):
    F = 1/(T-1) sum_{j<T-1} (max_{l<T-1} a[l, j] - a[T-1, j]), counting tasks from 0.
    Backward transfer, Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NIPS 2017 (arXiv
    1706.08840): BWT = 1/(T-1) sum_{j<T-1} (a[T-1, j] - a[j, j]).
    Raises DataError for another shape or values that are not finite.
    """
    a = np.asarray(accuracy, np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or len(a) < 2 or not np.isfinite(a).all():
        raise DataError(
            f"forgetting takes finite accuracies [T, T] of T >= 2 tasks, a row after learning each; got {list(a.shape)}"
        )
    last = len(a) - 1
    lost = a[:last, :last].max(axis=0) - a[last, :last]
    moved = a[last, :last] - np.diagonal(a)[:last]
    return Forgetting(float(lost.mean()), float(moved.mean()))


def table(
    learner: Learner, tasks: Sequence[Dataset], adapters: Sequence[Adapter],
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:  # fmt: skip
    """Accuracies [T, T] for :func:`forgetting`: the base and each adapter in turn on every task, T = len(tasks).

    ``tasks[0]`` is what the base learned, ``tasks[i]`` what ``adapters[i - 1]`` did. The adapter in use is loaded again
    at the end, which zeroes momentum and step. ``progress`` is called with the samples done. Raises DataError where the
    numbers do not go together, or the model has no classes.
    """
    if len(adapters) != len(tasks) - 1:
        raise DataError(
            f"{len(tasks)} data sets go with the base and {len(tasks) - 1} adapters, one for each after the first; "
            f"there are {len(adapters)}"
        )
    if learner.info.loss != "cross_entropy":
        raise DataError("forgetting is measured in accuracy, and this model has no classes")
    previous, done = learner.adapter(), 0
    rows: list[list[float]] = []
    try:
        for adapter in (None, *adapters):
            if adapter is None:
                learner.reset()
            else:
                learner.load(adapter)
            rows.append([])
            for task in tasks:
                rows[-1].append(learner.evaluate(task.x, task.labels).accuracy)
                done += len(task)
                if progress is not None:
                    progress(done)
    finally:
        learner.load(previous)
    return rows

# SPDX-License-Identifier: Apache-2.0
"""What training and evaluation say about themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RawStats:
    """Sums as the runtime keeps them (``lmcu_stats_t``)."""

    loss_sum: float
    samples: int
    correct: int
    steps: int
    skipped: int

    def loss(self) -> float:
        """Mean loss of a sample; nan without samples."""
        return self.loss_sum / self.samples if self.samples else math.nan

    def accuracy(self, loss: str) -> float:
        """Share of samples whose largest logit (or one logit's sign) is the label's; nan without any and for mse."""
        return self.correct / self.samples if self.samples and loss == "cross_entropy" else math.nan


@dataclass(frozen=True)
class TrainStats:
    """One pass or epoch: mean loss and accuracy of the forward passes made while training.

    ``loss`` that is not finite, or ``steps == 0`` with ``skipped > 0``, means that training diverged: lower ``lr`` and
    ``reset()``. ``accuracy`` is nan for a model trained on the mean squared error.
    """

    loss: float
    accuracy: float
    steps: int
    skipped: int


@dataclass(frozen=True)
class EvalStats:
    """Mean loss and accuracy (nan for mse) over the samples given to ``evaluate``."""

    loss: float
    accuracy: float

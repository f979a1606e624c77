# SPDX-License-Identifier: Apache-2.0
"""The guard: after training, an adapter that is worse on held-out samples is not kept."""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lora_mcu.errors import GuardError
from lora_mcu.session.stats import EvalStats

if TYPE_CHECKING:
    from lora_mcu.adapters import Adapter
    from lora_mcu.session.learner import Learner, SampleProgress


def worse(a: EvalStats, b: EvalStats) -> bool:
    """Whether ``a`` is worse than ``b``: less accurate or, without classes, a larger loss or none that is finite."""
    if math.isnan(b.accuracy):
        return not a.loss <= b.loss
    return a.accuracy < b.accuracy


def is_base(adapter: Adapter) -> bool:
    """Whether the adapter adds nothing: every B is 0."""
    return not any(np.any(b) for _, b in adapter.layers.values())


def refusal(after: EvalStats, base: EvalStats, before: EvalStats) -> str:
    """What is worse than what; empty where nothing is."""
    for name, other in (("the base", base), ("the adapter before", before)):
        if worse(after, other):
            if math.isnan(other.accuracy):
                return f"held-out loss {after.loss:.4g}, {name} has {other.loss:.4g}"
            return f"held-out accuracy {100 * after.accuracy:.1f} %, {name} has {100 * other.accuracy:.1f} %"
    return ""


class Guard:
    """Train inside ``with learner.guard(x, labels):``; at its end a worse adapter is replaced by the one before.

    ``base``, ``before`` and ``after`` are the EvalStats on the held-out samples of the model without an adapter, with
    the adapter that was in use, and with the trained one. Raises GuardError at the end where the trained one is worse
    than either, unless ``keep_worse``; loading the one before zeroes momentum and step.
    """

    after: EvalStats

    def __init__(
        self, learner: Learner, x: ArrayLike, labels: ArrayLike, keep_worse: bool, progress: SampleProgress | None
    ) -> None:
        self._learner, self._x, self._labels = learner, x, labels
        self._keep_worse, self._progress = keep_worse, progress
        self.previous = learner.adapter()
        self.before = self.base = self._evaluate()
        if not is_base(self.previous):
            self.restore()  # refused while merged, which a reset would end
            learner.reset()
            try:
                self.base = self._evaluate()
            finally:
                self.restore()

    def _evaluate(self) -> EvalStats:
        return self._learner.evaluate(self._x, self._labels, progress=self._progress)

    def restore(self) -> None:
        """Use the adapter before again."""
        self._learner.load(self.previous)

    def judge(self) -> str:
        """Evaluate the trained adapter; restore the one before if it is worse, and say in what (else empty)."""
        self.after = self._evaluate()
        reason = refusal(self.after, self.base, self.before)
        if reason and not self._keep_worse:
            self.restore()
        return reason

    def refuse(self, reason: str) -> None:
        """Raise GuardError for a reason, unless worse adapters are kept."""
        if reason and not self._keep_worse:
            raise GuardError(
                f"the trained adapter is worse: {reason}; it was not kept, the adapter before is in use again "
                "(train with a lower lr or other samples, or keep it with --keep-worse, keep_worse=True)"
            )

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.refuse(self.judge())

# SPDX-License-Identifier: Apache-2.0
"""Where an interrupted training stands, from what the device says: so that another host can go on with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lora_mcu.errors import DataError
from lora_mcu.link.commands import Statistics
from lora_mcu.session.settings import Settings

_START = "train without --continue to begin anew"


@dataclass(frozen=True)
class Place:
    """Epochs that are done, and samples of the current streamed one."""

    epochs: int
    samples: int = 0


def streamed_place(seen: Statistics, settings: Settings, samples: int) -> Place:
    """Return where a training of ``samples`` streamed samples an epoch stopped.

    Raises DataError where the device's training is another one, or cannot be gone on with to the same adapter bytes.
    """
    _same_settings(seen, settings)
    here = seen.last_pass
    if seen.step < here.steps or seen.step == 0 and seen.batch_fill == 0:
        return Place(0)  # the pass is of a training before this one's settings
    if here.skipped:
        raise DataError(f"the device skipped {here.skipped} steps of this training, it diverged: {_START}")
    each = -(-samples // settings.batch_size)
    epochs, odd = divmod(seen.step - here.steps, each)
    if odd or here.samples > samples:
        raise DataError(
            f"the device has made {seen.step} steps and trained on {here.samples} samples of an epoch, no place in a"
            f" training on {samples} samples at batch size {settings.batch_size}: is this the same data? {_START}"
        )
    if seen.batch_fill != here.samples - here.steps * settings.batch_size and here.steps < each:
        raise DataError(f"the device's open batch of {here.samples % settings.batch_size} samples is lost: {_START}")
    return Place(epochs, here.samples)


def stored_place(seen: Statistics, settings: Settings, samples: int) -> Place:
    """Return where a training on ``samples`` stored samples stopped; no run is in progress. Raises as above."""
    _same_settings(seen, settings)
    if seen.epoch_index == 0:
        return Place(0)
    if seen.stored != samples:
        raise DataError(f"the device has {seen.stored} samples in its store and not {samples}: {_START}")
    if seen.last_epoch.samples != samples:
        raise DataError(
            f"the last epoch was stopped after {seen.last_epoch.samples} of {samples} samples, its open batch is lost:"
            f" {_START}"
        )
    return Place(seen.epoch_index)


def _same_settings(seen: Statistics, settings: Settings) -> None:
    import numpy as np

    for name, value in dataclasses.asdict(settings).items():
        found = getattr(seen.settings, name)
        same = np.float32(value) == np.float32(found) if isinstance(value, float) else value == found
        if not same:
            option = "--" + name.replace("_", "-")
            shown = f"{found:g}" if isinstance(found, float) else found
            raise DataError(
                f"the device trains with {option} {shown}, not {value}: give the settings of the training that was"
                f" interrupted, or {_START}"
            )

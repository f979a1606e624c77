# SPDX-License-Identifier: Apache-2.0
"""The settings of training, checked once on the host so that the device never has to explain a number."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_mcu.errors import DataError
from lora_mcu.info import ModelInfo

ROUNDINGS = ("stochastic", "nearest")  # index = LMCU_ROUND_*
_U32 = 2**32 - 1


POLICIES = ("stop", "ring", "reservoir")  # index = LMCU_STORE_*


@dataclass(frozen=True)
class StorePolicy:
    """What a full sample store does with the next sample, and which samples are not trained on.

    ``stop`` refuses it, ``ring`` drops the oldest, ``reservoir`` keeps a uniform draw of all that were offered (Vitter,
    "Random sampling with a reservoir", ACM TOMS 11(1), 1985, algorithm R). With ``balance`` the class with the most
    samples gives way: its oldest in a ring; in a reservoir class-balancing reservoir sampling (Chrysakis and Moens,
    "Online continual learning from imbalanced data", ICML 2020). Every ``hold_out``-th sample offered is kept for
    judging (0: none). DataError for values out of range.
    """

    policy: str = "stop"
    balance: bool = False
    hold_out: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise DataError(f"store policy {self.policy!r} is unknown; use one of {', '.join(POLICIES)}")
        if self.balance and self.policy == "stop":
            raise DataError("balance decides which sample of a full store gives way; use it with ring or reservoir")
        whole = type(self.hold_out) is int and 0 <= self.hold_out <= _U32
        if not whole or self.hold_out == 1:
            raise DataError(f"hold_out is {self.hold_out!r}; it must be 0 (none) or a whole number from 2")


@dataclass(frozen=True)
class StoreState:
    """The sample store: its policy, samples in it, those held out among them, samples offered since it was empty."""

    policy: StorePolicy
    stored: int
    held_out: int
    seen: int


@dataclass(frozen=True)
class Settings:
    """SGD settings as the device takes them; floats become float32 there. DataError for a value out of range."""

    lr: float = 0.01
    lr_b_ratio: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    batch_size: int = 8
    rounding: str = "stochastic"
    seed: int = 0

    def __post_init__(self) -> None:
        above_zero = "a finite number above 0"
        not_negative = "a finite number of at least 0"
        self._float("lr", above_zero, lambda v: v > 0)
        self._float("lr_b_ratio", above_zero, lambda v: v > 0)
        self._float("momentum", "at least 0 and below 1", lambda v: 0 <= v < 1)
        self._float("weight_decay", not_negative, lambda v: v >= 0)
        self._float("clip_norm", f"{not_negative} (0: no clipping)", lambda v: v >= 0)
        self._int("batch_size", 1)
        self._int("seed", 0)
        if self.rounding not in ROUNDINGS:
            raise DataError(f"rounding is {self.rounding!r}; it must be one of {', '.join(ROUNDINGS)}")

    def check_build(self, info: ModelInfo) -> None:
        """Raise DataError where the model was compiled without what a setting needs."""
        if self.momentum > 0 and not info.momentum:
            raise DataError(
                f"momentum is {self.momentum!r}, but {info.name} was compiled with --no-momentum: use 0, or compile it "
                "again with --momentum"
            )
        if info.max_batch and self.batch_size > info.max_batch:
            raise DataError(
                f"batch_size is {self.batch_size}, but {info.name} was compiled with --max-batch {info.max_batch}: "
                f"use {info.max_batch}, or compile it again without"
            )

    def _float(self, name: str, must: str, allowed: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        try:
            with np.errstate(over="ignore", under="ignore"):
                rounded = float(np.float32(value))
        except (TypeError, ValueError):
            rounded = math.nan
        if not (math.isfinite(rounded) and allowed(rounded)):
            raise DataError(f"{name} is {value!r}; as float32 it must be {must}")
        object.__setattr__(self, name, float(value))

    def _int(self, name: str, least: int) -> None:
        value = getattr(self, name)
        try:
            whole = operator.index(value)
        except TypeError:
            whole = -1
        if not least <= whole <= _U32 or isinstance(value, bool):
            raise DataError(f"{name} is {value!r}; it must be a whole number from {least} to {_U32}")
        object.__setattr__(self, name, whole)

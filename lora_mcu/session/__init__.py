# SPDX-License-Identifier: Apache-2.0
"""Training sessions: checks on data and settings, and the Learner that device and twin share."""

from lora_mcu.session.learner import Learner
from lora_mcu.session.settings import Settings, StorePolicy, StoreState
from lora_mcu.session.stats import EvalStats, RawStats, TrainStats

__all__ = ["EvalStats", "Learner", "RawStats", "Settings", "StorePolicy", "StoreState", "TrainStats"]

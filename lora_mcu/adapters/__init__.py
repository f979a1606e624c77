# SPDX-License-Identifier: Apache-2.0
"""Adapters: the trained factors, as an object and as files in PEFT's layout."""

from lora_mcu.adapters.adapter import Adapter
from lora_mcu.adapters.files import write_training_record

__all__ = ["Adapter", "write_training_record"]

# SPDX-License-Identifier: Apache-2.0
"""Adapters: the trained factors, as an object and as files in PEFT's layout."""

from lora_mcu.adapters.adapter import Adapter

__all__ = ["Adapter"]

# SPDX-License-Identifier: Apache-2.0
"""The command line. Its modules import the rest of lora_mcu inside commands, so that ``--help`` is quick."""

from lora_mcu.cli.main import main

__all__ = ["main"]

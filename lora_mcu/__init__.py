# SPDX-License-Identifier: Apache-2.0
"""lora_mcu: int8 .tflite models become firmware that learns its user, by LoRA on a frozen base."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module: `import lora_mcu` stays fast, and each name loads what it needs when it is first used
_EXPORTS = {
    "Adapter": "adapters",
    "AdapterError": "errors",
    "BoardError": "errors",
    "DataError": "errors",
    "Device": "session.device",
    "DeviceError": "errors",
    "Error": "errors",
    "GuardError": "errors",
    "EvalStats": "session.stats",
    "ModelError": "errors",
    "Program": "program",
    "Project": "project",
    "ProjectError": "errors",
    "ToolError": "errors",
    "TrainStats": "session.stats",
    "Twin": "twin",
    "build": "building",
    "combine": "adapters.combining",
    "compile": "program",
    "emulate": "emulators",
    "flash": "flashing",
    "load_project": "project",
    "merge": "adapters.merging",
}

if TYPE_CHECKING:
    from lora_mcu.adapters import Adapter
    from lora_mcu.adapters.combining import combine
    from lora_mcu.adapters.merging import merge
    from lora_mcu.building import build
    from lora_mcu.emulators import emulate
    from lora_mcu.errors import (
        AdapterError,
        BoardError,
        DataError,
        DeviceError,
        Error,
        GuardError,
        ModelError,
        ProjectError,
        ToolError,
    )
    from lora_mcu.flashing import flash
    from lora_mcu.program import Program, compile
    from lora_mcu.project import Project, load_project
    from lora_mcu.session.device import Device
    from lora_mcu.session.stats import EvalStats, TrainStats
    from lora_mcu.twin import Twin

__all__ = [
    "Adapter", "AdapterError", "BoardError", "DataError", "Device", "DeviceError", "Error", "EvalStats", "GuardError",
    "ModelError", "Program", "Project", "ProjectError", "ToolError", "TrainStats", "Twin", "build", "combine",
    "compile", "emulate", "flash", "load_project", "merge",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lora_mcu' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lora_mcu.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value

# SPDX-License-Identifier: Apache-2.0
"""Every refusal of lora_mcu: one line that names the thing, the limit and the way out."""

from __future__ import annotations


class Error(Exception):
    """Base of all refusals. ``str(error)`` is the line that the command line prints (exit code 1)."""


class ModelError(Error):
    """The .tflite file or one of its operators or tensors cannot be served."""


class BoardError(Error):
    """The board is unknown, its file is wrong, or the model does not fit it."""


class DataError(Error):
    """Samples, labels or settings have the wrong shape, dtype, range or are not finite."""


class AdapterError(Error):
    """An adapter file is broken or belongs to another model, rank or layout."""


class DeviceError(Error):
    """The device does not answer, answers with an error status, or speaks another protocol version."""


class ToolError(Error):
    """A compiler, emulator or build tool is missing or failed."""


class ProjectError(Error):
    """A compiled project is missing, incomplete, not built, or would be overwritten."""


class GuardError(Error):
    """A trained adapter is worse on held-out samples than the base or the adapter before, and was not kept."""

# SPDX-License-Identifier: Apache-2.0
"""Numbers of the protocol, read once from the firmware's own headers, so that each is written in one place."""

from __future__ import annotations

import re
from enum import EnumMeta, IntEnum
from typing import TYPE_CHECKING, Any

from lora_mcu import resources

_HEADERS = resources.path("firmware") / "runtime"
_ENTRY = re.compile(r'\bX\((\w+), (\d+), "([^"]*)"\)')
_DEFINE = re.compile(r"^#define LMCU_(\w+) (\d+)\b", re.MULTILINE)


def _table(name: str) -> dict[str, tuple[int, str]]:
    """The entries of ``#define LMCU_<name>_TABLE(X)``: name -> (number, meaning)."""
    text = (_HEADERS / "lmcu_codes.h").read_text()
    body = re.search(rf"#define LMCU_{name}_TABLE\(X\)((?:.*\\\n)*.*)\n", text)
    assert body is not None, f"lmcu_codes.h has no LMCU_{name}_TABLE"
    return {m[1]: (int(m[2]), m[3]) for m in _ENTRY.finditer(body[1])}


_STATUS = _table("STATUS")
_MESSAGE = _table("MESSAGE")
_RESET = _table("RESET")
CONFIG = {m[1]: int(m[2]) for m in _DEFINE.finditer((_HEADERS / "lmcu_config.h").read_text())}


class _FromHeader(EnumMeta):
    if TYPE_CHECKING:  # the members are in the C header, where no type checker looks

        def __getattr__(cls, name: str) -> Any: ...


class Status(IntEnum, metaclass=_FromHeader):
    """Status codes, LMCU_STATUS_TABLE."""

    vars().update({name: number for name, (number, _) in _STATUS.items()})


class Message(IntEnum, metaclass=_FromHeader):
    """Message types of requests, LMCU_MESSAGE_TABLE."""

    vars().update({name: number for name, (number, _) in _MESSAGE.items()})


class ResetCause(IntEnum, metaclass=_FromHeader):
    """Why a device was reset, LMCU_RESET_TABLE."""

    vars().update({name: number for name, (number, _) in _RESET.items()})


RESET_TEXT: dict[int, str] = dict(_RESET.values())
STATUS_TEXT: dict[int, str] = dict(_STATUS.values())
MESSAGE_TEXT: dict[int, str] = dict(_MESSAGE.values())
PROTOCOL_VERSION = CONFIG["PROTOCOL_VERSION"]
FIRMWARE_VERSION = (CONFIG["FIRMWARE_MAJOR"], CONFIG["FIRMWARE_MINOR"], CONFIG["FIRMWARE_PATCH"])
RESPONSE = 0x80  # bit of a response's type


def describe(status: int) -> str:
    """Return a status as ``NAME: meaning``."""
    if status not in STATUS_TEXT:
        return f"status {status}, unknown to this host: update lora_mcu"
    return f"{Status(status).name}: {STATUS_TEXT[status]}"

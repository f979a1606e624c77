# SPDX-License-Identifier: Apache-2.0
"""Options of every command that talks to a device: timeouts, speed, trace. `@line_options` adds them to a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Timeout = Annotated[
    float,
    typer.Option(min=0.01, help="Seconds until a request is sent again (then twice, four, at most 8 times that)."),
]
Retries = Annotated[int, typer.Option(min=0, help="How often a request is sent again before the device is given up.")]
Baud = Annotated[int | None, typer.Option(help="Speed of the line to change to, for this command.", show_default=False)]
Trace = Annotated[
    Path | None, typer.Option(help="Write what goes over the line here (`lora-mcu monitor FILE`).", show_default=False)
]
Key = Annotated[
    Path | None, typer.Option(help="File of the key that the device was compiled with.", show_default=False)
]


@dataclass(frozen=True)
class Line:
    """How to talk to the device; the defaults are those of Device."""

    timeout: float = 1.0
    retries: int = 6
    baud: int | None = None
    trace: Path | None = None
    key: Path | None = None


_DEFAULT = Line()
chosen: ContextVar[Line] = ContextVar("chosen", default=_DEFAULT)
_OPTIONS: dict[str, Any] = {"timeout": Timeout, "retries": Retries, "baud": Baud, "trace": Trace, "key": Key}


def line_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above; `open_device` finds them in ``chosen``."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        chosen.set(Line(**{name: arguments.pop(name) for name in _OPTIONS}))
        command(**arguments)

    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(Line(), name), annotation=option)
        for name, option in _OPTIONS.items()
    ]
    wrapper.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**command.__annotations__, **_OPTIONS}
    return wrapper

# SPDX-License-Identifier: Apache-2.0
"""What commands print: results on standard output, progress on standard error, files whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_mcu.errors import ProjectError


class Interrupted(Exception):
    """Ctrl-C; the text says what was kept (exit code 130)."""


def say(line: str = "") -> None:
    """One line of the result."""
    print(line)


def warn(line: str) -> None:
    """A line beside the result, on standard error."""
    print(line, file=sys.stderr)


def emit(value: Any) -> None:
    """The result as JSON; dataclasses become objects, values that are not finite become null."""
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under headings; columns whose cells are all numbers or empty stand at the right."""
    cells = [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        say("  ".join(padded).rstrip())


def percent(share: float) -> str:
    """An accuracy, or a dash where there is none."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "-"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields the function that takes the number done so far. Quiet where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as own,  # the bar stays where a library is silenced meanwhile
        Progress(*columns, console=Console(file=own), transient=True) as bar,
    ):
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on standard error while something takes its time. Quiet where nobody watches."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def refuse_existing(path: Path, force: bool) -> None:
    """Raise ProjectError where something stands at ``path`` and ``--force`` was not given."""
    if path.exists() and not force:
        raise ProjectError(f"{path} exists: choose another name, or --force replaces it")


def write_whole(path: Path, content: bytes, force: bool) -> None:
    """Write a file so that a reader finds all of it or what was there before."""
    refuse_existing(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_bytes(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)

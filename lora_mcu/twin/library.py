# SPDX-License-Identifier: Apache-2.0
"""Builds a project's model and runtime into a shared library for this computer."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from lora_mcu import resources
from lora_mcu.errors import ToolError

# strict C arithmetic: no contraction into fused multiply-adds, no reordering, no excess precision
FLAGS = ("-std=c99", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror")
# the parts of the runtime that need a serial port or a flash
_LINK_ONLY = ("main.c", "frame.c", "protocol", "store.c", "auth.c", "sha256.c", "key.c")
_TIMEOUT_S = 300


def build_library(files: dict[str, bytes], folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile model.c and the runtime of ``files`` into ``folder``; returns the library. ToolError in one line."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise ToolError("the twin needs a C compiler (cc or gcc) on PATH; install one: apt-get install gcc")
    sources = []
    for name, content in files.items():
        path = Path(name)
        if path.parts[0] not in ("src", "include") or "port" in path.parts or path.name.startswith(_LINK_ONLY):
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if path.suffix == ".c":
            sources.append(target)
    sources.append(resources.path("firmware") / "ports" / "twin" / "twin.c")
    command = [compiler, *FLAGS, *extra]
    headers = hashlib.sha256(b"".join(content for name, content in sorted(files.items()) if name.endswith(".h")))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(lambda source: _compile(command, folder, source, headers.digest()), sources))
    library = folder / "twin.so"
    _call([compiler, *extra, "-shared", "-o", str(library), *map(str, objects), "-lm"])
    return library


@cache
def _objects() -> Path:
    """Objects of this process, by content: most twins of a session share the runtime and differ in model.c only."""
    folder = Path(tempfile.mkdtemp(prefix="lora_mcu-objects-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _compile(command: list[str], folder: Path, source: Path, headers: bytes) -> Path:
    key = hashlib.sha256(repr(command).encode() + headers + source.read_bytes()).hexdigest()
    target = _objects() / f"{key}.o"
    if not target.exists():
        made = folder / f"{key}.o"
        _call([*command, f"-I{folder / 'include'}", f"-I{folder / 'src'}", "-c", str(source), "-o", str(made)])
        shutil.move(made, target)
    return target


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        )
        raise ToolError(f"{command[0]} failed to build the twin: {lines[0]}")

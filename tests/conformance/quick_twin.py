# SPDX-License-Identifier: Apache-2.0
"""Twins in a fraction of the usual time: the runtime's objects are compiled once a session, each model.c by itself.

The flags are those of lora_mcu.twin; only model.c (constants and calls, no arithmetic) goes without optimization.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from lora_mcu import resources
from lora_mcu.program import Program
from lora_mcu.twin import Twin
from lora_mcu.twin.library import FLAGS

_folder = Path(tempfile.mkdtemp(prefix="lora_mcu-quick-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_number = count()
_runtimes: dict[str, list[Path]] = {}


def quick_twin(program: Program) -> Twin:
    """Like ``program.twin()``."""
    files = program.files()
    shared = {k: v for k, v in files.items() if k.startswith("include/") or _in_runtime(k)}
    key = hashlib.sha256(repr(sorted(shared.items())).encode()).hexdigest()[:16]
    base = _folder / key
    if key not in _runtimes:
        _runtimes[key] = _compile_runtime(base, shared)
    number = next(_number)
    source, library = base / f"model{number}.c", base / f"model{number}.so"
    source.write_bytes(files["src/model.c"])
    _call([*_command(base), "-O0", "-c", str(source), "-o", str(source.with_suffix(".o"))])
    _call(["cc", "-shared", "-o", str(library), str(source.with_suffix(".o")), *map(str, _runtimes[key]), "-lm"])
    return Twin(library, program.info)


def _in_runtime(name: str) -> bool:
    path = Path(name)
    return path.parts[:2] == ("src", "runtime") and not path.name.startswith(("main.c", "frame.c", "protocol"))


def _command(base: Path) -> list[str]:
    return ["cc", *FLAGS, f"-I{base / 'include'}"]


def _compile_runtime(base: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    sources = [base / name for name in files if name.endswith(".c")]
    sources.append(resources.path("firmware") / "ports" / "twin" / "twin.c")
    objects = [base / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda c, o: _call([*_command(base), "-c", str(c), "-o", str(o)]), sources, objects))
    return objects


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

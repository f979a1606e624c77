# SPDX-License-Identifier: Apache-2.0
"""What switching and merging adapters cost on the device, in executed instructions of an emulated Cortex-M4F.

    python benchmarks/adapters.py
    python benchmarks/adapters.py --only "HAR demo"

Switching runs the STM32F405's own flash driver (in Unicorn), with four adapters saved; "full log" is the worst case,
the flash area full of saves that others replaced. Models under LORA_MCU_MODELS are measured where they are present.
docs/data.md quotes the tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu.errors import Error

sys.path.insert(0, str(Path(__file__).resolve().parent))

import run as bench

CLOCK = 168_000_000  # of an STM32F405
SWITCH_BOARD = "feather_stm32f405"


def measure(model: Path, board: str, go: bytes, **options: str) -> tuple[lora_mcu.Program, dict[str, list[int]]]:
    """The program, and executed instructions of each line that the benchmark prints."""
    program = lora_mcu.compile(model, board=board, **options)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        program.write(Path(temporary) / "project")
        rows, per_tick = bench.run(program, Path(temporary) / "project", go)
    found: dict[str, list[int]] = {}
    for name, _, value in rows:
        found.setdefault(name, []).append(round(value * (1 if name in ("room", "status", "boot") else per_tick)))
    if any(found["boot"] + found["status"]) and options.get("adapt") != "none":  # training is refused there
        raise SystemExit(f"{program.info.name}: the device reported a failure: {rows}")
    return program, found


def switching(name: str) -> list[str]:
    """A line of the first table."""
    program, found = measure(bench.CASES[name], SWITCH_BOARD, b"s")
    load, full = max(found["load"]), max(found["full"])
    return [
        f"{name} ({len(program.adaptation.layers)} layers)", f"{2 * program.info.parameters:,}", f"{found['room'][0]}",
        f"{load:,}", f"{1000 * load / CLOCK:.1f} ms", f"{full:,}", f"{1000 * full / CLOCK:.1f} ms",
    ]  # fmt: skip


def merging(name: str) -> list[str]:
    """A line of the second table."""
    program, found = measure(bench.CASES[name], bench.BOARD, b"m", weights="sram")
    _, alone = measure(bench.CASES[name], bench.BOARD, b"g", adapt="none")
    base, beside, merged = alone["infer"][0], found["beside"][0], found["merged"][0]
    return [
        f"{name} ({len(program.adaptation.layers)} layers)", f"{program.residents.nbytes:,}", f"{base:,}",
        f"{beside:,}", f"{merged:,}", f"{found['merge'][0]:,}", f"{found['unmerge'][0]:,}",
    ]  # fmt: skip


TABLES = (
    ("switching adapters that stand in flash, instructions and time at 168 MHz", switching,
     ("model", "adapter, bytes", "room for", "switch", "", "full log", "")),
    ("merging on the device (--weights sram), instructions", merging,
     ("model", "weights in SRAM", "base alone", "adapter beside", "merged", "merge", "unmerge")),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="measure one of: " + "; ".join(bench.CASES))
    only = parser.parse_args().only
    console = Console(width=None if sys.stdout.isatty() else 140)
    for title, line, columns in TABLES:
        table = Table(title=f"{title} ({bench.compiler()})")
        for column in columns:
            table.add_column(column, justify="left" if column == "model" else "right")
        for name, model in bench.CASES.items():
            if only not in (None, name):
                continue
            if not model.is_file():
                console.print(f"not measured: {name} (no {model.name} under LORA_MCU_MODELS)")
                continue
            try:
                table.add_row(*line(name))
            except Error as error:
                console.print(f"not measured: {name}: {error}")
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What cached features save: executed instructions of 20 epochs over 24 stored samples on the emulated Cortex-M4F.

    python benchmarks/cache.py          # with and without the cache, models adapted in their last layers
    python benchmarks/cache.py --only "HAR demo, last:1"

Storing counts: with the cache it runs the frozen prefix once a sample. Models under LORA_MCU_MODELS are measured where
they are present. docs/data.md quotes the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu import boards

sys.path.insert(0, str(Path(__file__).resolve().parent))

import run as bench


@dataclass(frozen=True)
class Case:
    """A model under :data:`run.CASES` and the layers it is adapted in."""

    model: str
    adapt: str

    @property
    def name(self) -> str:
        return f"{self.model}, {self.adapt}"


CASES = (Case("HAR demo", "last:1"), Case("HAR demo", "last:2"), Case("MLPerf Tiny KWS", "last:1"))


@dataclass(frozen=True)
class Measured:
    """Instructions of storing and of the epochs, the adapter's CRC-32, bytes of a record, samples that fit."""

    store: int
    epochs: int
    adapter: int
    record_bytes: int
    capacity: int

    @property
    def total(self) -> int:
        return self.store + self.epochs


def measure(case: Case, cache: str) -> Measured:
    """Compile, build and run one case."""
    sram = boards.load(bench.BOARD).sram_bytes - bench.OWN_BYTES
    program = lora_mcu.compile(bench.CASES[case.model], board=bench.BOARD, adapt=case.adapt, cache=cache, sram=sram)
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        folder = Path(temporary) / "project"
        program.write(folder)
        rows, per_tick = bench.run(program, folder, b"e")
    found = {name: value for name, _, value in rows}
    if found["boot"] or found["status"] or not found["steps"]:
        raise SystemExit(f"{case.name}: the device reported a failure: {rows}")
    store, epochs = (round(found[name] * per_tick) for name in ("store", "epochs"))
    return Measured(store, epochs, found["adapter"], program.info.record_bytes, program.info.store_capacity)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="measure one of: " + "; ".join(c.name for c in CASES))
    only = parser.parse_args().only
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"{bench.BOARD}, executed instructions of 20 epochs over 24 samples ({bench.compiler()})")
    for column in ("model", "inputs stored", "features stored", "saved", "record", "samples that fit"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for case in CASES:
        if only not in (None, case.name):
            continue
        if not bench.CASES[case.model].is_file():
            console.print(f"not measured: {case.name} (no {bench.CASES[case.model].name} under LORA_MCU_MODELS)")
            continue
        plain, cached = measure(case, "off"), measure(case, "on")
        if plain.adapter != cached.adapter:
            raise SystemExit(f"{case.name}: the adapters differ with and without the cache")
        table.add_row(
            case.name, f"{plain.total:,}", f"{cached.total:,}", f"{1 - cached.total / plain.total:.1%}",
            f"{plain.record_bytes:,} -> {cached.record_bytes:,}", f"{plain.capacity:,} -> {cached.capacity:,}",
        )  # fmt: skip
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

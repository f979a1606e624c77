# SPDX-License-Identifier: Apache-2.0
"""A step's executed instructions on the ESP32-C3, which has no FPU and no DSP, beside the Cortex-M4F's.

    python benchmarks/cores.py                    # every model, every numerics mode
    python benchmarks/cores.py --only "HAR demo"

The same layers are adapted on both: those that fit the M4F's board. The M4F is QEMU's (`-icount shift=0`), the C3 is
Unicorn's with a count of the executed instructions. docs/performance.md quotes the table.
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
from lora_mcu.program import NUMERICS

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cases
import run as bench

BOARDS = (bench.BOARD, "esp32_c3_devkitm_1")
bench.TIMEOUT_S = 1800  # Unicorn with a count of instructions does a few million a second


@dataclass(frozen=True)
class Measured:
    """Instructions of an inference, of a step at batch 1 and of a sample at batch 8, with an adapter that is not 0."""

    inference: int
    step: int
    sample: int


def measure(model: Path, board: str, layers: int, numerics: str) -> Measured:
    """Compile with the last ``layers`` layers adapted, build with the benchmark's main, run."""
    sram = boards.load(board).sram_bytes - bench.OWN_BYTES
    program = lora_mcu.compile(model, board=board, adapt=f"last:{layers}", rank=4, numerics=numerics, sram=sram)
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        folder = Path(temporary) / "project"
        program.write(folder)
        rows, per_tick = bench.run(program, folder)
    ticks = {(kind, index): value for kind, index, value in rows}
    failed = [value for kind, _, value in rows if kind in ("boot", "status") and value]
    if failed or not ticks["train", 1] or not ticks["train", 8]:
        raise SystemExit(f"{model.name} on {board}: the device reported a failure: {rows}")
    return Measured(
        round(ticks["infer", 0] * per_tick),
        round(ticks["train", 1] * per_tick),
        round(ticks["train", 8] * per_tick / 8),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="measure one of: " + ", ".join([*bench.CASES, bench.MLP]))
    only = parser.parse_args().only
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=f"Executed instructions, {BOARDS[0]} (M4F) and {BOARDS[1]} (C3)")
    columns = ("model", "numerics", *(f"{what}, {core}" for what in ("inference", "step", "sample of 8")
                                      for core in ("M4F", "C3", "ratio")))  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "numerics") else "right")
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        mlp = Path(temporary) / "mlp.tflite"
        mlp.write_bytes(cases.dense_model(cases.MLP))
        for name, model in {**bench.CASES, bench.MLP: mlp}.items():
            if only not in (None, name):
                continue
            if not model.is_file():
                console.print(f"not measured: {name} (no {model.name} under LORA_MCU_MODELS)")
                continue
            layers = len(lora_mcu.compile(model, board=BOARDS[0], rank=4).adaptation.layers)
            for numerics in NUMERICS:
                m4, c3 = (vars(measure(model, board, layers, numerics)) for board in BOARDS)
                cells = [cell for k in m4 for cell in (f"{m4[k]:,}", f"{c3[k]:,}", f"{c3[k] / m4[k]:.1f}")]
                table.add_row(f"{name} (last {layers})", numerics, *cells)
                console.print(f"{name}, {numerics}: a step takes {m4['step']:,} and {c3['step']:,}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

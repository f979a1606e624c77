# SPDX-License-Identifier: Apache-2.0
"""Compiles each model under LORA_MCU_MODELS, compares it with LiteRT, and writes the table of docs/models.md.

python benchmarks/models.py            # all models, and the HAR example
python benchmarks/models.py a.tflite   # these only, nothing is written
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conformance.oracle import Oracle, differing
from conformance.real_models import for_oracle
from conformance.samples import random_samples, structured_samples

import lora_mcu

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "models.md"
BOARD = "mps2_an500"  # large enough for all of them; the plan is the same on every board
INPUTS = 100
_ROWS = re.compile(r"(?<=\|---:\|---:\|---\|\n)(\|.*\n)*")


def row(path: Path) -> str:
    """The model's row; a model that is refused has the refusal in it."""
    try:
        bare = lora_mcu.compile(path, board=BOARD, adapt="none")
        trained = lora_mcu.compile(path, board=BOARD, adapt="last:1")
    except lora_mcu.Error as error:
        return f"| {path.stem} | {path.stat().st_size:,} | | | | | | {error} |"
    edge = bare.info.input
    x = np.concatenate([structured_samples(edge), random_samples(edge, INPUTS, 3)])
    want = Oracle(for_oracle(path)).infer(x)
    twin = trained.twin() if not trained.info.streaming else bare.twin()
    twin.reset()
    got = twin.infer(x)
    wrong = differing(got, want.reshape(got.shape))
    report = bare.report()
    macs = sum(layer.macs_forward for layer in report.layers)
    return (
        f"| {path.stem} | {path.stat().st_size:,} | {macs:,} | {len(bare.graph.ops)} | {len(bare.graph.adaptable())} "
        f"| {report.training_sram_bytes:,} | {trained.report().training_sram_bytes:,} "
        f"| {'yes' if not wrong else f'no: {wrong} of {got.nbytes:,} bytes'} |"
    )


def main() -> int:
    named = [Path(name) for name in sys.argv[1:]]
    folder = os.environ.get("LORA_MCU_MODELS")
    if not named and not folder:
        raise SystemExit("LORA_MCU_MODELS names no folder: the table is of real models, no part of the project")
    paths = named or [ROOT / "examples/har/har.tflite", *sorted(Path(folder or "").glob("*.tflite"))]
    rows = []
    for path in paths:
        rows.append(row(path))
        print(rows[-1], flush=True)
    if not named:
        text, count = _ROWS.subn("".join(f"{line}\n" for line in rows), DOCUMENT.read_text())
        assert count == 1, f"{DOCUMENT} has no table of models"
        DOCUMENT.write_text(text)
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

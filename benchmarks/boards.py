# SPDX-License-Identifier: Apache-2.0
"""Compiles, builds and where possible runs the demo model on every board, and writes docs/boards.md from what happened.

python benchmarks/boards.py            # all boards; a failure ends it and the document stays as it was
python benchmarks/boards.py mps2_an500 # these boards only, nothing is written
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import lora_mcu
from lora_mcu import boards
from lora_mcu.session.learner import Learner

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "har" / "har.tflite"
HEAD = """# Boards

Made by `python benchmarks/boards.py`, which compiles the demo model for each board, builds it with `pio run`, holds the
memory report to the image byte for byte, and where an emulator runs the board trains 3 steps and compares the adapter
with the twin's. No microcontroller here has run on silicon yet.

| board | what it is | built, report equals image | ran, adapter bytes equal the twin's |
|---|---|---|---|
"""


def train(learner: Learner) -> bytes:
    data = np.load(MODEL.with_suffix(".npz"), allow_pickle=False)
    chosen = np.concatenate([np.flatnonzero(data["y"] == label)[:2] for label in range(6)])
    learner.configure(lr=0.01, batch_size=4, seed=7)
    learner.train(data["x"][chosen], data["y"][chosen])
    return learner.adapter().to_factors(learner.info)


def row(name: str, folder: Path) -> str:
    """The board's row. Ends the program when anything is not as the row would say."""
    board = boards.load(name)
    program = lora_mcu.compile(MODEL, board=name, adapt="all")
    program.write(folder)
    result = lora_mcu.build(folder)
    report = program.report().to_dict()
    wrong = [s for s, n in {**report["sram"], **report["constants"]}.items() if result.symbols[s].size != n]
    if wrong or result.ram_bytes != report["sram_bytes"]:
        raise SystemExit(f"{name}: the image differs from the report: {wrong or result.ram_bytes}")
    if board.emulators:
        with lora_mcu.emulate(folder) as url, lora_mcu.Device(url) as device:
            if train(device) != train(program.twin()):
                raise SystemExit(f"{name}: the adapter differs from the twin's")
    ran = f"yes: {board.emulators[0]}" if board.emulators else "not run: no emulator here has this part"
    return f"| `{name}` | {board.description} | yes | {ran} |"


def main() -> int:
    rows = []
    for name in sys.argv[1:] or boards.names():
        with tempfile.TemporaryDirectory(prefix="lora_mcu-boards-") as temporary:
            rows.append(row(name, Path(temporary) / "project"))
        print(rows[-1], flush=True)
    if not sys.argv[1:]:
        (ROOT / "docs" / "boards.md").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

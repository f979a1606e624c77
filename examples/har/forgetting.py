# SPDX-License-Identifier: Apache-2.0
"""What adapting to one person's mounting costs at the mounting that the model was trained for, and what replay saves.

    python examples/har/forgetting.py          # six people, three seeds, on the twin of the STM32F405: two minutes

Each person's 60 windows are trained on alone, then together with 60 windows of the other five people as they were
recorded, not rotated (both fit the store). Judged on the person's held-out windows at the new angle, and on the same
person's windows at the old one. docs/data.md quotes the table.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import windows
from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu import forgetting
from lora_mcu.datasets import Dataset, mix

EPOCHS, LR, REPLAYED = 75, 0.02, 60


def measure(person: int, seed: int) -> dict[str, list[list[float]]]:
    """Accuracies [2, 2]: base and adapter on the old angle and the new one; trained alone, and with replay."""
    har = windows.load()
    with np.load(windows.HERE / "har.npz", allow_pickle=False) as stored:
        base_x, base_y, subject = stored["base_x"], stored["base_y"], stored["base_subject"]
    split = windows.split_person(har, person, seed)
    own = Dataset(har.x[split.train], har.y[split.train])
    others = Dataset(base_x[subject != person], base_y[subject != person])
    tasks = [
        Dataset(base_x[subject == person], base_y[subject == person]),
        Dataset(har.x[split.test], har.y[split.test]),
    ]
    found = {}
    for name, data in (("alone", own), ("replay", mix(own, others, REPLAYED, seed))):
        program = lora_mcu.compile(windows.HERE / "har.tflite", board="netduinoplus2", adapt="all", momentum=False)
        twin = program.twin()  # without a buffer for momentum 120 samples fit
        outputs = twin.infer(tasks[0].x)
        twin.configure(lr=LR, batch_size=8, seed=seed)
        twin.store(data.x, data.labels)
        twin.run_epochs(EPOCHS)
        found[name] = forgetting.table(twin, tasks, [twin.adapter()])
        twin.reset()
        assert np.array_equal(twin.infer(tasks[0].x), outputs), "without the adapter it is the base, bit for bit"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    runs = [(person, seed) for person in windows.load().people for seed in range(arguments.seeds)]
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(measure, *zip(*runs, strict=True)))
    table = Table(title=f"six people, {arguments.seeds} seeds, rank 4 on all layers, {EPOCHS} epochs at lr {LR}")
    for column in ("trained on", "new angle", "old angle before", "old angle after", "forgetting", "backward transfer"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    summary = {}
    for name, label in (("alone", "60 own windows"), ("replay", f"and {REPLAYED} of others, old angle")):
        a = np.array([result[name] for result in results])
        figures = [forgetting.forgetting(one) for one in a]
        row = [a[:, 1, 1].mean(), a[:, 0, 0].mean(), a[:, 1, 0].mean(),
               np.mean([f.forgetting for f in figures]), np.mean([f.backward_transfer for f in figures])]  # fmt: skip
        summary[name] = [float(v) for v in row]
        table.add_row(label, *(f"{100 * v:.1f} %" for v in row[:3]), *(f"{100 * v:.1f}" for v in row[3:]))
    if arguments.json:
        print(json.dumps(summary))
    else:
        Console(width=120).print(table)


if __name__ == "__main__":
    main()

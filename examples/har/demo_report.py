# SPDX-License-Identifier: Apache-2.0
"""The demo's picture and page, from its results (build/demo/results.json) and the recorded baselines.

python examples/har/demo_report.py     # draw again what the last demo found, also into docs/ for the README
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import windows

from lora_mcu import plots, report_html
from lora_mcu.report_html import Image, Section

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STEPS = "600"
METHODS = ("before", "last layer (recorded)", "LoRA on the twin", "float LoRA (recorded)")
COLOURS = (plots.GREY, plots.SKY, plots.BLUE, plots.GREEN)


@cache
def baselines() -> dict[str, Any]:
    """baselines.json: float training on a PC, made by baselines.py."""
    recorded: dict[str, Any] = json.loads((HERE / "baselines.json").read_text())
    return recorded


def accuracy_rows(people: list[dict[str, Any]]) -> list[tuple[str, list[float]]]:
    """(person, [before, last layer, LoRA, float LoRA]) as means over seeds, and the mean over people last."""
    recorded = [baselines()["methods"][m][STEPS]["test_accuracy_per_person"] for m in ("last_layer", "lora_float")]
    rows = []
    for person in dict.fromkeys(p["person"] for p in people):
        before, lora = (np.mean([p[key] for p in people if p["person"] == person]) for key in ("before", "lora"))
        last, floats = (np.mean(r[str(person)]) for r in recorded)
        rows.append((f"person {person}", [float(v) for v in (before, last, lora, floats)]))
    mean = [float(v) for v in np.mean([values for _, values in rows], axis=0)]
    return [*rows, ("mean", mean)]


def picture(results: dict[str, Any]) -> bytes:
    """One person before and after with the SRAM beside it; below, everybody, and the loss on the device."""
    device, report = results["device"], results["report"]
    figure = plots.new_figure(12, 6.8)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.2, 1])
    for column, when in enumerate(("before", "after")):
        axes = figure.add_subplot(grid[0, column])
        names = list(windows.load().label_names)
        counts = plots.confusion_matrix(device["labels"], device[f"found_{when}"], len(names))
        plots.confusion(axes, counts, names, row_names=column == 0)
        steps = "" if when == "before" else f" {device['steps']} steps in QEMU"
        plots.title(axes, f"Person {device['person']} {when}{steps}: {100 * device[when]['accuracy']:.1f} %")
    axes = figure.add_subplot(grid[0, 2])
    plots.memory_map(axes, report["sram"], plots.STORE_SYMBOLS)
    plots.title(axes, f"SRAM, bytes: {report['training_sram_bytes']:,} + stored samples")
    rows = accuracy_rows(results["people"])
    axes = figure.add_subplot(grid[1, 0])
    short = ("before", "last layer\n(recorded)", "LoRA", "float LoRA\n(recorded)")
    plots.bars(axes, dict(zip(short, [100 * v for v in rows[-1][1]], strict=True)), COLOURS)
    plots.title(axes, "Mean of six people, accuracy")
    axes = figure.add_subplot(grid[1, 1])
    series = {
        name: [100 * values[i] for _, values in rows[:-1]] for i, name in enumerate(("before", "last layer", "LoRA"))
    }
    plots.points_by_person(axes, [name for name, _ in rows[:-1]], series, COLOURS[:3])
    plots.title(axes, "Each of them")
    axes = figure.add_subplot(grid[1, 2])
    plots.loss_curve(axes, {"": device["losses"]})
    plots.title(axes, f"Training loss in QEMU, person {device['person']}")
    return plots.png(figure)


def page(results: dict[str, Any], png: bytes) -> str:
    """The report as HTML that needs nothing else."""
    device = results["device"]
    promises = [(name, "kept" if kept else "BROKEN", seen) for name, (kept, seen) in results["promises"].items()]
    made = f"float training on a PC, each method at its own best rate, made by {baselines()['command']}"
    recorded = f"Means of three seeds. Recorded: {made}."
    rows = [(name, *(f"{100 * v:.1f}" for v in values)) for name, values in accuracy_rows(results["people"])]
    image = Image(png, "Confusion matrices before and after, SRAM by symbol, accuracies, training loss")
    sections = [
        Section("What was done", _story(results), images=[image]),
        Section("Promises", [], ("promise", "", "seen"), promises),
        Section("Accuracy on the test part, %", [recorded], ("", *METHODS), rows),
        *report_html.memory_sections(results["report"]),
    ]
    before, after = (f"{device[when]['accuracy']:.1%}" for when in ("before", "after"))
    lead = f"Person {device['person']}: accuracy {before} before, {after} after training on the emulated board."
    return report_html.page("lora_mcu demo: activity recognition at another angle", lead, sections)


def _story(results: dict[str, Any]) -> list[str]:
    report, classes = results["report"], len(windows.load().label_names)
    shift = " and ".join(str(step) for step in np.load(HERE / "har.npz")["rotation_steps"])
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    return [
        f"Six people whom the model has never seen ({classes} activities, windows of 128 samples of accelerometer and "
        f"gyroscope) wear the device at another angle: both sensors' frames are rotated by {shift}. This shift is "
        "synthetic; the recordings are real (UCI HAPT, CC BY 4.0, see examples/har/ATTRIBUTION.md).",
        f"{windows.PER_CLASS} windows a class of each person's adaptation part train LoRA factors of rank "
        f"{report['rank']} on {len(report['adapt'])} layers; accuracy is on the test part. Settings: {settings}; "
        "the rate was chosen on the adaptation part (baselines.json).",
        f"Person {results['device']['person']} was trained by the firmware in QEMU (STM32F405), everybody on the twin.",
    ]


def write(results: dict[str, Any], folder: Path) -> None:
    """demo.png and report.html."""
    png = picture(results)
    (folder / "demo.png").write_bytes(png)
    (folder / "report.html").write_text(page(results, png), encoding="utf-8")


if __name__ == "__main__":
    built = ROOT / "build" / "demo"
    write(json.loads((built / "results.json").read_text()), built)
    (ROOT / "docs" / "demo.png").write_bytes((built / "demo.png").read_bytes())

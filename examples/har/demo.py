# SPDX-License-Identifier: Apache-2.0
"""The main job on real data: one person in an emulated STM32F405, then all six on the twin. `make demo` runs this.

Activity recognition for somebody who wears the device at another angle (ATTRIBUTION.md says how the data was changed).
Writes build/demo/: the compiled project, adapters, demo.png, report.html, results.json. Exit code 1: a promise failed.

    python examples/har/demo.py [--board netduinoplus2]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import demo_report
import numpy as np
import numpy.typing as npt
import windows
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import lora_mcu

HERE = Path(__file__).resolve().parent
MODEL = HERE / "har.tflite"
OUTPUT = HERE.parent.parent / "build" / "demo"
SEED = 0
EPOCHS = 75  # 60 windows are 8 steps an epoch (seven of 8 windows, one of 4): 600 steps
SECONDS = 300
TRAINING_SRAM = 48 * 1024
BEFORE_AT_MOST, AFTER_AT_LEAST = 0.40, 0.965

Int8s = npt.NDArray[np.int8]
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Results:
    """What the demo found; promises are name -> (kept, what was seen)."""

    settings: dict[str, Any]
    report: dict[str, Any]
    promises: dict[str, tuple[bool, str]] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    people: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def promise(self, name: str, kept: bool, seen: str) -> None:
        self.promises[name] = (bool(kept), seen)
        console.print(f"  {'[green]kept[/]' if kept else '[red]BROKEN[/]'}  {name}: {seen}")


@contextmanager
def step(title: str) -> Iterator[None]:
    console.print(f"[bold]{title}[/]")
    began = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - began:.1f} s[/]")


def progress(*columns: ProgressColumn) -> Progress:
    """A bar that leaves nothing behind, and is not drawn where nobody watches."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def litert_outputs(x: Int8s) -> Int8s | None:
    """What LiteRT's reference kernels give for every window; None where LiteRT is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        return None
    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_path=str(MODEL), experimental_op_resolver_type=reference, num_threads=1)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for window in x:
        interpreter.set_tensor(into, window[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(out)[0].copy())
    return np.stack(found)


def check_base(results: Results, twin: lora_mcu.Twin, har: windows.Har) -> None:
    """Without an adapter the compiled model gives LiteRT's bytes."""
    rng = np.random.default_rng(SEED)
    x = np.concatenate([har.x, rng.integers(-128, 128, (200, *har.x.shape[1:]), np.int8)])
    expected = litert_outputs(x)
    if expected is None:
        console.print("  not compared with LiteRT: pip install ai-edge-litert==2.3.0")
        return
    differing = int(np.sum(twin.infer(x) != expected))
    results.promise("exact base", differing == 0, f"{differing} of {expected.size:,} output bytes differ from LiteRT's")


def train_on_device(
    results: Results, project: Path, har: windows.Har, person: int, settings: dict[str, Any]
) -> tuple[lora_mcu.Adapter, Int8s]:
    """Store one person's windows on the emulated board, train there, return the adapter and the outputs after."""
    split = windows.split_person(har, person, SEED)
    x, y = har.x[split.test], har.y[split.test]
    with lora_mcu.emulate(project) as url, lora_mcu.Device(url) as device:
        console.print(f"  {device.info.board} answers at {url}")
        base = device.infer(x)
        before = device.evaluate(x, y)
        device.configure(**settings)
        device.store(har.x[split.train], har.y[split.train])
        console.print(f"  {device.stored} windows sent once and kept on the device; {len(x)} to test on")
        losses: list[float] = []
        texts = (TextColumn("  training in the emulator"), BarColumn(), TextColumn("{task.fields[loss]}"))
        began = time.monotonic()
        with progress(*texts, TimeRemainingColumn()) as bar:
            task = bar.add_task("", total=EPOCHS, loss="")

            def show(epoch: int, stats: lora_mcu.TrainStats) -> None:
                losses.append(stats.loss)
                bar.update(task, completed=epoch, loss=f"epoch {epoch}, loss {stats.loss:.4f}")
                if epoch % 25 == 0 and not console.is_terminal:
                    console.print(f"  epoch {epoch}, loss {stats.loss:.4f}")

            stats = device.run_epochs(EPOCHS, progress=show)
        seconds = time.monotonic() - began
        after = device.evaluate(x, y)
        adapted = device.infer(x)
        adapter = device.adapter()
        device.reset()
        restored = device.infer(x)
    accuracies = f"accuracy {before.accuracy:.1%} -> {after.accuracy:.1%}"
    console.print(f"  {stats.steps} steps in {seconds:.0f} s, {stats.skipped} skipped: {accuracies}")
    results.device = {
        "person": person, "steps": stats.steps, "skipped": stats.skipped, "losses": losses, "training_seconds": seconds,
        "before": asdict(before), "after": asdict(after), "labels": y.tolist(), "found_before": base.argmax(1).tolist(),
        "found_after": adapted.argmax(1).tolist(),
    }  # fmt: skip
    changed = int(np.sum(base != restored))
    results.promise("base restored", changed == 0, f"{changed} output bytes differ after reset from before training")
    return adapter, adapted


def check_restart(results: Results, project: Path, adapter_folder: Path, x: Int8s, expected: Int8s) -> None:
    """A restarted device with the pushed adapter gives the same bytes."""
    with lora_mcu.emulate(project) as url, lora_mcu.Device(url) as device:
        device.load(lora_mcu.Adapter.load(adapter_folder))
        found = device.infer(x)
    differing = int(np.sum(found != expected))
    seen = f"{differing} of {expected.size:,} output bytes differ after restart and push"
    results.promise("nothing lost", differing == 0, seen)


@cache
def twin_of(project: Path) -> lora_mcu.Twin:
    """One build of the twin a process."""
    return lora_mcu.load_project(project).twin()


def train_on_twin(
    project: Path, person: int, seed: int, settings: dict[str, Any]
) -> tuple[dict[str, Any], lora_mcu.Adapter]:
    """One person and seed on the twin, as the device does it."""
    har = windows.load()
    split = windows.split_person(har, person, seed)
    twin = twin_of(project)
    twin.reset()
    twin.clear_store()
    x, y = har.x[split.test], har.y[split.test]
    before = twin.evaluate(x, y)
    twin.configure(**{**settings, "seed": seed})
    twin.store(har.x[split.train], har.y[split.train])
    stats = twin.run_epochs(EPOCHS)
    after = twin.evaluate(x, y)
    found = {"person": person, "seed": seed, "before": before.accuracy, "lora": after.accuracy, "steps": stats.steps}
    return found, twin.adapter()


def train_all_on_twin(results: Results, project: Path, har: windows.Har, settings: dict[str, Any]) -> None:
    """All six people with every seed of the baselines; the first person's adapter must have the device's bytes."""
    jobs = [(person, seed) for person in har.people for seed in demo_report.baselines()["seeds"]]
    with ProcessPoolExecutor(max_workers=2) as pool, progress(*Progress.get_default_columns()) as bar:
        task = bar.add_task("  six people on the twin", total=len(jobs))
        running = [pool.submit(train_on_twin, project, person, seed, settings) for person, seed in jobs]
        for job in running:
            job.add_done_callback(lambda _: bar.advance(task))
        done = [job.result() for job in running]
    results.people = [found for found, _ in done]
    first = next(adapter for found, adapter in done if (found["person"], found["seed"]) == (har.people[0], SEED))
    first.save(OUTPUT / "twin_adapter", force=True)


def check_same_bytes(results: Results, person: int) -> None:
    """The adapter files of device and twin."""
    device, twin = (OUTPUT / name / "adapter_model.safetensors" for name in (f"person{person}", "twin_adapter"))
    same = device.read_bytes() == twin.read_bytes()
    seen = f"adapter of person {person}, {device.stat().st_size:,} bytes: emulated board {'=' if same else '!='} twin"
    results.promise("same bytes everywhere", same, seen)


def check_accuracy(results: Results) -> None:
    before, after = (float(np.mean([p[key] for p in results.people])) for key in ("before", "lora"))
    results.promise("before", before <= BEFORE_AT_MOST, f"mean {before:.1%}, at most {BEFORE_AT_MOST:.0%} wanted")
    results.promise("after LoRA", after >= AFTER_AT_LEAST, f"mean {after:.1%}, at least {AFTER_AT_LEAST:.1%} wanted")


def show_table(results: Results) -> None:
    """Accuracy on the test parts, a line a person."""
    table = Table(title="Accuracy on the test part, %", title_justify="left")
    for column in ("", *demo_report.METHODS):
        table.add_column(column, justify="right" if column else "left")
    for name, values in demo_report.accuracy_rows(results.people):
        table.add_row(name, *(f"{100 * value:.1f}" for value in values), style="bold" if name == "mean" else "")
    console.print(table)
    console.print("[dim]means of three seeds; recorded: float training on a PC, examples/har/baselines.py[/]")


def run(board: str) -> Results:
    """All steps in order; returns what was found."""
    har, person = windows.load(), windows.load().people[0]
    settings = {"lr": demo_report.baselines()["recommended_lr"], "batch_size": 8, "seed": SEED}
    project, adapter_folder = OUTPUT / "har", OUTPUT / f"person{person}"
    with step(f"Compile {MODEL.name} for {board}"):
        program = lora_mcu.compile(MODEL, board=board, adapt="all", rank=4)
        program.write(project, force=True)
        report = program.report().to_dict()
        results = Results(settings, report)
        nbytes = report["training_sram_bytes"]
        seen = f"{nbytes:,} bytes of SRAM to run and train, at most {TRAINING_SRAM:,} wanted"
        results.promise("training SRAM", nbytes <= TRAINING_SRAM, seen)
        check_base(results, program.twin(), har)
    with step("Build the firmware"):
        lora_mcu.build(project)
    with step(f"Train for person {person} on the emulated board"):
        adapter, adapted = train_on_device(results, project, har, person, settings)
        adapter.save(adapter_folder, force=True)
    with step("Restart the board and push the adapter"):
        test = windows.split_person(har, person, SEED).test
        check_restart(results, project, adapter_folder, har.x[test], adapted)
    with step("All six people on the twin"):
        train_all_on_twin(results, project, har, settings)
        check_same_bytes(results, person)
        check_accuracy(results)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="The main job on real data.")
    parser.add_argument("--board", default="netduinoplus2", help="board to compile for (default: %(default)s)")
    arguments = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        results = run(arguments.board)
    except lora_mcu.Error as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    results.seconds = time.monotonic() - began
    results.promise("time", results.seconds <= SECONDS, f"{results.seconds:.0f} s, at most {SECONDS} wanted")
    show_table(results)
    (OUTPUT / "results.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    demo_report.write(asdict(results), OUTPUT)
    console.print(f"wrote {OUTPUT}/demo.png, report.html and results.json")
    return 0 if all(kept for kept, _ in results.promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Counts executed instructions on the emulated Cortex-M4F and writes benchmarks/results.json.

    python benchmarks/run.py            # prints the tables that README quotes, writes results.json
    python benchmarks/run.py --check    # measures again and fails when a figure differs by more than 2 %

Models under LORA_MCU_MODELS (default: ../shared/models beside the checkout) are measured where they are present.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import serial
from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu import boards
from lora_mcu.emulators import create

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cases

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results.json"
MODELS = Path(os.environ.get("LORA_MCU_MODELS", ROOT.parent / "shared" / "models"))
BOARD = "netduinoplus2"
MODES = ("i16", "f32")
CASES = {
    "HAR demo": ROOT / "examples" / "har" / "har.tflite",
    "MLPerf Tiny KWS": MODELS / "mlperf_kws_ref_model.tflite",
    "MLPerf Tiny AD": MODELS / "mlperf_ad01_int8.tflite",
}
MLP = "MLP 128-48-32-10"
RATIO_TARGET = {"i16": 2.6, "f32": 3.2}  # a training sample at batch 8 over the model's own inference
LEAN = {MLP: {"momentum": False}}  # as AIfES trains it: plain SGD, no buffer for momentum
TIMEOUT_S = 200
TOLERANCE = 0.02
OWN_BYTES = 64  # of SRAM that main.c takes, where a plan would use all


def build(program: lora_mcu.Program, folder: Path) -> Any:
    """Build the written project with the benchmark's main in place of the firmware's."""
    hook = b"#include <stdint.h>\nvoid lmcu_bench_step(uint32_t step);\n#define LMCU_STEP(step) lmcu_bench_step(step)\n"
    source = folder / "src" / "model.c"
    source.write_bytes(hook + source.read_bytes())
    (folder / "src" / "runtime" / "main.c").write_bytes((HERE / "main.c").read_bytes())
    return lora_mcu.build(folder)


def run(program: lora_mcu.Program, folder: Path, go: bytes = b"g") -> tuple[list[tuple[str, int, int]], float]:
    """The measurement's lines, and how many instructions a tick is."""
    bench = build(program, folder)
    emulator = create(boards.load(program.info.board), icount=True)
    try:
        return listen(emulator.start(bench.elf), go), emulator.instructions_per_tick or 1.0
    finally:
        emulator.stop()


def measure_kernel(kernel: cases.Kernel) -> dict[str, Any]:
    """Instructions of one operator, without an adapter."""
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        model = Path(temporary) / "kernel.tflite"
        model.write_bytes(kernel.make())
        program = lora_mcu.compile(model, board=BOARD, adapt="none", loss="mse")
        folder = Path(temporary) / "project"
        program.write(folder)
        rows, per_tick = run(program, folder)
    ticks = next(value for kind, index, value in rows if (kind, index) == ("step", 0))
    return {"name": kernel.name, "macs": kernel.macs, "instructions": round(ticks * per_tick)}


def listen(url: str, go: bytes = b"g") -> list[tuple[str, int, int]]:
    """Start the measurement (g: operators and steps, e: epochs over the store); its lines (name, index, value)."""
    rows: list[tuple[str, int, int]] = []
    deadline = time.monotonic() + TIMEOUT_S
    with serial.serial_for_url(url, timeout=1) as line:
        pending = b""
        while time.monotonic() < deadline:
            if not rows:
                line.write(go)  # again, until it answers: a byte that comes before the UART is up is lost
            pending += line.read(line.in_waiting or 1)
            *done, pending = pending.split(b"\n")
            for text in done:
                name, index, value = text.decode("ascii").split()
                if name == "end":
                    return rows
                rows.append((name, int(index), int(value)))
    raise SystemExit(f"the emulator did not finish within {TIMEOUT_S} s; it said {rows[-5:]}")


def measure(name: str, model: Path, numerics: str) -> dict[str, Any]:
    """One model: sizes of the real firmware, instructions per step of the plan and in total."""
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        folder = Path(temporary) / "project"
        options: dict[str, Any] = LEAN.get(name, {})
        program = lora_mcu.compile(model, board=BOARD, adapt="auto", rank=4, numerics=numerics, **options)
        program.write(folder)
        result = lora_mcu.build(folder)  # the real firmware, for its sizes
        rows, per_tick = run(program, folder)
        report = program.report()
    ticks = {(kind, index): value for kind, index, value in rows}  # of equal keys the last: B is not zero there
    statuses = [value for kind, _, value in rows if kind in ("boot", "status")]
    if any(statuses) or not ticks["train", 1] or not ticks["train", 8]:
        raise SystemExit(f"{name}: the device reported a failure: {rows}")
    steps: dict[int, int] = {}  # a step that runs row by row is printed once a row
    for kind, index, value in rows:
        if kind == "pass":  # the same steps again, and more
            steps.clear()
        if kind == "step":
            steps[index] = steps.get(index, 0) + round(value * per_tick)
    macs = {f"{x.index} {x.kind}": x.macs_forward for x in report.layers}
    return {
        "name": name,
        "numerics": numerics,
        "adapted_layers": len(program.adaptation.layers),
        "adaptable_layers": len(program.graph.adaptable()),
        "rank": program.adaptation.rank,
        "macs": sum(op.macs(program.graph) for op in program.graph.ops),
        "flash_bytes": result.flash_bytes,
        "code_bytes": result.flash_bytes - report.constant_bytes,
        "training_sram_bytes": report.training_sram_bytes,
        "inference_instructions": round(ticks["infer", 0] * per_tick),
        "step_instructions_batch1": round(ticks["train", 1] * per_tick),
        "step_instructions_per_sample_batch8": round(ticks["train", 8] * per_tick / 8),
        "stack_bytes_used": ticks["stack", 0],
        "per_layer": [
            {"step": report.steps[i], "instructions": steps[i], "macs": macs.get(report.steps[i], 0)}
            for i in sorted(steps)
        ],
    }


def show_kernels(kernels: list[dict[str, Any]], console: Console) -> None:
    """Ours beside CMSIS-NN's."""
    anchors = json.loads((HERE / "anchors.json").read_text())["inference_per_mac"]
    others = {a["kernel"]: a["instructions"] / a["macs"] for a in anchors}
    table = Table(title="Kernels, no adapter: instructions a multiply-accumulate")
    for column in ("kernel", "instructions", "per MAC", "CMSIS-NN, per MAC"):
        table.add_column(column, justify="left" if column == "kernel" else "right")
    for r in kernels:
        per_mac = f"{r['instructions'] / r['macs']:.2f}"
        table.add_row(r["name"], f"{r['instructions']:,}", per_mac, f"{others[r['name']]:.2f}")
    console.print(table)


def show(results: dict[str, Any], console: Console) -> None:
    if results["kernels"]:
        show_kernels(results["kernels"], console)
    clock = results["clock_hz"]
    table = Table(title=f"{BOARD}, executed instructions ({results['compiler']})")
    columns = ("model", "mode", "flash", "code", "training SRAM", "inference", "step, batch 1", "a sample at batch 8",
               "ratio", "target", "stack")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "mode") else "right")
    for r in results["models"]:
        step, infer = r["step_instructions_per_sample_batch8"], r["inference_instructions"]
        table.add_row(
            f"{r['name']} ({r['adapted_layers']} of {r['adaptable_layers']} layers)", r["numerics"],
            f"{r['flash_bytes']:,}", f"{r['code_bytes']:,}", f"{r['training_sram_bytes']:,}", f"{infer:,}",
            f"{r['step_instructions_batch1']:,}", f"{step:,}", f"{step / infer:.2f}x",
            "" if r["name"] == MLP else f"{RATIO_TARGET[r['numerics']]}x", f"{r['stack_bytes_used']:,}",
        )  # fmt: skip
    console.print(table)
    for r in results["models"]:
        infer, step = r["inference_instructions"] / clock, r["step_instructions_per_sample_batch8"] / clock
        console.print(f"{r['name']}, {r['numerics']}: at least {infer:.4f} s an inference, {step:.4f} s a training "
                      f"sample at {clock // 1_000_000} MHz (lower bound: one instruction a cycle)")  # fmt: skip
        layers = Table(title=f"{r['name']}, {r['numerics']}, per step")
        for column in ("step", "instructions", "MACs with adapter", "per MAC"):
            layers.add_column(column, justify="left" if column == "step" else "right")
        for x in r["per_layer"]:
            per = f"{x['instructions'] / x['macs']:.2f}" if x["macs"] else ""
            layers.add_row(x["step"], f"{x['instructions']:,}", f"{x['macs']:,}" if x["macs"] else "", per)
        console.print(layers)
    anchors = json.loads((HERE / "anchors.json").read_text())
    table = Table(title="Others' training, to be read beside ours")
    for column in ("what", "instructions", "ratio", "source"):
        table.add_column(column)
    for a in anchors["training"]:
        step = f"{a['step_instructions']:,}" if "step_instructions" in a else ""
        table.add_row(a["what"], step, f"{a['ratio']}x an inference", a["source"])
    console.print(table)


def check(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Figures of ``new`` that differ from the committed ones by more than the tolerance."""
    known = {(r["name"], r.get("numerics")): r for r in old["models"] + old["kernels"]}
    wrong = []
    for r in new["models"] + new["kernels"]:
        for key, value in r.items():
            before = known.get((r["name"], r.get("numerics")), {}).get(key)
            if isinstance(value, int) and isinstance(before, int) and abs(value - before) > TOLERANCE * max(before, 1):
                wrong.append(f"{r['name']}: {key} is {value:,}, results.json says {before:,}")
    return wrong


def slower(kernels: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[str]:
    """Kernels that take more instructions than the committed figures allow, or that have none."""
    committed = {r["name"]: r["instructions"] for r in known}
    return [
        f"{r['name']}: {r['instructions']:,} instructions, results.json says {committed.get(r['name'])}"
        for r in kernels
        if r["instructions"] > (1 + TOLERANCE) * committed.get(r["name"], 0)
    ]


def compiler() -> str:
    """Name and version, as results.json states them."""
    command = ["arm-none-eabi-gcc", "-dumpfullversion"]
    return f"arm-none-eabi-gcc {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with results.json instead of writing it")
    parser.add_argument("--only", help="measure one of: " + ", ".join([*CASES, MLP, *(k.name for k in cases.KERNELS)]))
    arguments = parser.parse_args()
    results: dict[str, Any] = {"board": BOARD, "clock_hz": boards.load(BOARD).clock_hz,
                               "compiler": compiler(), "models": []}  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 140)
    results["kernels"] = [measure_kernel(k) for k in cases.KERNELS if arguments.only in (None, k.name)]
    for name, model in CASES.items():
        if arguments.only not in (None, name):
            continue
        if model.is_file():
            results["models"] += [measure(name, model, numerics) for numerics in MODES]
        else:
            console.print(f"not measured: {name} (no {model.name} under LORA_MCU_MODELS)")
    if arguments.only in (None, MLP):
        with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
            model = Path(temporary) / "mlp.tflite"
            model.write_bytes(cases.dense_model(cases.MLP))
            results["models"] += [measure(MLP, model, numerics) for numerics in MODES]
    show(results, console)
    if arguments.check:
        wrong = check(results, json.loads(RESULTS.read_text()))
        console.print("\n".join(wrong) or "all figures agree with results.json")
        return 1 if wrong else 0
    if arguments.only is None and len(results["models"]) == len(MODES) * (len(CASES) + 1):
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

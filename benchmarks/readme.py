# SPDX-License-Identifier: Apache-2.0
"""The README's commands with the output shown below them, its table of figures, and the tables in docs/performance.md:
read, run, brought up to date.

    python benchmarks/readme.py     # runs the commands, writes what they print now and the figures of the .json files

tests/unit/test_readme.py fails when one of them is not up to date.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
REACH = {
    "dense 640 -> 128": 1.5, "dense 64 -> 12": 2.0, "conv 3x3, 32x32x16 -> 16": 1.6, "conv 3x3, 32x32x3 -> 16": 2.8,
    "conv 3x3, 8x8x64 -> 64": 1.4, "conv 1x1, 25x5x64 -> 64": 1.5, "depthwise 3x3, 25x5x64": 4.5,
}  # fmt: skip
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.M | re.S)
_ROW = re.compile(r"^\| .* layers\) \|.*\n", re.M)
_TABLES = {"kernels": 5, "training": 7, "cycles": 9}  # of docs/performance.md, by their columns


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(command, lines shown below it; a line `...` stands for any number of lines) of all console blocks."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(_CONSOLE.findall(text)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def prepare(folder: Path) -> None:
    """Put the files that the README names into the folder."""
    script = ROOT / "examples" / "har" / "one_person.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)


def run(command: str, folder: Path) -> str:
    """What a command prints, run in the folder with this Python's programs first on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "80"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    if done.returncode != 0:
        raise RuntimeError(f"$ {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def shown_in(output: str, lines: list[str]) -> bool:
    """Whether the output is these lines."""
    parts = [r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in lines]
    return re.fullmatch("".join(parts), output) is not None


def table(results: dict[str, Any]) -> str:
    """The README's rows of figures from results.json."""
    return "".join(
        f"| {r['name']} ({r['adapted_layers']} of {r['adaptable_layers']} layers) | {r['flash_bytes']:,} | "
        f"{r['training_sram_bytes']:,} | {r['step_instructions_batch1']:,} |\n"
        for r in results["models"]
        if r["numerics"] == "i16"
    )


def rows(text: str) -> str:
    """The rows of figures as they stand in the README."""
    return "".join(_ROW.findall(text))


def training_table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md on training from results.json."""
    return "".join(
        f"| {r['name']} ({r['adapted_layers']} of {r['adaptable_layers']} layers) | {r['numerics']} | "
        f"{r['inference_instructions']:,} | "
        f"{r['step_instructions_per_sample_batch8']:,} | "
        f"{r['step_instructions_per_sample_batch8'] / r['inference_instructions']:.2f} | "
        f"{r['step_instructions_batch1']:,} | {r['training_sram_bytes']:,} |\n"
        for r in results["models"]
    )


def kernel_table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md on kernels from results.json and anchors.json."""
    anchors = json.loads((ROOT / "benchmarks" / "anchors.json").read_text())["inference_per_mac"]
    others = {a["kernel"]: a for a in anchors}
    rows = []
    for r in results["kernels"]:
        other, mine = others[r["name"]], r["instructions"] / r["macs"]
        theirs = other["instructions"] / other["macs"]
        rows.append(f"| {r['name']} | {r['instructions']:,} | {mine:.2f} | {theirs:.2f} | {REACH[r['name']]} |\n")
    return "".join(rows)


def cycle_table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md on adapters and cycles from cycles.json."""
    rows = []
    for r in results["models"]:
        base, with_adapter, step = (r[work]["instructions"] for work in ("base", "inference", "batch"))
        cycles = " | ".join(f"{r[work]['cycles']:,}" for work in ("base", "inference", "batch"))
        rows.append(
            f"| {r['name']} | {r['numerics']} | {base:,} | {with_adapter:,} | {with_adapter / base:.2f} | "
            f"{step:,} | {cycles} |\n"
        )
    return "".join(rows)


def tables(text: str) -> dict[str, str]:
    """The rows of each table as they stand in docs/performance.md."""
    found = {}
    for name, columns in _TABLES.items():
        head = r"(?<=^\|" + r"---\|" * columns + r"\n)"
        found[name] = re.findall(head + r"(?:\| .*\n)+", text, re.M)[0]
    return found


def measured() -> dict[str, str]:
    """The rows as the measured figures make them."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    cycles = json.loads((ROOT / "benchmarks" / "cycles.json").read_text())
    return {"kernels": kernel_table(results), "training": training_table(results), "cycles": cycle_table(cycles)}


def update(text: str, results: dict[str, Any], folder: Path) -> str:
    """The README with each shown line replaced by the line of the new output that is most like it."""
    text = text.replace(rows(text), table(results))
    for command, lines in commands(text):
        output = run(command, folder).splitlines()
        for line in lines:
            if line != "..." and line not in output:
                (now,) = difflib.get_close_matches(line, output, n=1, cutoff=0.4)
                text = text.replace(f"\n{line}\n", f"\n{now}\n", 1)
    return text


def main() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    with tempfile.TemporaryDirectory(prefix="lora_mcu-readme-") as temporary:
        prepare(Path(temporary))
        README.write_text(update(README.read_text(encoding="utf-8"), results, Path(temporary)), encoding="utf-8")
    text = PERFORMANCE.read_text(encoding="utf-8")
    now = measured()
    for name, rows in tables(text).items():
        text = text.replace(rows, now[name])
    PERFORMANCE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Compiles, builds and where possible runs two models on every board, and writes docs/boards.md from what happened.

    python benchmarks/boards.py            # all boards; a failure ends it and the document stays as it was
    python benchmarks/boards.py mps2_an500 # these boards only: their rows are replaced

KWS is looked for under LORA_MCU_MODELS (default: ../shared/models beside the checkout).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lora_mcu
from lora_mcu import boards
from lora_mcu.errors import ToolError
from lora_mcu.session.learner import Learner

sys.path.insert(0, str(Path(__file__).resolve().parent))

import run as bench

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "boards.md"
HAR, KWS = bench.CASES["HAR demo"], bench.CASES["MLPerf Tiny KWS"]
NAMES = {"qemu": "QEMU", "unicorn": "Unicorn", "renode": "Renode", "native": "a process here"}
LIBRARY_COMPILER = "xtensa-lx106-elf-gcc"  # the ESP8266's: a near relative that Debian has
HEAD = """# Boards

Made by `python benchmarks/boards.py`. For each board it compiles the demo model (HAR) and MLPerf Tiny's keyword
spotting (KWS), each with the layers and rank that `--adapt auto` chooses, builds them with `pio run`, and holds the
memory report to the image byte for byte. In each emulator that is there and can run the board it boots them, trains
(HAR 3 steps, KWS one) and compares the adapter with the twin's, byte for byte; the eight digits are the CRC-32 of
HAR's adapter. Whatever is not as the table says ends the command. SRAM includes the sample store, which takes what
the model leaves.

No board here has run on silicon: that is not run for any of them.

| board | what it is | built, report equals image: flash + SRAM | ran, adapter equals the twin's | not run |
|---|---|---|---|---|
"""
LIBRARY_FLAGS = ("-std=gnu17", "-Os", "-mlongcalls", "-ffreestanding", "-DLMCU_FREESTANDING",
                 "-Wall", "-Wextra", "-Werror")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What happened with one board."""

    board: boards.Board
    built: list[str]
    ran: list[str]
    not_run: list[str]

    def __str__(self) -> str:
        lists = map("; ".join, (self.built, self.ran, self.not_run))
        cells = (f"`{self.board.identity}`", self.board.description, *lists)
        return "| " + " | ".join(cell or "-" for cell in cells) + " |"


def samples(program: lora_mcu.Program) -> tuple[Any, Any]:
    """Twelve windows of the demo's data; noise for another model."""
    if program.graph.name == HAR.stem:
        data = np.load(HAR.with_suffix(".npz"), allow_pickle=False)
        chosen = np.concatenate([np.flatnonzero(data["y"] == label)[:2] for label in range(6)])
        return data["x"][chosen], data["y"][chosen]
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (4, *program.info.input.shape), np.int8)
    return x, rng.integers(0, program.info.logit_count, 4)


def train(learner: Learner, data: tuple[Any, Any]) -> bytes:
    """Factors after one pass in batches of 4."""
    learner.configure(lr=0.01, batch_size=4, seed=7)
    stats = learner.train(*data)
    if stats.skipped or not stats.steps:
        raise SystemExit(f"{learner.info.board}: {stats}")
    return learner.adapter().to_factors(learner.info)


def differences(program: lora_mcu.Program, sizes: dict[str, int], ram_bytes: int) -> list[str]:
    """Symbols whose size is not the report's."""
    report = program.report().to_dict()
    wrong = [name for name, size in {**report["sram"], **report["constants"]}.items() if sizes.get(name) != size]
    return wrong + ([f"SRAM {ram_bytes}"] if ram_bytes != report["sram_bytes"] else [])


def project(name: str, models: list[Path], folder: Path) -> Row:
    """The row of a board that firmware is built for. Ends the program when anything is not as the row would say."""
    board = boards.load(name)
    row = Row(board, [], [], [])
    emulators: dict[str, list[str]] = {emulator: [] for emulator in board.emulators}
    for model in models:
        program = lora_mcu.compile(model, board=name)
        program.write(folder / model.stem)
        result = lora_mcu.build(folder / model.stem)
        if wrong := differences(program, {k: s.size for k, s in result.symbols.items()}, result.ram_bytes):
            raise SystemExit(f"{name}: the image of {model.stem} differs from the report: {wrong}")
        label, layers = _label(program)
        row.built.append(f"{label} ({layers}) {result.flash_bytes:,} + {result.ram_bytes:,}")
        expected = train(program.twin(), samples(program))
        for emulator, ran in emulators.items():
            try:
                with lora_mcu.emulate(folder / model.stem, emulator) as url, lora_mcu.Device(url) as device:
                    if train(device, samples(program)) != expected:
                        raise SystemExit(f"{name}: the adapter of {model.stem} differs from the twin's in {emulator}")
            except ToolError as error:
                if not re.search("not on PATH|not installed", str(error)):
                    raise
                continue
            ran.append(f"{label} {zlib.crc32(expected):08x}" if model == HAR else label)
    for emulator, ran in emulators.items():
        if ran:
            row.ran.append(f"{NAMES[emulator]}: {', '.join(ran)}")
        else:
            row.not_run.append(f"{NAMES[emulator]}: not on this computer")
    if not board.emulators:
        row.not_run.append("no emulator has this part")
    return row


def _label(program: lora_mcu.Program) -> tuple[str, str]:
    name = "HAR" if program.graph.name == HAR.stem else "KWS"
    return name, f"{len(program.adaptation.layers)} of {len(program.graph.adaptable())}"


def library(name: str, models: list[Path], folder: Path) -> Row:
    """The row of a board that a library is made for: compiled, its SRAM held to the report; a program runs it."""
    row = Row(boards.load(name), [], [], ["the framework's own compiler is not on this computer"])
    row.not_run.append("no emulator has this part; `tests/firmware/test_library.py` runs the library on the computer")
    if shutil.which(LIBRARY_COMPILER) is None:
        row.not_run.append(f"not compiled: no {LIBRARY_COMPILER}")
        return row
    for model in models:
        program = lora_mcu.compile(model, board=name, form="library")
        source = program.write(folder / model.stem) / "src"
        (folder / f"{model.stem}_objects").mkdir()
        where = {"cwd": folder / f"{model.stem}_objects", "check": True}
        subprocess.run([LIBRARY_COMPILER, *LIBRARY_FLAGS, f"-I{source}", "-c", *sorted(source.rglob("*.c"))], **where)
        nm = [LIBRARY_COMPILER.replace("gcc", "nm"), "-S", *sorted(where["cwd"].glob("*.o"))]
        lines = subprocess.run(nm, capture_output=True, text=True, **where).stdout.splitlines()
        rows = [line.split() for line in lines if len(line.split()) == 4]
        ram = {symbol: int(size, 16) for _, size, kind, symbol in rows if kind in "bBdDC"}
        constants = {symbol: int(size, 16) for _, size, kind, symbol in rows if kind in "rR"}
        if wrong := differences(program, {**constants, **ram}, sum(ram.values())):
            raise SystemExit(f"{name}: the objects of {model.stem} differ from the report: {wrong}")
        label, layers = _label(program)
        row.built.append(f"library {label} ({layers}), {sum(ram.values()):,} of SRAM, by {LIBRARY_COMPILER}")
    return row


def known_rows() -> dict[str, str]:
    """The document's rows by board."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines() if DOCUMENT.exists() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def main() -> int:
    models = [model for model in (HAR, KWS) if model.is_file()]
    rows = {}
    for name in sys.argv[1:] or boards.names():
        make = library if boards.load(name).is_library else project
        with tempfile.TemporaryDirectory(prefix="lora_mcu-boards-") as temporary:
            rows[name] = str(make(name, models, Path(temporary)))
        print(rows[name], flush=True)
    if KWS not in models:
        print(f"not run: {KWS.name} is not under LORA_MCU_MODELS; nothing is written", file=sys.stderr)
        return 0
    all_rows = {**known_rows(), **rows}
    text = HEAD + "".join(f"{all_rows[name]}\n" for name in boards.names() if name in all_rows)
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

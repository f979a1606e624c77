# SPDX-License-Identifier: Apache-2.0
"""Estimated cycles beside executed instructions: of an inference without and with an adapter, of a training step.

    python benchmarks/cycles.py                     # every case; writes benchmarks/cycles.json
    python benchmarks/cycles.py --only "HAR demo" --top 12      # and the functions that take most

The benchmark's image runs in Unicorn's Cortex-M4; each instruction that it executes costs what the Cortex-M4 technical
reference manual says (Arm DDI 0439, tables 3-1 and 7-1), with memory that never waits and a pipeline that refills in
``REFILL`` cycles. That is a model, not a measurement: it says whether a change that saves instructions saves time.
Every dense and convolution layer has an adapter of rank 4, on boards that hold them all.
"""

from __future__ import annotations

import argparse
import bisect
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import lora_mcu
from lora_mcu import boards
from lora_mcu.emulators.stm32.core import arm, unicorn
from lora_mcu.emulators.stm32.part import Machine

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cases
import run as bench

REFILL = 2  # P of the manual: 1 to 3, by alignment and width of the target
RESULTS = bench.HERE / "cycles.json"
TRAIN, INFER = "lmcu_train_sample", "lmcu_infer"
BOARDS = {"MLPerf Tiny KWS": "feather_stm32f405", "MLPerf Tiny AD": "feather_stm32f405"}  # the others': bench.BOARD
BATCH = 8
_BRANCHES = re.compile(r"(b|bl|bx|blx|cbn?z|b(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|hs|lo))$")
_SLOW = {
    "vdiv": 14,
    "vsqrt": 14,
    "vmla": 3,
    "vmls": 3,
    "vnmla": 3,
    "vnmls": 3,
    "sdiv": 12,
    "udiv": 12,
    "mla": 2,
    "mls": 2,
}
_LOADS, _STORES = ("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh"), ("str", "strb", "strh")


@dataclass(frozen=True)
class Instruction:
    """``size`` in bytes; cycles when execution goes on behind it, and when it goes elsewhere."""

    size: int
    cycles: int
    taken: int
    pipelined: bool  # a single load or store, which the next one overlaps


@dataclass
class Spent:
    """What one kind of work executes, by function."""

    instructions: Counter[str] = field(default_factory=Counter)
    cycles: Counter[str] = field(default_factory=Counter)

    def to_dict(self, share: int) -> dict[str, int]:
        """Totals, of one of ``share`` runs."""
        totals = (self.instructions.total(), self.cycles.total())
        return {"instructions": round(totals[0] / share), "cycles": round(totals[1] / share)}


def registers(operands: str) -> int:
    """How many a list like {r4, r6-r8, s0-s15} names."""
    listed = re.search(r"\{(.*?)\}", operands)
    count = 0
    for part in listed[1].split(",") if listed else []:
        ends = re.findall(r"\d+", part)
        count += int(ends[1]) - int(ends[0]) + 1 if "-" in part and len(ends) == 2 else 1
    return count


def cost(mnemonic: str, operands: str) -> tuple[int, int, bool]:
    """Cycles when it falls through, cycles when it branches, and whether it is a single load or store."""
    name, _, kind = mnemonic.removesuffix(".w").removesuffix(".n").partition(".")
    wide = 2 if kind == "64" or re.match(r"d\d", operands) else 1
    if name in ("push", "pop", "ldmia", "ldmdb", "ldm", "stmia", "stmdb", "stm", "vpush", "vpop", "vldmia", "vstmia"):
        cycles = 1 + registers(operands) * (2 if "{d" in operands else 1)
        return cycles, cycles + REFILL, False
    if name in ("ldrd", "strd"):
        return 3, 3, False
    if name in ("vldr", "vstr"):
        return 1 + wide, 1 + wide, False
    if name in _LOADS:
        return 2, 2 + REFILL, True
    if name in _STORES:
        return 1, 1, True
    if name in ("tbb", "tbh"):
        return 2, 2 + REFILL, False
    if name == "vmov" and re.match(r"(s\d+, s\d+, r|r\d+, r\d+, |d\d+, r)", operands):
        return 2, 2, False
    if _BRANCHES.match(name):
        return 1, 1 + REFILL, False
    base = re.sub(r"(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)$", "", name) if name not in _SLOW else name
    cycles = _SLOW.get(base, 1)
    return cycles, cycles + REFILL, False


def disassemble(elf: Path, tool: str = "arm-none-eabi-objdump") -> dict[int, Instruction]:
    text = subprocess.check_output([tool, "-d", elf], text=True)
    listing = {}
    for at, raw, mnemonic, operands in re.findall(r"^ *(\w+):\t([0-9a-f ]+?) *\t(\S+)(?:\t([^\n;@<]*))?", text, re.M):
        cycles, taken, pipelined = cost(mnemonic, operands)
        listing[int(at, 16)] = Instruction(len(raw.replace(" ", "")) // 2, cycles, taken, pipelined)
    return listing


Blocks = Counter[tuple[int, int, bool]]  # address, bytes, whether it ends with a jump


class Profiler:
    """Counts the blocks that a machine executes between entry and return of TRAIN and INFER, a counter a call."""

    def __init__(self, machine: Machine, elf: Path) -> None:
        self.uc = machine.core.uc
        self._listing = disassemble(elf)
        functions = sorted((s.address & ~1, name) for name, s in lora_mcu.building.read_symbols(elf).items()
                           if s.size and not s.writable)  # fmt: skip
        self._starts, self._names = [at for at, _ in functions], [name for _, name in functions]
        self._entries = {at: name for at, name in functions if name in (TRAIN, INFER)}
        self.calls: dict[str, list[Blocks]] = {TRAIN: [], INFER: []}
        self._blocks: Blocks | None = None
        self._return = 0
        self._last: tuple[int, int] | None = None
        self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _block(self, uc: Any, address: int, size: int, _: Any) -> None:
        if self._last is not None and self._blocks is not None:
            at, length = self._last
            self._blocks[at, length, address != at + length] += 1
        self._last = None
        if self._blocks is None and address in self._entries:
            self._blocks, self._return = Counter(), uc.reg_read(arm.UC_ARM_REG_LR) & ~1
            self.calls[self._entries[address]].append(self._blocks)
        elif address == self._return:
            self._blocks = None
        if self._blocks is not None:
            self._last = address, size

    def spent(self, calls: list[Blocks]) -> Spent:
        """Instructions and cycles of these calls together."""
        found = Spent()
        for blocks in calls:
            for (at, length, taken), times in blocks.items():
                function = self._names[bisect.bisect_right(self._starts, at) - 1]
                path, place = [], at
                while place < at + length:
                    path.append(self._listing[place])
                    place += path[-1].size
                cycles = sum(x.cycles for x in path[:-1]) + (path[-1].taken if taken else path[-1].cycles)
                cycles -= sum(1 for x, y in zip(path, path[1:], strict=False)
                              if x.pipelined and y.pipelined and x.cycles == 2)  # fmt: skip
                found.instructions[function] += times * len(path)
                found.cycles[function] += times * cycles
        return found


def profile(model: Path, board: str, **arguments: Any) -> dict[str, Spent]:
    """Of an inference and of steps at batch 1 and BATCH that benchmarks/main.c runs, B not zero."""
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        sram = boards.load(board).sram_bytes - bench.OWN_BYTES
        program = lora_mcu.compile(model, board=board, rank=4, sram=sram, **arguments)
        program.write(Path(temporary) / "project")
        elf = bench.build(program, Path(temporary) / "project").elf
        region = program.board.adapter_region
        assert region is not None
        with socket.create_server(("127.0.0.1", 0)) as server:
            machine = Machine(program.board, elf, server, bytearray(b"\xff" * region.size))
            profiler = Profiler(machine, elf)
            thread = threading.Thread(target=machine.run, daemon=True)
            thread.start()
            try:
                bench.listen(f"socket://127.0.0.1:{server.getsockname()[1]}", b"c")
            finally:
                machine.stop()
                thread.join(10)
        trained, inferred = profiler.calls[TRAIN], profiler.calls[INFER]
        found = {"inference": profiler.spent(inferred[-1:])}
        if program.adaptation.layers:
            found |= {"step": profiler.spent(trained[1:2]), "batch": profiler.spent(trained[2 : 2 + BATCH])}
        return found


def measure(name: str, model: Path, numerics: str, top: int, console: Console) -> dict[str, Any]:
    board = BOARDS.get(name, bench.BOARD)
    base = profile(model, board, adapt="none")["inference"]
    found = {"base": base, **profile(model, board, adapt="all", numerics=numerics)}
    figures = {work: spent.to_dict(BATCH if work == "batch" else 1) for work, spent in found.items()}
    title = f"{name}, {numerics}, on {board}, all layers adapted: executed instructions and estimated cycles"
    table = Table(title=title)
    for column in ("work", "function", "instructions", "cycles", "over base"):
        table.add_column(column, justify="left" if column in ("work", "function") else "right")
    for work, spent in found.items():
        total, share = figures[work], BATCH if work == "batch" else 1
        table.add_row(work, "", f"{total['instructions']:,}", f"{total['cycles']:,}",
                      f"{total['instructions'] / figures['base']['instructions']:.2f}")  # fmt: skip
        for function, cycles in spent.cycles.most_common(top):
            table.add_row("", function, f"{spent.instructions[function] // share:,}", f"{cycles // share:,}", "")
    console.print(table)
    return {"name": name, "numerics": numerics, "board": board, **figures}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="one of: " + ", ".join([*bench.CASES, bench.MLP]))
    parser.add_argument("--top", type=int, default=0, help="functions to name")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = []
    with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
        mlp = Path(temporary) / "mlp.tflite"
        mlp.write_bytes(cases.dense_model(cases.MLP))
        for name, model in {**bench.CASES, bench.MLP: mlp}.items():
            if options.only not in (None, name):
                continue
            if model.is_file():
                results += [measure(name, model, numerics, options.top, console) for numerics in bench.MODES]
            else:
                console.print(f"not measured: {name} (no {model.name} under LORA_MCU_MODELS)")
    if len(results) == len(bench.MODES) * (len(bench.CASES) + 1):
        RESULTS.write_text(json.dumps({"compiler": bench.compiler(), "models": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

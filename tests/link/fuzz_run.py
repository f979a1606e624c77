# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of the firmware's frame parser and command handler, built for this computer under ASan and UBSan.

    python tests/link/fuzz_run.py --frames 10000000 --seconds 120      # what `make fuzz-link` runs

Mutated frames against four builds (one asks for a key), then libFuzzer (clang) against the same, where clang is there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from link.fake_device import HERE, SMALL, Model, prepare

MODELS = {
    "classes": SMALL,
    "classes, window 8": Model(window=8),
    "classes, with a key": Model(window=8, key=bytes(range(32))),
    "targets, window 4": Model(inputs=9, outputs=5, loss="mse", capacity=6, window=4),
}
_SANITIZE = ("-g", "-O1", "-fno-sanitize-recover=all")


def build_mutating(model: Model, folder: Path) -> Path:
    """fuzz.c: random frames, a third of them damaged."""
    program = folder / "fuzz"
    command = ["gcc", *_SANITIZE, "-fsanitize=address,undefined", *prepare(model, folder), str(HERE / "fuzz.c")]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def build_sweep(model: Model, folder: Path) -> Path:
    """sweep.c: every message with every short length and extreme fields."""
    program = folder / "sweep"
    command = ["gcc", *_SANITIZE, "-fsanitize=address,undefined", *prepare(model, folder), str(HERE / "sweep.c")]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def build_hostile_flash(model: Model, folder: Path) -> Path:
    """hostile_flash.c: slots that somebody else has written."""
    program = folder / "hostile_flash"
    command = ["gcc", *_SANITIZE, "-fsanitize=address,undefined", *prepare(model, folder)]
    subprocess.run([*command, str(HERE / "hostile_flash.c"), "-o", str(program)], check=True)
    return program


def build_guided(model: Model, folder: Path) -> Path | None:
    """fuzz_coverage.c for libFuzzer; None where clang or its runtime is missing (clang, libclang-rt-14-dev)."""
    if shutil.which("clang") is None:
        return None
    program = folder / "guided"
    command = ["clang", *_SANITIZE, "-fsanitize=fuzzer,address,undefined", *prepare(model, folder)]
    done = subprocess.run([*command, str(HERE / "fuzz_coverage.c"), "-o", str(program)], capture_output=True, text=True)
    return program if done.returncode == 0 else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000_000, help="mutated frames against each build")
    parser.add_argument("--seconds", type=int, default=120, help="of libFuzzer against each build")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    failed = False
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="lora_mcu-fuzz-") as temporary:
            mutating, guided = Path(temporary) / "mutating", Path(temporary) / "guided"
            mutating.mkdir()
            guided.mkdir()
            start = time.monotonic()
            command = [str(build_mutating(model, mutating)), str(arguments.seed), str(arguments.frames)]
            run = subprocess.run(command, capture_output=True, text=True)
            failed |= run.returncode != 0
            said = run.stdout.splitlines()[0] if run.returncode == 0 else run.stdout + run.stderr
            print(f"{name}: {said} in {time.monotonic() - start:.0f} s", flush=True)
            program = build_guided(model, guided)
            if program is None:
                print(f"{name}: libFuzzer not run (apt install clang libclang-rt-14-dev)", flush=True)
                continue
            (guided / "corpus").mkdir()
            command = [str(program), f"-max_total_time={arguments.seconds}", "-max_len=4096", "corpus"]
            run = subprocess.run(command, cwd=guided, capture_output=True, text=True)
            failed |= run.returncode != 0
            said = run.stderr.splitlines()[-1] if run.returncode == 0 else run.stdout + run.stderr
            print(f"{name}: libFuzzer {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Streams samples to an emulated board over a line on which 1 % of all frames are spoiled: none lost, none doubled.

    python tests/link/soak.py                       # what `make soak` runs: 100,000 samples, STM32F405 in QEMU
    python tests/link/soak.py --board native        # the firmware as a process of this computer

Each of four faults happens to 1 % of the frames: a flipped bit, a drop, a duplicate, a delay. Afterwards the device's
counts and its adapter must be those of the twin, which saw every sample once and in order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import lora_mcu
from benchmarks import cases
from link.fake_device import Faults, FaultyLine
from lora_mcu.link.transport import SerialTransport, Transport

SIZES = (12, 8, 4)
RATE = 0.01


def faulty(line: Transport, seed: int, stall: float = RATE) -> FaultyLine:
    """``line`` with the four faults; delays are drawn once a read, which hands on several frames on a busy computer."""
    faults = Faults(drop=RATE, flip=RATE, duplicate=RATE, lose_byte=0, noise=0, stall=stall)
    return FaultyLine(line, seed, faults, longest_stall=3)


def data(samples: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.integers(-128, 128, (samples, SIZES[0])).astype(np.int8), rng.integers(0, SIZES[-1], samples)


def soak(
    board: str, samples: int, seed: int, progress: Callable[[int], None] | None = None, stall: float = RATE
) -> str:
    """Return what happened, in one line. Raises AssertionError where a sample was lost or doubled."""
    x, y = data(samples)
    with tempfile.TemporaryDirectory(prefix="lora_mcu-soak-") as temporary:
        model = Path(temporary) / "model.tflite"
        model.write_bytes(cases.dense_model(SIZES))
        program = lora_mcu.compile(model, board=board, adapt="all", rank=2, loss="cross_entropy")
        project = program.write(Path(temporary) / "project")
        lora_mcu.build(project)
        twin = program.twin()
        with lora_mcu.emulate(project) as url:
            line = faulty(SerialTransport(url), seed, stall)
            start = time.monotonic()
            with lora_mcu.Device(line, timeout=0.25, retries=30) as device:
                for learner in (device, twin):
                    learner.configure(lr=0.001, batch_size=1, seed=3)
                    stats = learner.train(x, y, progress=progress if learner is device else None)
                    assert stats.steps + stats.skipped == samples, f"{stats.steps} steps of {samples}"
                seen = device.statistics()
                assert seen.last_pass.samples == samples, f"{seen.last_pass.samples} samples of {samples}"
                assert device.adapter() == twin.adapter(), "the adapter is not the twin's: a sample twice or not at all"
                resent = device.resent
    spoiled = ", ".join(f"{count:,} {name}" for name, count in sorted(line.faults.seen.items()))
    return (
        f"{board}: {samples:,} samples in {time.monotonic() - start:.0f} s, 0 lost, 0 doubled; faults: {spoiled}; "
        f"{resent:,} frames sent again, {seen.repeats:,} answers repeated, {seen.naks:,} NAKs, "
        f"{seen.bad_frames:,} bad frames dropped by the device"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--board", default="netduinoplus2")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    def report(done: int) -> None:
        if done % 5000 == 0:
            print(f"{done:,} sent", file=sys.stderr, flush=True)

    print(soak(arguments.board, arguments.samples, arguments.seed, report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

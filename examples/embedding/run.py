# SPDX-License-Identifier: Apache-2.0
"""Builds main.c into the demo model's firmware and runs it in the emulated STM32F405, with no host on its line.

    python examples/embedding/run.py [FOLDER]     # the project stays in FOLDER (default: build/embedding)

The sensor is windows of one person who wears the device at another angle (examples/har), as constants in flash.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import lora_mcu
from lora_mcu.emulators.base import find_program

HERE = Path(__file__).resolve().parent
HAR = HERE.parent / "har"
PERSON, SEED = 5, 0
SECONDS = 120


def sensor() -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """60 windows of the adaptation part, ten of each activity, then the test part; each part in random order."""
    sys.path.insert(0, str(HAR))
    import windows

    har = windows.load()
    split = windows.split_person(har, PERSON, SEED)
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(split.train), rng.permutation(split.test)])
    return har.x[order], har.y[order]


def header(x: npt.NDArray[np.int8], y: npt.NDArray[np.int64], parameters: int) -> str:
    """windows.h"""
    rows = ",\n".join("{" + ",".join(map(str, row)) + "}" for row in x.reshape(len(x), -1).tolist())
    return (
        "/* Made by run.py. */\n#include <stdint.h>\n"
        f"enum {{ WINDOWS_COUNT = {len(x)}, WINDOWS_PARAMETERS = {parameters} }};\n"
        f"static const int8_t windows_x[{len(x)}][{x[0].size}] = {{\n{rows}}};\n"
        f"static const uint8_t windows_y[{len(y)}] = {{{','.join(map(str, y.tolist()))}}};\n"
    )


def build(folder: Path) -> Path:
    """Compile the model, put main.c and windows.h into the project, build it; the image."""
    program = lora_mcu.compile(HAR / "har.tflite", board="netduinoplus2", adapt="all", sram=120_000)
    program.write(folder, force=True)
    (folder / "src" / "runtime" / "main.c").write_bytes((HERE / "main.c").read_bytes())
    (folder / "include" / "windows.h").write_text(header(*sensor(), program.info.parameters), encoding="ascii")
    return lora_mcu.build(folder).elf


def run(image: Path) -> list[str]:
    """The lines that the product prints, up to `end`."""
    qemu = find_program("qemu-system-arm", "qemu-system-arm")
    command = [qemu, "-M", "netduinoplus2", "-kernel", str(image), "-display", "none", "-monitor", "none",
               "-serial", "stdio"]  # fmt: skip
    lines: list[str] = []
    with subprocess.Popen(["timeout", str(SECONDS), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as machine:  # fmt: skip
        assert machine.stdout is not None
        for line in machine.stdout:
            if line == "end\n":
                machine.terminate()
                return lines
            lines.append(line.rstrip("\n"))
    raise SystemExit(f"the product did not finish within {SECONDS} s; it said {lines}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parents[1] / "build" / "embedding")
    print("\n".join(run(build(parser.parse_args().folder))))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Personalize the digits' transformer to inverted digits: on the twin and, with --device, on an emulated STM32F405.

python examples/transformer/personalize.py [--adapt q,v] [--epochs N] [--device] [--model FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import digits

import lora_mcu

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent.parent / "build" / "transformer"
BOARD, RANK = "netduinoplus2", 4
SETTINGS = {"lr": 0.02, "momentum": 0.9, "batch_size": 10, "clip_norm": 1.0}
EPOCHS, DEVICE_EPOCHS = 30, 2


def personalize(learner: lora_mcu.Twin | lora_mcu.Device, samples: digits.Digits, epochs: int) -> lora_mcu.TrainStats:
    """Store the samples once and train on them; the same calls for a device and for its twin."""
    learner.reset()
    learner.clear_store()
    learner.configure(**SETTINGS)
    learner.store(samples.x, samples.y)
    return learner.run_epochs(epochs)


def on_twin(program: lora_mcu.Program, epochs: int) -> lora_mcu.Twin:
    """Train on the twin; prints accuracies on digits that neither the base nor the adapter has seen."""
    _, adapt, test = digits.load()
    changed = digits.inverted(test)
    twin = program.twin()
    usual, before = twin.evaluate(test.x, test.y).accuracy, twin.evaluate(changed.x, changed.y).accuracy
    stats = personalize(twin, digits.inverted(adapt), epochs)
    after = twin.evaluate(changed.x, changed.y).accuracy
    print(f"usual digits {usual:.1%}; inverted digits {before:.1%} -> {after:.1%} after {stats.steps} steps on "
          f"{len(adapt.y)} samples ({len(test.y)} to test on)")  # fmt: skip
    return twin


def on_device(program: lora_mcu.Program, twin: lora_mcu.Twin) -> bool:
    """Train on the emulated board; whether its factors are the twin's, byte for byte."""
    _, adapt, _ = digits.load()
    samples = digits.inverted(adapt)
    program.write(OUTPUT, force=True)
    lora_mcu.build(OUTPUT)
    began = time.monotonic()
    with lora_mcu.emulate(OUTPUT) as url, lora_mcu.Device(url) as device:
        stats = personalize(device, samples, DEVICE_EPOCHS)
        device.adapter().save(OUTPUT / "device_adapter", force=True)
    personalize(twin, samples, DEVICE_EPOCHS)
    twin.adapter().save(OUTPUT / "twin_adapter", force=True)
    files = [OUTPUT / name / "adapter_model.safetensors" for name in ("device_adapter", "twin_adapter")]
    same = files[0].read_bytes() == files[1].read_bytes()
    print(f"emulated {BOARD}: {stats.steps} steps in {time.monotonic() - began:.0f} s, loss {stats.loss:.3f}; factors "
          f"{'equal' if same else 'DIFFER FROM'} the twin's")  # fmt: skip
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description="Personalize a small vision transformer.")
    parser.add_argument("--model", type=Path, default=HERE / "digits_vit.tflite")
    parser.add_argument("--adapt", default="all", help="all, or patterns such as q,v")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--device", action="store_true", help=f"also {DEVICE_EPOCHS} epochs on the emulated {BOARD}")
    arguments = parser.parse_args()
    program = lora_mcu.compile(arguments.model, board=BOARD, adapt=arguments.adapt, rank=RANK)
    report = program.report().to_dict()
    print(f"{len(program.info.layers)} layers adapted, {program.info.parameters:,} factors; "
          f"{report['training_sram_bytes']:,} bytes of SRAM to run and train")  # fmt: skip
    twin = on_twin(program, arguments.epochs)
    return 0 if not arguments.device or on_device(program, twin) else 1


if __name__ == "__main__":
    raise SystemExit(main())

# SPDX-License-Identifier: Apache-2.0
"""Records loss_curve.json: 20 SGD steps of the demo's model in TensorFlow, which the twin must follow.

    python tests/conformance/record_loss_curve.py

Float64 on dequantized weights, activations rounded to int8 by TensorFlow's own results, gradients by its autodiff,
factors rounded to the nearest binary16 after every step. Neither the C nor the NumPy reference takes part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORD = HERE / "loss_curve.json"
STEPS, BATCH, PERSON = 20, 8, 5
SETTINGS: dict[str, Any] = {"lr": 0.01, "batch_size": BATCH, "rounding": "nearest"}


def windows() -> tuple[Any, Any]:
    """int8 windows [160, 128, 6] of one rotated person's adaptation part, shuffled once, and their labels."""
    with np.load(ROOT / "examples" / "har" / "har.npz", allow_pickle=False) as data:
        mine = np.flatnonzero((data["subject"] == PERSON) & (data["part"] == 0))
        chosen = np.random.default_rng(20).choice(mine, STEPS * BATCH, replace=len(mine) < STEPS * BATCH)
        return data["x"][chosen], data["y"][chosen]


def record() -> dict[str, Any]:
    """The curve: mean loss of each batch before its step."""
    from conformance.straight_through import StraightThrough

    import lora_mcu
    from lora_mcu import Adapter
    from lora_mcu.random_bits import initial_a

    program = lora_mcu.compile(ROOT / "examples" / "har" / "har.tflite", board="native", adapt="all", numerics="f32")
    info, graph = program.info, StraightThrough(program)
    r = info.rank
    parts = []
    for layer in program.adaptation.layers:
        parts += [initial_a(program.seed, layer.a_offset, r * layer.k, layer.k), np.zeros(r * layer.m, np.uint16)]
    factors = np.concatenate(parts).view(np.float16)
    shape = program.graph.tensors[program.graph.input].shape
    x, labels = windows()
    losses = []
    for step in range(STEPS):
        adapter = Adapter.from_factors(info, factors.astype("<f2").tobytes())
        total, sums = 0.0, np.zeros(len(factors))
        for i in range(step * BATCH, (step + 1) * BATCH):
            loss, found = graph.gradients({program.graph.input: x[i].reshape(shape)}, adapter, labels[i])
            total += loss
            sums += np.concatenate([found[f"{n.name}.lora_{p}"].ravel() for n in info.layers for p in "AB"])
        losses.append(total / BATCH)
        factors = (factors.astype(np.float64) - SETTINGS["lr"] * sums / BATCH).astype(np.float16)
    return {
        "command": "python tests/conformance/record_loss_curve.py",
        "model_sha256": info.model_sha256,
        "settings": SETTINGS,
        "person": PERSON,
        "losses": [round(value, 7) for value in losses],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    RECORD.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
    print(RECORD.read_text(encoding="utf-8"))

# SPDX-License-Identifier: Apache-2.0
"""Run by test_sanitizers in a process of its own, with libasan preloaded: every function of the twin on one library.

python probe.py LIBRARY INFO.json RESULT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from conformance.samples import structured_samples
from conformance.training_data import labelled, random_adapter

from lora_mcu.info import ModelInfo
from lora_mcu.twin import Twin


def exercise(twin: Twin) -> dict[str, np.ndarray]:
    """Infer, train, evaluate, store, epochs, gradients, load, reset; what came out."""
    info = twin.info
    x, labels = labelled(info, 9, 1)
    found = {"base": twin.infer(np.concatenate([x, structured_samples(info.input)]))}
    twin.configure(lr=0.02, lr_b_ratio=4.0, momentum=0.9, weight_decay=0.01, clip_norm=1.0, batch_size=4, seed=3)
    stats = [twin.train(x, labels)]
    twin.store(x, labels)
    stats.append(twin.run_epochs(3))
    twin.configure(lr=0.01, rounding="nearest", batch_size=2)
    stats.append(twin.run_epochs(1))
    evaluated = twin.evaluate(x, labels)
    gradients = twin.gradients(x[0], labels[0])
    found["gradients"] = np.concatenate([g.ravel() for g in gradients.values()])
    found["factors"] = np.frombuffer(twin._read_factors(), np.uint16)
    found["stats"] = np.array([[s.loss, s.steps, s.skipped] for s in stats] + [[evaluated.loss, 0, 0]])
    twin.load(random_adapter(info, 8))
    found["loaded"] = twin.infer(x)
    twin.clear_store()
    twin.reset()
    found["reset"] = twin.infer(np.concatenate([x, structured_samples(info.input)]))
    return found


if __name__ == "__main__":
    library, info, result = map(Path, sys.argv[1:])
    np.savez(result, **exercise(Twin(library, ModelInfo.from_json(info.read_text(encoding="utf-8")))))

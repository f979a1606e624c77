# SPDX-License-Identifier: Apache-2.0
"""The example of a product without a host: what it prints in the emulated part, and the twin's adapter."""

from __future__ import annotations

import importlib.util
import re
import zlib
from pathlib import Path
from types import ModuleType

import lora_mcu

ROOT = Path(__file__).resolve().parents[2]
LINES = r"""before:   (\d+) of 60 windows right, 12 of 60 stored samples held out
training: (\d+) of (\d+) windows right meanwhile, 240 steps
guard:    (\d+) of 12 held-out samples right, the base had (\d+): kept, not saved
after:    (\d+) of (\d+) windows right
adapter   ([0-9a-f]+)"""


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedding_run", ROOT / "examples" / "embedding" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_product_learns_in_its_idle_time_what_the_twin_learns(tmp_path: Path) -> None:
    product = example()
    printed = "\n".join(product.run(product.build(tmp_path / "product")))
    match = re.fullmatch(LINES, printed)
    assert match, printed
    *counts, adapter = match.groups()
    before, during, windows_during, held, base, after, windows_after = map(int, counts)
    x, y = product.sensor()
    assert windows_during + windows_after == len(x) - 60 and windows_during > 10 < windows_after
    assert before / 60 < 0.4 < 0.9 < after / windows_after and base < held
    twin = lora_mcu.compile(ROOT / "examples" / "har" / "har.tflite", board="netduinoplus2", adapt="all").twin()
    assert before == (twin.infer(x[:60]).argmax(1) == y[:60]).sum()
    twin.configure(lr=0.02)
    twin.configure_store(policy="reservoir", balance=True, hold_out=5)
    twin.store(x[:60], y[:60])
    twin.run_epochs(40)
    assert int(adapter, 16) == zlib.crc32(twin.adapter().to_factors(twin.info))
    assert after == (twin.infer(x[60 + windows_during :]).argmax(1) == y[60 + windows_during :]).sum()

# SPDX-License-Identifier: Apache-2.0
"""Training SRAM of the models that docs/memory.md lists, and the yardstick: MobileNetV2 0.35 at 128 x 128.

    python benchmarks/memory.py [--models DIR] [--mobilenet [FILE]] [--json]

``--mobilenet`` makes the model with TensorFlow (random weights), or reads FILE, and holds its outputs to LiteRT's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "tests"))

import lora_mcu  # noqa: E402

GOAL = 88_064  # bytes of arena, input, factors and gradients of the yardstick
BLOCKS = "*block_15_*,*block_16_*"
PARTS = ("lmcu_arena", "lmcu_factors", "lmcu_gradients", "lmcu_momentum", "lmcu_tables")
LEAN = {"momentum": False, "max_batch": 1, "numerics": "f32"}


@dataclass(frozen=True)
class Case:
    """``before``: arena, factors, gradients and momentum of the planner without in-place operators, shared gradients
    and depth-first execution (commit f90a3fe), measured there by this sum."""

    name: str
    file: str
    adapt: str
    before: int


CASES = (
    Case("HAR demo", "har.tflite", "all", 28_192),
    Case("MLPerf Tiny KWS", "mlperf_kws_ref_model.tflite", "all", 166_608),
    Case("MLPerf Tiny AD", "mlperf_ad01_int8.tflite", "all", 139_912),
    Case("MLPerf Tiny ResNet8", "mlperf_pretrainedResnet_quant.tflite", "last:4", 120_208),
    Case("MLPerf Tiny VWW, 96 x 96", "mlperf_vww_96_int8.tflite", "last:4", 111_728),
    Case("MobileNetV1 0.25, 128 x 128", "tinymaix_mbnet128_025_q.tflite", "last:4", 229_456),
)
YARDSTICK = Case("MobileNetV2 0.35, 128 x 128", "", BLOCKS, 310_720)


def memory(model: Path, case: Case, **options: Any) -> dict[str, int]:
    """Bytes of a plan for the host, whose SRAM never limits it."""
    report = lora_mcu.compile(model, board="native", adapt=case.adapt, rank=4, cache="off", **options).report()
    out = {name: report.sram.get(name, 0) for name in PARTS}
    moving = sum(s["instructions"] for s in report.stripes)
    return {**out, "total": sum(out.values()), "bound": report.arena_lower_bound, "moving": moving,
            "inference": report.inference_instructions}  # fmt: skip


def mobilenet(size: int, file: Path) -> None:
    """Keras MobileNetV2, alpha 0.35, 10 classes, random weights; statistics of its normalizations from random images,
    so that activations are alive."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    net = tf.keras.applications.MobileNetV2(input_shape=(size, size, 3), alpha=0.35, weights=None, classes=10)
    images = np.random.default_rng(0).uniform(-1, 1, (64, size // 8, size // 8, 3)).astype(np.float32)
    images = np.repeat(np.repeat(images, 8, axis=1), 8, axis=2)
    for layer in net.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(8):
        net(images, training=True)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    file.write_bytes(converter.convert())


def check(model: Path, case: Case) -> str:
    """Outputs against LiteRT's reference kernels; adapter bytes with and without depth-first execution."""
    from conformance.oracle import Oracle, differing

    rng = np.random.default_rng(1)
    programs = [lora_mcu.compile(model, board="native", adapt=case.adapt, cache="off", **o)
                for o in (LEAN, {**LEAN, "depth_first": False})]  # fmt: skip
    shape = programs[0].info.input.shape
    x = np.repeat(np.repeat(rng.integers(-128, 128, (8, shape[0] // 8, shape[1] // 8, shape[2])), 8, 1), 8, 2)
    x = x.astype(np.int8)
    twins = [p.twin() for p in programs]
    wrong = differing(twins[0].infer(x), Oracle(model).infer(x))
    adapters = []
    for twin in twins:
        twin.configure(lr=0.05, batch_size=1)
        twin.train(x, np.arange(8) % programs[0].info.logit_count)
        adapters.append(twin.adapter().to_factors(twin.info))
    same = "equal" if adapters[0] == adapters[1] else "DIFFERENT"
    return f"{wrong} bytes differ from LiteRT in 8 outputs; adapter bytes with and without rows after 8 steps: {same}"


def row(case: Case, model: Path) -> dict[str, Any]:
    plain, lean = memory(model, case, numerics="f32"), memory(model, case, **LEAN)
    whole, i16 = memory(model, case, depth_first=False, numerics="f32"), memory(model, case, numerics="i16")
    return {"name": case.name, "adapt": case.adapt, "before": case.before, "plain": plain, "lean": lean, "whole": whole,
            "i16": i16}  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    console = Console(width=140)
    table = Table(title="Arena, factors, gradients, momentum (and tables of mode i16) at rank 4, bytes")
    columns = (
        "model",
        "adapted",
        "before",
        "now",
        "mode i16",
        "no momentum, max batch 1",
        "arena",
        "bound",
        "without rows",
        "rows cost",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    for r in rows:
        plain, lean = r["plain"], r["lean"]
        table.add_row(
            r["name"], r["adapt"], f"{r['before']:,}", f"{plain['total']:,}", f"{r['i16']['total']:,}",
            f"{lean['total']:,}",
            f"{plain['lmcu_arena']:,}", f"{plain['bound']:,}", f"{r['whole']['lmcu_arena']:,}",
            f"{100 * plain['moving'] / plain['inference']:.1f} %",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = os.environ.get("LORA_MCU_MODELS", str(ROOT.parent / "shared" / "models"))
    parser.add_argument("--models", type=Path, default=Path(models))
    parser.add_argument("--mobilenet", nargs="?", const="make", metavar="FILE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folders = (ROOT / "examples" / "har", options.models)
    found = [(case, folder / case.file) for case in CASES for folder in folders if (folder / case.file).exists()]
    rows, said = [row(case, model) for case, model in found], ""
    if options.mobilenet:
        with tempfile.TemporaryDirectory(prefix="lora_mcu-bench-") as temporary:
            model = Path(options.mobilenet)
            if options.mobilenet == "make":
                mobilenet(128, model := Path(temporary) / "mobilenet.tflite")
            rows.append(row(YARDSTICK, model))
            said = check(model, YARDSTICK)
        lean = rows[-1]["lean"]["total"]
        verdict = "met" if lean <= GOAL else "MISSED"
        said = f"yardstick: {lean:,} of {GOAL:,} bytes, goal {verdict}; {said}"
    if options.json:
        print(json.dumps({"rows": rows, "yardstick": said}))
        return
    show(rows)
    if said:
        config = lora_mcu.compile(found[0][1], board="netduinoplus2").report().sram
        beside = ("lmcu_stack", "lmcu_link", "lmcu_rx_ring", "lmcu_context", "lmcu_port_state")
        print(said)
        print("beside it on a board: " + ", ".join(f"{name} {config[name]:,}" for name in beside))


if __name__ == "__main__":
    main()

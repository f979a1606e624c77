# SPDX-License-Identifier: Apache-2.0
"""The command that makes an int8 .tflite of a float model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import Interrupted, emit, progress, refuse_existing, say, write_whole


def quantize(
    model: Annotated[
        Path, typer.Argument(help="Float .tflite, .keras or .h5 file, or a SavedModel's folder.", show_default=False)
    ],
    data: Annotated[
        Path, typer.Option("--data", help=".npz with x [N, *sample], as the model takes them.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help=".tflite to write.", show_default=False)],
    samples: Annotated[int, typer.Option(min=1, help="Samples to calibrate on at most, spread over the file.")] = 300,
    model_output: options.ModelOutput = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Quantize a float model to int8 throughout and check that it compiles (pip install 'lora-mcu[quantize]')."""
    import numpy as np

    from lora_mcu import importer, quantizing
    from lora_mcu.datasets import load_npz

    refuse_existing(output, force)
    x = load_npz(data, need_labels=False).x
    x = x[np.linspace(0, len(x) - 1, min(samples, len(x))).astype(int)]
    try:
        with progress(f"calibrating on {len(x)} samples", len(x)) as done:
            result = quantizing.quantize(model, x, done)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {output} was not written") from None
    graph = importer.loads(result.content, output.stem, model_output)
    write_whole(output, result.content, force)
    layers = len(graph.adaptable())
    if json_:
        emit({"output": str(output), "bytes": len(result.content), "calibrated_on": len(x), "sqnr_db": result.sqnr_db,
              "same_class": result.same_class, "compared_on": result.samples, "adaptable": layers})  # fmt: skip
        return
    same = "" if result.same_class is None else f", the same class on {100 * result.same_class:.1f} %"
    ratio = f"{result.sqnr_db:.1f} dB" if math.isfinite(result.sqnr_db) else "no difference"
    say(f"wrote {output}: {len(result.content):,} bytes, int8 input and output, {layers} adaptable layers")
    say(f"against the float model on {result.samples} samples: signal over error {ratio}{same}")
    say(f"`lora-mcu compile {output} --board ... -o ...` takes it")

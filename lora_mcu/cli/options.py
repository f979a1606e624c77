# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PORT_HELP = "Serial port or socket://host:port of the device; `auto` finds one by HELLO."

Project = Annotated[Path, typer.Argument(help="Folder that `lora-mcu compile` wrote.", show_default=False)]
Data = Annotated[Path, typer.Argument(help=".npz with x [N, *sample] and y [N].", show_default=False)]
Port = Annotated[str | None, typer.Option(help=PORT_HELP, show_default=False)]
Emulate = Annotated[bool, typer.Option("--emulate", help="Start the project in an emulator for this command.")]
Emulator = Annotated[str, typer.Option("--emulator", "--with", help="auto, qemu, unicorn, renode or native.")]
Twin = Annotated[bool, typer.Option("--twin", help="Run the same C on this computer instead of a device.")]
AdapterFolder = Annotated[
    Path | None, typer.Option("--adapter", help="Load this adapter folder first.", show_default=False)
]
ModelOutput = Annotated[
    str | None,
    typer.Option("--model-output", help="Output to train, of a model with several.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

Epochs = Annotated[int, typer.Option(min=1, help="Times that every sample is trained on.")]
Lr = Annotated[float, typer.Option(help="Learning rate of A.")]
LrBRatio = Annotated[float, typer.Option(help="Learning rate of B over that of A (LoRA+).")]
BatchSize = Annotated[int, typer.Option(help="Samples a step.")]
Momentum = Annotated[float, typer.Option(help="Of SGD, from 0 to below 1.")]
WeightDecay = Annotated[float, typer.Option(help="Of SGD.")]
ClipNorm = Annotated[float, typer.Option(help="Largest norm of a step's gradient; 0: no clipping.")]
Rounding = Annotated[str, typer.Option(help="Of the factors to fp16: stochastic or nearest.")]
Seed = Annotated[int, typer.Option(help="Of the order of samples and of stochastic rounding.")]
Eval = Annotated[Path | None, typer.Option("--eval", help="Held-out .npz, tried before and after.", show_default=False)]
KeepWorse = Annotated[
    bool, typer.Option("--keep-worse", help="Keep the adapter also if --eval says that it is worse than before.")
]
StorePolicy = Annotated[str, typer.Option(help="What a full store does: stop, ring or reservoir.")]
Balance = Annotated[bool, typer.Option("--balance", help="Of a full store the class with the most samples gives way.")]
Replay = Annotated[
    Path | None,
    typer.Option(help="Mix samples of this .npz in, as many as fit beside the data.", show_default=False),
]
ReplaySamples = Annotated[
    int | None, typer.Option(min=1, help="How many of --replay.", show_default="as many as the data, if they fit")
]
Save = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the adapter and training.json here.", show_default=False)
]

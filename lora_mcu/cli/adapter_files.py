# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu adapter info | diff | combine | merge`: adapter folders on this computer, no device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import emit, percent, refuse_existing, say, table, working
from lora_mcu.errors import DataError

if TYPE_CHECKING:
    from lora_mcu import Adapter
    from lora_mcu.adapters.merging import MergeCheck, Merged

MAX_RECORD = 16 << 20  # bytes of a training.json that is looked into for a note

_Folder = Annotated[Path, typer.Argument(help="Adapter folder.", show_default=False)]


def info(adapter: _Folder, json_: options.Json = False) -> None:
    """What an adapter folder holds: model, layout, and by layer the size of its change of the weights."""
    from lora_mcu import Adapter

    found = _describe(adapter, Adapter.load(adapter))
    if json_:
        emit(found)
        return
    say(f"model   sha256 {found['model_sha256']}")
    say(f"layout  sha256 {found['layout_sha256']}")
    rslora = ", rslora" if found["rslora"] else ""
    say(f"rank {found['rank']}, alpha {found['alpha']:g}{rslora}: {found['parameters']:,} fp16 parameters")
    if found["training"]:
        run = found["training"]
        say(f"trained on {run.get('board')}: {run.get('samples')} samples, {len(run.get('epochs') or [])} epochs")
    rows = [(x["name"], x["m"], x["k"], _kernel(x["kernel"]), f"{x['norm']:.4g}") for x in found["layers"]]
    table(("layer", "M", "K", "kernel", "|gamma B A|"), rows)


def _kernel(kernel: list[int] | None) -> str:
    return "x".join(map(str, kernel)) if kernel else "dense"


def _describe(folder: Path, adapter: Adapter) -> dict[str, Any]:
    import numpy as np

    from lora_mcu.adapters.combining import change

    layers = []
    for name, (a, b) in adapter.layers.items():
        kernel = adapter.kernels[name]
        layers.append({"name": name, "m": len(b), "k": a.shape[1], "kernel": list(kernel) if kernel else None,
                       "norm": float(np.linalg.norm(change(adapter, name)))})  # fmt: skip
    return {
        "model_sha256": adapter.model_sha256, "layout_sha256": adapter.layout_sha256, "rank": adapter.rank,
        "alpha": adapter.alpha, "rslora": adapter.rslora,
        "parameters": sum(a.size + b.size for a, b in adapter.layers.values()), "layers": layers,
        "training": _training(folder / "training.json"),
    }  # fmt: skip


def _training(path: Path) -> dict[str, Any] | None:
    """The record of the run beside an adapter, if there is a readable one."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("epochs", []), list):
        raise DataError(f"{path} is not the record of a run: remove it")
    return record


def trained_numerics(folder: Path) -> str | None:
    """The mode that an adapter's record names; None where there is none that can be read: it is only for a note."""
    from lora_mcu.passes.blocks import NUMERICS

    path = folder / "training.json"
    try:
        if path.stat().st_size > MAX_RECORD:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = record.get("numerics") if isinstance(record, dict) else None
    return found if isinstance(found, str) and found in NUMERICS else None


def diff(first: _Folder, second: _Folder, json_: options.Json = False) -> None:
    """How two adapters of one model differ, layer by layer, in their change gamma B A of the weights."""
    from lora_mcu import Adapter
    from lora_mcu.adapters.combining import difference

    rows = difference(Adapter.load(first), Adapter.load(second))
    if json_:
        emit(rows)
        return
    table(
        ("layer", "equal", "|first|", "|second|", "|second - first|", "cosine"),
        [(r.name, "yes" if r.equal else "no", f"{r.norm_first:.4g}", f"{r.norm_second:.4g}",
          f"{r.norm_difference:.4g}", "-" if r.cosine is None else f"{r.cosine:.4f}") for r in rows],
    )  # fmt: skip


def combine(
    adapters: Annotated[list[Path], typer.Argument(help="Two or more adapter folders.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    method: Annotated[str, typer.Option(help="linear, svd, ties or dare.")] = "svd",
    weights: Annotated[
        str | None, typer.Option(help="One number each, with commas; 1/n each by default.", show_default=False)
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of values that ties (0.2) or dare (0.5) keeps.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of dare.")] = 0,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Combine adapters of one model into one of the same rank, which any device of that layout takes."""
    import lora_mcu

    refuse_existing(output, force)
    loaded = [lora_mcu.Adapter.load(folder) for folder in adapters]
    made = lora_mcu.combine(loaded, method, weights=_numbers(weights), density=density, seed=seed)
    made.adapter.save(output, force=force)
    if json_:
        emit({"method": method, "distance": made.distance})
        return
    table(
        ("layer", "distance to the exact weighted sum"),
        [(name, "-" if far is None else f"{100 * far:.2f} %") for name, far in made.distance.items()],
    )
    say(f"{output}: {len(loaded)} adapters combined by {method}")


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise DataError(f"weights {text!r} are not numbers with commas between them, e.g. 0.7,0.3") from None


def merge(
    model: Annotated[Path, typer.Argument(metavar="BASE.tflite", help="The adapter's base.", show_default=False)],
    adapter: _Folder,
    output: Annotated[Path, typer.Option("-o", "--output", help=".tflite file to write.", show_default=False)],
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="Give a dense layer that has one scale one for each output.")
    ] = False,
    check: Annotated[
        Path | None, typer.Option("--check", help="Labelled .npz to measure on.", show_default=False)
    ] = None,
    loss: Annotated[str, typer.Option(help="As for compile: auto, cross_entropy or mse.")] = "auto",
    model_output: Annotated[
        str | None,
        typer.Option("--model-output", help="As for compile: the trained one of several.", show_default=False),
    ] = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Merge an adapter into its base: a .tflite file like any other, and what its new rounding costs."""
    import lora_mcu
    from lora_mcu.datasets import load_npz

    refuse_existing(output, force)
    data = load_npz(check) if check else None
    loaded = lora_mcu.Adapter.load(adapter)
    with working("merge and measure"):
        made = lora_mcu.merge(model, loaded, per_channel=per_channel, loss=loss, output=model_output)
        seen = made.compare(data.x, data.labels) if data else made.compare()
    made.save(output, force=force)
    if json_:
        emit({"base_sha256": loaded.model_sha256, "sha256": made.sha256, "layers": made.layers, "check": seen})
    else:
        _show_merge(output, made, seen)


def _show_merge(output: Path, made: Merged, seen: MergeCheck) -> None:
    table(
        ("layer", "scales", "SQNR dB", "of the change"),
        [(x.name, x.scales, _decibels(x.sqnr_db), _decibels(x.change_sqnr_db)) for x in made.layers],
    )
    inputs = f"{seen.samples} {'random inputs' if seen.inputs == 'random' else 'samples'}"
    steps = seen.max_logit_change / seen.logit_step
    say(f"max |d logit| {seen.max_logit_change:.4g} ({steps:.0f} steps of the logits) on {inputs}")
    if seen.measure:
        say(f"{seen.measure}: base {_value(seen, seen.base)}, with the adapter {_value(seen, seen.adapter)}, "
            f"merged {_value(seen, seen.merged)}")  # fmt: skip
    say(f"wrote {output}: {len(made.content):,} bytes, sha256 {made.sha256[:16]}")


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _value(seen: MergeCheck, value: float | None) -> str:
    if value is None:
        return "-"
    return percent(value) if seen.measure == "accuracy" else f"{value:.6g}"

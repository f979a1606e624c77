# SPDX-License-Identifier: Apache-2.0
"""Commands before there is a device that answers: inspect, compile, build, flash, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_mcu.cli import options, report_text
from lora_mcu.cli.console import emit, refuse_existing, say, table, warn, working, write_whole

if TYPE_CHECKING:
    from lora_mcu.ir import Graph, Tensor

_Model = Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="Full int8 .tflite file.", show_default=False)]


def inspect(
    model: _Model,
    model_output: options.ModelOutput = None,
    ir: Annotated[bool, typer.Option("--ir", help="Print the graph as the compiler sees it.")] = False,
    json_: options.Json = False,
) -> None:
    """Show graph, quantization, adaptable layers, multiply-accumulates and bytes of a model, and the boards it fits."""
    from lora_mcu import importer

    graph = importer.load(model, model_output)
    if ir:
        say(graph.dump().rstrip("\n"))
        return
    with working(f"planning {model.name}"):
        described = _describe(graph) | {"boards": _on_boards(model, model_output)}
    if json_:
        emit(described)
    else:
        _show(described)


_CHOICES = {"none": "inference", "last:1": "last layer", "all": "all layers"}


def _on_boards(model: Path, model_output: str | None) -> list[dict[str, Any]]:
    """A line a board: what inference, training of the last layer and of all layers at rank 4 take of it."""
    import lora_mcu
    from lora_mcu.errors import BoardError, ModelError

    lines: dict[str, dict[str, Any]] = {}
    for adapt, name in _CHOICES.items():
        try:
            totals = lora_mcu.compile(model, board="native", adapt=adapt, output=model_output).report().boards
        except (BoardError, ModelError):  # no such layer, no gradient reaches it, or not even this computer holds it
            continue
        for total in totals:
            line = lines.setdefault(total.board, {**vars(total), "needs": {}})
            line["needs"][name] = total.sram_bytes
            line["flash_bytes"] = max(line["flash_bytes"], total.flash_bytes)
    for line in lines.values():
        del line["sram_bytes"]
    return list(lines.values())


def _edge(tensor: Tensor) -> dict[str, Any]:
    quantized = len(tensor.scale) == 1
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": float(tensor.s) if quantized else None,
        "zero_point": tensor.z if quantized else None,
    }


def _describe(graph: Graph) -> dict[str, Any]:
    names = graph.layer_names()
    operators = []
    for op in graph.ops:
        constants = [graph.tensors[i] for i in op.inputs if graph.tensors[i].data is not None]
        output = graph.tensors[op.output]
        operators.append(
            {
                "index": op.index,
                "kind": getattr(op, "function", "") or op.KIND,
                "layer": names.get(op.index),
                "output_shape": list(output.shape),
                "output_bytes": output.nbytes,
                "scales": "per-channel" if any(len(t.scale) > 1 for t in constants) else "per-tensor",
                "macs": op.macs(graph),
                "constant_bytes": sum(t.nbytes for t in constants),
            }
        )
    return {
        "model": graph.name,
        "sha256": graph.sha256,
        "input": _edge(graph.tensors[graph.input]),
        "output": _edge(graph.tensors[graph.output]),
        "operators": operators,
        "adaptable": [names[op.index] for op in graph.adaptable()],
        "macs": sum(o["macs"] for o in operators),
        "constant_bytes": sum(o["constant_bytes"] for o in operators),
    }


def _show(d: dict[str, Any]) -> None:
    say(f"{d['model']}  sha256 {d['sha256'][:16]}")
    for edge in ("input", "output"):
        tensor = d[edge]
        scale = "" if tensor["scale"] is None else f"  scale {tensor['scale']:.6g}  zero point {tensor['zero_point']}"
        say(f"{edge:6}  {tensor['dtype']} {'x'.join(map(str, tensor['shape']))}{scale}")
    say()
    columns = ("#", "operator", "output", "scales", "MACs", "constants", "adaptable layer")
    rows = [
        (o["index"], o["kind"], "x".join(map(str, o["output_shape"])), o["scales"], o["macs"], o["constant_bytes"],
         o["layer"] or "")
        for o in d["operators"]
    ]  # fmt: skip
    table(columns, rows)
    say()
    say(f"{d['macs']:,} MACs, {d['constant_bytes']:,} bytes of constants, {len(d['adaptable'])} adaptable layers")
    if d["boards"]:
        say()
        _show_boards(d["boards"])


def _show_boards(boards: list[dict[str, Any]]) -> None:
    def fitting(need: int | None, limit: int) -> str:
        return "-" if need is None else f"{need:,}" + (" (too many)" if need > limit else "")

    columns = ("board", "SRAM", *_CHOICES.values(), "flash", "about")
    rows = [
        (b["board"], b["sram_limit"], *(fitting(b["needs"].get(name), b["sram_limit"]) for name in _CHOICES.values()),
         b["flash_limit"], fitting(b["flash_bytes"], b["flash_limit"]))
        for b in boards
    ]  # fmt: skip
    table(columns, rows)
    say("bytes of SRAM at rank 4 without stored samples, and of flash; `lora-mcu compile` takes the layers that fit")


def compile_(
    model: _Model,
    board: Annotated[str, typer.Option(help="Board to compile for (boards/*.toml).", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Project folder to write.", show_default=False)],
    adapt: Annotated[
        str, typer.Option(help="auto (what fits), all, last:N, or layer names or patterns (q,v) with commas between.")
    ] = "auto",
    rank: Annotated[
        int | None, typer.Option(help="Rank r of the factors.", show_default="4; auto: less where more layers fit so")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Scale: W + alpha/r B A.", show_default="2 * rank")] = None,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale by alpha/sqrt(r) instead of alpha/r.")] = False,
    loss: Annotated[str, typer.Option(help="auto, cross_entropy or mse.")] = "auto",
    numerics: Annotated[
        str, typer.Option(help="i16: integers where the time goes; f32: all gradients in float32.")
    ] = "i16",
    seed: Annotated[int, typer.Option(help="Of the initial A.")] = 0,
    momentum: Annotated[
        bool, typer.Option("--momentum/--no-momentum", help="Keep memory for momentum, 4 bytes a parameter.")
    ] = True,
    max_batch: Annotated[
        int, typer.Option("--max-batch", help="1: gradients share memory with the forward pass. 0: any batch size.")
    ] = 0,
    depth_first: Annotated[
        bool, typer.Option("--depth-first/--whole-maps", help="Run frozen layers row by row where that saves memory.")
    ] = True,
    model_output: options.ModelOutput = None,
    as_: Annotated[
        str, typer.Option("--as", help="project: a firmware. library: a part of your Arduino, ESP-IDF or C program.")
    ] = "project",
    sram: Annotated[
        int | None, typer.Option(min=1, help="Bytes of SRAM to use at most.", show_default="all of the board's")
    ] = None,
    max_step_macs: Annotated[
        int | None,
        typer.Option(
            "--max-step-macs", min=1, help="MACs of a training step on one sample, at most.", show_default="no limit"
        ),
    ] = None,
    cache: Annotated[
        str, typer.Option(help="Store features from behind the frozen layers, not inputs: auto, on or off.")
    ] = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            help="sram: adapted layers' weights in SRAM, to merge the adapter on the device; or flash. Default: the "
            "board's way.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="File of 32 bytes: the device serves only hosts that have it.", show_default=False),
    ] = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Compile a model into a PlatformIO project or a library; the memory report is exact before any C compiler runs."""
    import lora_mcu
    from lora_mcu.link.auth import read_key

    refuse_existing(output, force)
    secret = None if key is None else read_key(key)
    program = lora_mcu.compile(
        model,
        board=board,
        adapt=adapt,
        rank=rank,
        alpha=alpha,
        rslora=rslora,
        loss=loss,
        numerics=numerics,
        seed=seed,
        output=model_output,
        form=as_,
        sram=sram,
        cache=cache,
        momentum=momentum,
        max_batch=max_batch,
        depth_first=depth_first,
        key=secret,
        max_step_macs=max_step_macs,
        weights=weights,
    )
    program.write(output, force=force)
    report = program.report()
    if key is not None and key.stat().st_mode & 0o077:
        warn(f"{key} can be read by others: chmod 600 {key}")
    if json_:
        emit(report.to_dict())
    else:
        report_text.show(report.to_dict())
        project = as_ == "project"
        how = f"`lora-mcu build {output}` makes the firmware" if project else f"{output}/README.md says how to use it"
        say(f"wrote {output}: {how}")
        if key is not None:
            say(f"{output} and its builds hold the key: keep them as secret as {key}")


def build(project: options.Project) -> None:
    """Build the firmware of a project with PlatformIO and the system's compiler."""
    import lora_mcu

    with working(f"building {project}"):
        result = lora_mcu.build(project)
    say(str(result))


def flash(
    project: options.Project,
    port: Annotated[str | None, typer.Option(help="Serial port, for esptool.", show_default="it looks")] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="openocd, st-flash, dfu-util or esptool.", show_default="first installed"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, run nothing.")] = False,
) -> None:
    """Write a built project to its board and verify it."""
    from lora_mcu import flashing

    if dry_run:
        flashing.flash(project, port=port, tool=with_, dry_run=True, progress=say)
        say(f"to do that: {flashing.connection(project)}")
        return
    with working(f"flashing {project}"):
        tool = flashing.flash(project, port=port, tool=with_)
    say(f"{tool} wrote {project} and verified it: `lora-mcu ports` shows whether the board answers")


def report(
    project: options.Project,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="File to write: .png for the memory picture alone.", show_default=False),
    ],
    force: options.Force = False,
) -> None:
    """Write what is known about a project as one HTML page that stands alone, or its SRAM over time as a PNG."""
    import lora_mcu
    from lora_mcu import report_html
    from lora_mcu.errors import ProjectError

    refuse_existing(output, force)
    loaded = lora_mcu.load_project(project)
    try:
        if output.suffix.lower() == ".png":
            content = report_html.memory_picture(loaded.report)
        else:
            content = report_html.project_page(loaded).encode()
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ProjectError(
            f"{project}/lora_mcu.json is damaged or another version's: compile the model again with --force"
        ) from None
    write_whole(output, content, force)
    say(f"wrote {output}")

# SPDX-License-Identifier: Apache-2.0
"""Commands that talk to a device or look for one: emulate, eval, infer, ports, doctor."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import emit, percent, progress, refuse_existing, say, table, warn, write_whole
from lora_mcu.cli.line import chosen
from lora_mcu.errors import DeviceError

if TYPE_CHECKING:
    from lora_mcu import Adapter, Device
    from lora_mcu.datasets import Dataset
    from lora_mcu.info import ModelInfo
    from lora_mcu.session import Learner


def _stop(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def emulate(
    project: options.Project,
    emulator: options.Emulator = "auto",
    flash: Annotated[
        Path | None,
        typer.Option(help="File that is the flash for saved adapters.", show_default="PROJECT/flash.bin"),
    ] = None,
) -> None:
    """Start a built project in an emulator; prints the port's URL and stays until Ctrl-C.

    Saved adapters stay in the flash file, so that the next start finds them.
    """
    import lora_mcu
    from lora_mcu.project import FLASH

    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with lora_mcu.emulate(project, emulator=emulator, flash=flash or project / FLASH) as url:
            print(url, flush=True)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def open_device(port: str) -> Iterator[Device]:
    """The device at ``port``; `auto` is the one port that answers HELLO."""
    import lora_mcu
    from lora_mcu.link import ports

    line = chosen.get()
    url = ports.find_one() if port == "auto" else port
    with lora_mcu.Device(
        url, timeout=line.timeout, retries=line.retries, baud=line.baud, trace=line.trace, key=line.key
    ) as device:
        if not device.baud_changed:
            warn(f"{line.baud} baud does not work on {url}: the line stays at the device's own speed")
        yield device


def one_place(port: str | None, emulate: bool, twin: bool | None = None) -> None:
    """Refuse, as wrong use, anything but one place to run; ``twin`` is None where there is no such option."""
    if (port is not None) + emulate + bool(twin) != 1:
        more = "" if twin is None else ", or --twin"
        raise typer.BadParameter(f"say where to run: --port PORT (or auto), or --emulate{more}")


def check_fits(info: ModelInfo, *data: Dataset | None) -> None:
    """Raise DataError where samples or labels do not fit the model, before anything is built, started or sent."""
    from lora_mcu.session.data import encode_labelled, encode_labels, encode_samples, is_sequences

    for one in data:
        if one is None:
            continue
        if one.y is not None or is_sequences(info, one.x):
            encode_labelled(info, one.x)
        else:
            encode_samples(info, one.x)
        if one.y is not None:
            encode_labels(info, one.y)


@contextmanager
def open_learner(
    project: Path, port: str | None, emulate: bool, emulator: str = "auto", twin: bool = False
) -> Iterator[Learner]:
    """The device, emulated device or twin that runs ``project``; refuses a device that runs something else."""
    import lora_mcu

    compiled = lora_mcu.load_project(project)
    if twin:
        yield compiled.twin()
    elif emulate:
        with lora_mcu.emulate(project, emulator=emulator) as url, open_device(url) as device:
            yield device
    elif port is not None:
        with open_device(port) as device:
            same_program(compiled.info, device.info, project)
            yield device


def same_program(wanted: ModelInfo, found: ModelInfo, project: Path) -> None:
    """Raise DeviceError unless the device runs the project's model with the project's adapter layout."""
    if (wanted.model_sha256, wanted.layout_sha256) != (found.model_sha256, found.layout_sha256):
        raise DeviceError(
            f"the device runs {_identity(found)}, {project} holds {_identity(wanted)}: flash that project, or name the "
            "device's own"
        )


def _identity(info: ModelInfo) -> str:
    return f"{info.name} ({info.model_sha256[:8]}, adapter layout {info.layout_sha256[:8]})"


def load_adapter(learner: Learner, folder: Path, adapter: Adapter) -> None:
    """Load what was read from ``folder``; says on stderr when it was trained in the other numerics mode."""
    from lora_mcu.cli.adapter_files import trained_numerics

    learner.load(adapter)
    trained, now = trained_numerics(folder), learner.info.numerics
    if trained not in (None, now):
        warn(f"{folder} was trained in numerics mode {trained}, this is {now}: outputs may differ by a rounding")


def evaluate(
    project: options.Project,
    data: options.Data,
    port: options.Port = None,
    emulate: options.Emulate = False,
    twin: options.Twin = False,
    emulator: options.Emulator = "auto",
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="Load this adapter folder first; with --retain one for each task, in order of training."),
    ] = None,
    retain: Annotated[
        list[Path] | None,
        typer.Option(help="What was learned before, the base's data first: report forgetting.", show_default=False),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Loss and accuracy of the model with the adapter in use; trains nothing.

    With --retain also average forgetting (arXiv 1801.10112) and backward transfer (arXiv 1706.08840).
    """
    import lora_mcu
    from lora_mcu import forgetting
    from lora_mcu.datasets import load_npz

    one_place(port, emulate, twin)
    if not retain and len(adapter or ()) > 1:
        raise typer.BadParameter("several adapters go with --retain; name one", param_hint="--adapter")
    samples, known = load_npz(data), [load_npz(file) for file in retain or ()]
    check_fits(lora_mcu.load_project(project).info, samples, *known)
    table = None
    with open_learner(project, port, emulate, emulator, twin) as learner:
        loaded = [lora_mcu.Adapter.load(folder) for folder in adapter or ()]
        if adapter:
            load_adapter(learner, adapter[-1], loaded[-1])
        with progress("evaluate", len(samples)) as advance:
            stats = learner.evaluate(samples.x, samples.labels, progress=advance)
        if known:
            tasks, stages = [*known, samples], loaded or [learner.adapter()]
            with progress("retained", sum(map(len, tasks)) * len(tasks)) as advance:
                table = forgetting.table(learner, tasks, stages, advance)
    found = forgetting.forgetting(table) if table else None
    if json_:
        result = {"samples": len(samples), "loss": stats.loss, "accuracy": stats.accuracy}
        emit({**result, "retained": found, "table": table} if found else result)
        return
    say(f"{len(samples)} samples: loss {stats.loss:.4f}, accuracy {percent(stats.accuracy)}")
    if table and found:
        for i, file in enumerate(retain or ()):
            say(f"{file}: accuracy {percent(table[i][i])} when it was learned, {percent(table[-1][i])} now")
        lost, moved = 100 * found.forgetting, 100 * found.backward_transfer
        say(f"average forgetting {lost:.1f} points, backward transfer {moved:+.1f} points")


def infer(
    project: options.Project,
    data: options.Data,
    port: options.Port = None,
    emulate: options.Emulate = False,
    twin: options.Twin = False,
    emulator: options.Emulator = "auto",
    adapter: options.AdapterFolder = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the outputs as .npz (y).", show_default=False)
    ] = None,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Go on from a streaming model's state, not from its reset state.")
    ] = False,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Run the model on samples; prints the outputs, or writes them with -o.

    Of a streaming model x [N, *sample] is one stream of N frames; x [N, T, *sample] are N sequences.
    """
    import lora_mcu
    from lora_mcu.datasets import Dataset, load_npz

    one_place(port, emulate, twin)
    if output is not None:
        refuse_existing(output, force)
    samples = load_npz(data, need_labels=False)
    check_fits(lora_mcu.load_project(project).info, Dataset(samples.x, None))
    with open_learner(project, port, emulate, emulator, twin) as learner:
        if adapter is not None:
            load_adapter(learner, adapter, lora_mcu.Adapter.load(adapter))
        if learner.info.streaming and not keep_state:
            learner.reset_state()
        outputs = learner.infer(samples.x)
    if output is not None:
        write_whole(output, _npz(y=outputs), force)
    if json_:
        emit({"outputs": outputs.tolist()})
    elif output is not None:
        say(f"wrote {output}: y {outputs.dtype} {list(outputs.shape)}")
    else:
        sequences = outputs.ndim > 1 + len(learner.info.output.shape)
        _show_outputs(learner.info, outputs[:, -1] if sequences else outputs, samples.label_names)


def _show_outputs(info: ModelInfo, outputs: Any, names: tuple[str, ...]) -> None:
    rows = []
    for i, output in enumerate(outputs):
        flat = output.ravel()
        best = int(flat.argmax())
        named = f"{best} {names[best]}" if best < len(names) else str(best)
        values = " ".join(f"{v:g}" for v in flat[:12]) + (" ..." if flat.size > 12 else "")
        rows.append((i, named, values) if info.loss == "cross_entropy" else (i, values))
    table(("sample", "class", "output") if info.loss == "cross_entropy" else ("sample", "output"), rows)


def _npz(**arrays: Any) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def ports(json_: options.Json = False) -> None:
    """List serial ports, and which of them answer as a lora_mcu device."""
    from lora_mcu.link import ports as link_ports

    found = link_ports.scan()
    if json_:
        emit(found)
    elif not found:
        say("no serial ports: connect the board, or `lora-mcu emulate PROJECT` starts an emulated one")
    else:
        table(("port", "description", "device"), [(p.url, p.description, p.device) for p in found])


def doctor(json_: options.Json = False) -> None:
    """What is installed, what is missing, and the line that installs it (exit code 1 when something is missing)."""
    from lora_mcu import checks

    found = checks.doctor()
    if json_:
        emit(found)
    else:
        states = ["ok" if c.found else "optional" if c.optional else "missing" for c in found]
        table(("", "what", "found"), [(s, c.name, c.detail) for s, c in zip(states, found, strict=True)])
    if not all(c.ok for c in found):
        raise typer.Exit(1)

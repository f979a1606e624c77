# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu train` on a device and `lora-mcu simulate` on the twin: the same plan, so the same adapter bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import Interrupted, emit, percent, progress, refuse_existing, say, write_whole
from lora_mcu.cli.device import check_fits, one_place, open_learner
from lora_mcu.errors import DataError

if TYPE_CHECKING:
    from lora_mcu import Adapter
    from lora_mcu.datasets import Dataset
    from lora_mcu.info import ModelInfo
    from lora_mcu.session import EvalStats, Learner, Settings, TrainStats

AfterEpoch = Callable[[int, "TrainStats"], None]


@dataclass(frozen=True)
class Fit:
    """What one training did: where the samples were kept, the stats of every epoch."""

    mode: str  # stored | streamed
    epochs: tuple[TrainStats, ...]

    @property
    def steps(self) -> int:
        return sum(e.steps for e in self.epochs)

    @property
    def skipped(self) -> int:
        return sum(e.skipped for e in self.epochs)

    @property
    def diverged(self) -> bool:
        """A step was refused, the loss is not finite, or it ended at more than twice what it began with."""
        first, last = self.epochs[0].loss, self.epochs[-1].loss
        return self.skipped > 0 or not math.isfinite(last) or last > 2 * first


def fit(
    learner: Learner, data: Dataset, settings: Settings, epochs: int, after_epoch: AfterEpoch, base: bool = True
) -> Fit:
    """Train from the base (or, without ``base``, from the adapter in use) for ``epochs``.

    Samples that fit the store are sent once and the device shuffles them; otherwise every epoch is streamed in the
    order that the device's own shuffle would have given.
    """
    from lora_mcu.session.shuffle import epoch_order

    if base:
        learner.reset()
    learner.configure(**dataclasses.asdict(settings))
    done: list[TrainStats] = []

    def finished(epoch: int, stats: TrainStats) -> None:
        done.append(stats)
        after_epoch(epoch, stats)

    if len(data) <= learner.info.store_capacity:
        learner.clear_store()
        with progress("send samples", len(data)) as advance:
            learner.store(data.x, data.labels, progress=advance)
        with progress("train", epochs) as advance:

            def stored_epoch(epoch: int, stats: TrainStats) -> None:
                advance(epoch)
                finished(epoch, stats)

            learner.run_epochs(epochs, progress=stored_epoch)
        return Fit("stored", tuple(done))
    with progress("train", epochs * len(data)) as advance:
        for epoch in range(epochs):
            order = epoch_order(len(data), settings.seed, epoch)
            before = epoch * len(data)

            def sent(n: int, before: int = before) -> None:
                advance(before + n)

            finished(epoch + 1, learner.train(data.x[order], data.labels[order], progress=sent))
    return Fit("streamed", tuple(done))


def _evaluate(learner: Learner, data: Dataset | None) -> EvalStats | None:
    if data is None:
        return None
    with progress("evaluate", len(data)) as advance:
        return learner.evaluate(data.x, data.labels, progress=advance)


def _refuse_divergence(result: Fit, way_out: str) -> None:
    if result.diverged:
        raise DataError(
            f"training diverged: loss {result.epochs[0].loss:.3g} in the first epoch, {result.epochs[-1].loss:.3g} in "
            f"the last, {result.skipped} steps skipped: lower --lr or set --clip-norm 1; {way_out}"
        )


def _save(folder: Path, adapter: Adapter, record: dict[str, Any], force: bool) -> None:
    adapter.save(folder, force=force)
    write_whole(folder / "training.json", (json.dumps(record, indent=2, sort_keys=True) + "\n").encode(), force=True)


def _record(learner: Learner, settings: Settings, result: Fit, data: Dataset) -> dict[str, Any]:
    """What belongs to a run and not to its adapter file."""
    info = learner.info
    return {
        "model": info.name,
        "model_sha256": info.model_sha256,
        "layout_sha256": info.layout_sha256,
        "board": info.board,
        "numerics": info.numerics,
        "settings": dataclasses.asdict(settings),
        "samples": len(data),
        "mode": result.mode,
        "epochs": [dataclasses.asdict(e) for e in result.epochs],
    }


def _line(name: str, stats: EvalStats | None) -> None:
    if stats is not None:
        say(f"{name:6}  loss {stats.loss:.4f}  accuracy {percent(stats.accuracy)}")


def _show_fit(result: Fit, info: ModelInfo, samples: int) -> None:
    last = result.epochs[-1]
    if result.mode == "stored":
        say(f"{samples} samples kept in the store of {info.board} ({info.store_capacity} fit), epochs run there")
    else:
        say(f"{samples} samples streamed every epoch: the store of {info.board} holds {info.store_capacity}")
    say(
        f"trained {len(result.epochs)} epochs, {result.steps} steps ({result.skipped} skipped): "
        f"loss {result.epochs[0].loss:.4f} -> {last.loss:.4f}, accuracy {percent(last.accuracy)} while training"
    )


def train(
    project: options.Project,
    data: options.Data,
    port: options.Port = None,
    emulate: options.Emulate = False,
    emulator: options.Emulator = "auto",
    epochs: options.Epochs = 1,
    lr: options.Lr = 0.01,
    lr_b_ratio: options.LrBRatio = 1.0,
    batch_size: options.BatchSize = 8,
    momentum: options.Momentum = 0.0,
    weight_decay: options.WeightDecay = 0.0,
    clip_norm: options.ClipNorm = 0.0,
    rounding: options.Rounding = "stochastic",
    seed: options.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the adapter in use, not from the base.")] = False,
    held_out: options.Eval = None,
    output: options.Save = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Train the adapter on a device. Nothing is written on this computer unless -o is given."""
    import lora_mcu
    from lora_mcu.datasets import load_npz
    from lora_mcu.session import Settings

    one_place(port, emulate)
    if output is not None:
        refuse_existing(output, force)
    settings = Settings(lr, lr_b_ratio, momentum, weight_decay, clip_norm, batch_size, rounding, seed)
    samples, judged = load_npz(data), load_npz(held_out) if held_out else None
    info = lora_mcu.load_project(project).info
    check_fits(info, samples, judged)
    kept = "the emulated device and its adapter are gone" if emulate else (
        "the device keeps the adapter of its last executed step; `lora-mcu adapter reset` restores the base"
    )  # fmt: skip
    try:
        with open_learner(project, port, emulate, emulator) as learner:
            before = _evaluate(learner, judged)
            result = fit(learner, samples, settings, epochs, lambda epoch, stats: None, base=not resume)
            _refuse_divergence(result, kept)
            after = _evaluate(learner, judged)
            if output is not None:
                _save(output, learner.adapter(), _record(learner, settings, result, samples), force)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped: {kept}") from None
    if json_:
        emit({"before": before, "after": after, "mode": result.mode, "steps": result.steps, "skipped": result.skipped,
              "epochs": result.epochs})  # fmt: skip
        return
    _line("before", before)
    _show_fit(result, info, len(samples))
    _line("after", after)
    if output is not None:
        say(f"wrote {output}")


def simulate(
    project: options.Project,
    data: options.Data,
    epochs: options.Epochs = 1,
    lr: options.Lr = 0.01,
    lr_b_ratio: options.LrBRatio = 1.0,
    batch_size: options.BatchSize = 8,
    momentum: options.Momentum = 0.0,
    weight_decay: options.WeightDecay = 0.0,
    clip_norm: options.ClipNorm = 0.0,
    rounding: options.Rounding = "stochastic",
    seed: options.Seed = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to try, from --seed up.")] = 1,
    held_out: options.Eval = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every epoch of every seed here.", show_default=False)
    ] = None,
    output: options.Save = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Train on the twin: the project's C on this computer, the adapter bytes that the board would make."""
    import lora_mcu
    from lora_mcu.datasets import load_npz
    from lora_mcu.session import Settings

    for path in (csv_file, output):
        if path is not None:
            refuse_existing(path, force)
    settings = Settings(lr, lr_b_ratio, momentum, weight_decay, clip_norm, batch_size, rounding, seed)
    samples, judged = load_npz(data), load_npz(held_out) if held_out else None
    compiled = lora_mcu.load_project(project)
    check_fits(compiled.info, samples, judged)
    twin = compiled.twin()
    before = _evaluate(twin, judged)
    rows: list[list[Any]] = []
    runs: list[tuple[int, Fit, EvalStats | None]] = []
    for one in range(seed, seed + seeds):

        def after_epoch(epoch: int, stats: TrainStats, one: int = one) -> None:
            held = twin.evaluate(judged.x, judged.labels) if judged and csv_file else None
            rows.append([one, epoch, stats.loss, stats.accuracy, stats.steps, stats.skipped]
                        + ([held.loss, held.accuracy] if held else []))  # fmt: skip

        chosen = dataclasses.replace(settings, seed=one)
        result = fit(twin, samples, chosen, epochs, after_epoch)
        _refuse_divergence(result, f"seed {one}")
        runs.append((one, result, _evaluate(twin, judged)))
        if output is not None and one == seed:
            _save(output, twin.adapter(), _record(twin, chosen, result, samples), force)
    if csv_file is not None:
        write_whole(csv_file, _csv(rows, judged is not None), force)
    if json_:
        emit({"before": before, "seeds": [{"seed": s, "mode": r.mode, "steps": r.steps, "skipped": r.skipped,
                                          "epochs": r.epochs, "after": a} for s, r, a in runs]})  # fmt: skip
        return
    _line("before", before)
    for one, result, after in runs:
        if seeds > 1:
            say(f"seed {one}")
        _show_fit(result, twin.info, len(samples))
        _line("after", after)
    accuracies = [after.accuracy for _, _, after in runs if after]
    if len(accuracies) > 1:
        mean = sum(accuracies) / len(accuracies)
        say(f"{seeds} seeds: accuracy {percent(mean)} (from {percent(min(accuracies))} to {percent(max(accuracies))})")
    for path in (csv_file, output):
        if path is not None:
            say(f"wrote {path}")


def _csv(rows: list[list[Any]], judged: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "epoch", "loss", "accuracy", "steps", "skipped"]
                    + (["eval_loss", "eval_accuracy"] if judged else []))  # fmt: skip
    writer.writerows(rows)
    return text.getvalue().encode()

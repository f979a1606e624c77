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
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lora_mcu.cli import options
from lora_mcu.cli.console import Interrupted, emit, percent, progress, refuse_existing, say, write_whole
from lora_mcu.cli.device import check_fits, one_place, open_learner
from lora_mcu.errors import DataError, GuardError

if TYPE_CHECKING:
    from lora_mcu import Adapter, Device
    from lora_mcu.datasets import Dataset
    from lora_mcu.info import ModelInfo
    from lora_mcu.session import EvalStats, Learner, Settings, StorePolicy, TrainStats
    from lora_mcu.session.guard import Guard

AfterEpoch = Callable[[int, "TrainStats"], None]


@dataclass(frozen=True)
class Fit:
    """What one training did: where the samples were kept, the stats of every epoch, how many the store kept."""

    mode: str  # stored | streamed
    epochs: tuple[TrainStats, ...]
    stored: int = 0

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
    learner: Learner, data: Dataset, settings: Settings, epochs: int, after_epoch: AfterEpoch, base: bool = True,
    policy: StorePolicy | None = None,
) -> Fit:  # fmt: skip
    """Train from the base (or, without ``base``, from the adapter in use) for ``epochs``.

    Samples that fit the store are sent once and the device shuffles them, and so are others under a ``policy`` that
    chooses among them; otherwise every epoch is streamed in the order that the device's own shuffle would have given.
    """
    from lora_mcu.session.shuffle import epoch_order

    if base:
        learner.reset()
    learner.configure(**dataclasses.asdict(settings))
    done: list[TrainStats] = []

    def finished(epoch: int, stats: TrainStats) -> None:
        done.append(stats)
        after_epoch(epoch, stats)

    capacity = learner.info.store_capacity
    chooses = policy is not None and policy.policy != "stop" and capacity > 0
    if len(data) <= capacity or chooses:
        learner.clear_store()
        learner.configure_store(**dataclasses.asdict(policy) if policy is not None else {})
        with progress("send samples", len(data)) as advance:
            learner.store(data.x, data.labels, progress=advance)
        with progress("train", epochs) as advance:

            def stored_epoch(epoch: int, stats: TrainStats) -> None:
                advance(epoch)
                finished(epoch, stats)

            learner.run_epochs(epochs, progress=stored_epoch)
        return Fit("stored", tuple(done), min(len(data), capacity))
    with progress("train", epochs * len(data)) as advance:
        for epoch in range(epochs):
            order = epoch_order(len(data), settings.seed, epoch)
            before = epoch * len(data)

            def sent(n: int, before: int = before) -> None:
                advance(before + n)

            finished(epoch + 1, learner.train(data.x[order], data.labels[order], progress=sent))
    return Fit("streamed", tuple(done))


def go_on(device: Device, data: Dataset, settings: Settings, epochs: int) -> Fit:
    """Go on with a training that was interrupted: the adapter becomes what it would have been without."""
    from lora_mcu.session.going_on import stored_place, streamed_place
    from lora_mcu.session.shuffle import epoch_order

    seen = device.await_run()
    done: list[TrainStats] = []
    stored = len(data) <= device.info.store_capacity
    place = (stored_place if stored else streamed_place)(seen, settings, len(data))
    if place.epochs >= epochs:
        raise DataError(f"{place.epochs} epochs are done, --epochs {epochs} asks for no more: nothing to go on with")
    where = f" and {place.samples} of {len(data)} samples" if place.samples else ""
    say(f"going on after {place.epochs} epochs{where}, {seen.step} steps")
    if stored:
        if place.epochs == 0:
            device.clear_store()
            device.store(data.x, data.labels)
        device.run_epochs(epochs - place.epochs, progress=lambda _, stats: done.append(stats))
        return Fit("stored", tuple(done), len(data))
    with progress("train", epochs * len(data)) as advance:
        for epoch in range(place.epochs, epochs):
            order = epoch_order(len(data), settings.seed, epoch)
            first = place.samples if epoch == place.epochs else 0

            def sent(n: int, before: int = epoch * len(data) + first) -> None:
                advance(before + n)

            train = device.finish_pass if first else device.train
            done.append(train(data.x[order[first:]], data.labels[order[first:]], progress=sent))
    return Fit("streamed", tuple(done))


def _guard(learner: Learner, data: Dataset | None, keep_worse: bool) -> Guard | None:
    if data is None:
        return None
    with progress("evaluate", len(data)) as advance:
        return learner.guard(data.x, data.labels, keep_worse=keep_worse, progress=advance)


def _with_replay(
    data: Dataset, replay: Dataset | None, count: int | None, info: ModelInfo, settings: Settings
) -> Dataset:
    """The data and, by the seed, samples of what was learned before, as many as fit the store beside the data."""
    from lora_mcu.datasets import mix

    if replay is None:
        if count is not None:
            raise DataError("--replay-samples says how many samples of --replay are mixed in: name the file too")
        return data
    room = info.store_capacity - len(data)
    return mix(data, replay, count or min(len(data), room if room > 0 else len(data)), settings.seed)


def _refuse_divergence(result: Fit, way_out: str, guard: Guard | None = None) -> None:
    if result.diverged:
        if guard is not None:
            guard.restore()
            way_out = "the adapter before is in use again"
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
        offered = "" if result.stored == samples else f" of {samples}"
        say(f"{result.stored}{offered} samples kept in the store of {info.board} ({info.store_capacity} fit), "
            "epochs run there")  # fmt: skip
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
    continue_: Annotated[
        bool, typer.Option("--continue", help="Go on with a training of these settings that was interrupted.")
    ] = False,
    held_out: options.Eval = None,
    keep_worse: options.KeepWorse = False,
    replay: options.Replay = None,
    replay_samples: options.ReplaySamples = None,
    store_policy: options.StorePolicy = "stop",
    balance: options.Balance = False,
    output: options.Save = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Train the adapter on a device. Nothing is written on this computer unless -o is given.

    With --eval an adapter that is worse than the base or the one before is not kept.
    """
    import lora_mcu
    from lora_mcu.datasets import load_npz
    from lora_mcu.session import Settings, StorePolicy

    one_place(port, emulate)
    if continue_ and (port is None or resume or held_out or replay or store_policy != "stop"):
        raise typer.BadParameter("--continue goes with --port, and without --resume, --eval, --replay, --store-policy")
    if output is not None:
        refuse_existing(output, force)
    settings = Settings(lr, lr_b_ratio, momentum, weight_decay, clip_norm, batch_size, rounding, seed)
    policy = StorePolicy(store_policy, balance)
    samples, judged, known = (load_npz(file) if file else None for file in (data, held_out, replay))
    assert samples is not None
    info = lora_mcu.load_project(project).info
    check_fits(info, samples, judged, known)
    samples = _with_replay(samples, known, replay_samples, info, settings)
    kept = "the emulated device and its adapter are gone" if emulate else (
        "the device keeps the adapter of its last executed step; `lora-mcu adapter reset` restores the base"
    )  # fmt: skip
    try:
        with open_learner(project, port, emulate, emulator) as learner:
            guard = _guard(learner, judged, keep_worse)
            if continue_:
                result = go_on(cast("Device", learner), samples, settings, epochs)
            else:
                result = fit(learner, samples, settings, epochs, lambda epoch, stats: None, not resume, policy)
            _refuse_divergence(result, kept, guard)
            reason = guard.judge() if guard else ""
            if output is not None and (not reason or keep_worse):
                _save(output, learner.adapter(), _record(learner, settings, result, samples), force)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped: {kept}") from None
    if json_:
        emit({"base": guard and guard.base, "before": guard and guard.before, "after": guard and guard.after,
              "kept": not reason or keep_worse, "mode": result.mode, "steps": result.steps, "skipped": result.skipped,
              "epochs": result.epochs})  # fmt: skip
    else:
        _line("before", guard.before if guard else None)
        _line("base", guard.base if guard and guard.base != guard.before else None)
        _show_fit(result, info, len(samples))
        _line("after", guard.after if guard else None)
    if guard:
        guard.refuse(reason)
    if output is not None and not json_:
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
    keep_worse: options.KeepWorse = False,
    replay: options.Replay = None,
    replay_samples: options.ReplaySamples = None,
    store_policy: options.StorePolicy = "stop",
    balance: options.Balance = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every epoch of every seed here.", show_default=False)
    ] = None,
    output: options.Save = None,
    force: options.Force = False,
    json_: options.Json = False,
) -> None:
    """Train on the twin: the project's C on this computer, the adapter bytes that the board would make.

    With --eval the exit code is 1 where `train` would not keep the adapter, and -o then writes nothing.
    """
    import lora_mcu
    from lora_mcu.datasets import load_npz
    from lora_mcu.session import Settings, StorePolicy

    for path in (csv_file, output):
        if path is not None:
            refuse_existing(path, force)
    settings = Settings(lr, lr_b_ratio, momentum, weight_decay, clip_norm, batch_size, rounding, seed)
    policy = StorePolicy(store_policy, balance)
    given, judged, known = (load_npz(file) if file else None for file in (data, held_out, replay))
    assert given is not None
    compiled = lora_mcu.load_project(project)
    check_fits(compiled.info, given, judged, known)
    twin = compiled.twin()
    before = None
    rows: list[list[Any]] = []
    runs: list[tuple[int, Fit, EvalStats | None]] = []
    refused: dict[int, str] = {}
    for one in range(seed, seed + seeds):

        def after_epoch(epoch: int, stats: TrainStats, one: int = one) -> None:
            held = twin.evaluate(judged.x, judged.labels) if judged and csv_file else None
            rows.append([one, epoch, stats.loss, stats.accuracy, stats.steps, stats.skipped]
                        + ([held.loss, held.accuracy] if held else []))  # fmt: skip

        chosen = dataclasses.replace(settings, seed=one)
        samples = _with_replay(given, known, replay_samples, compiled.info, chosen)
        twin.reset()
        guard = _guard(twin, judged, keep_worse=True)
        result = fit(twin, samples, chosen, epochs, after_epoch, policy=policy)
        _refuse_divergence(result, f"seed {one}")
        if guard and (reason := guard.judge()) and not keep_worse:
            refused[one] = reason
        before = guard.before if guard else None
        runs.append((one, result, guard.after if guard else None))
        if output is not None and one == seed and one not in refused:
            _save(output, twin.adapter(), _record(twin, chosen, result, samples), force)
    if csv_file is not None:
        write_whole(csv_file, _csv(rows, judged is not None), force)
    if json_:
        emit({"before": before, "seeds": [{"seed": s, "mode": r.mode, "steps": r.steps, "skipped": r.skipped,
                                          "epochs": r.epochs, "after": a, "kept": s not in refused}
                                         for s, r, a in runs]})  # fmt: skip
    else:
        _show_runs(runs, before, twin.info, len(samples))
    if refused:
        raise GuardError("; ".join(f"seed {s}: {reason}" for s, reason in refused.items())
                         + ": `train` would not keep that adapter (--keep-worse does)")  # fmt: skip
    for path in (csv_file, output):
        if path is not None and not json_:
            say(f"wrote {path}")


def _show_runs(
    runs: list[tuple[int, Fit, EvalStats | None]], before: EvalStats | None, info: ModelInfo, samples: int
) -> None:
    _line("before", before)
    for one, result, after in runs:
        if len(runs) > 1:
            say(f"seed {one}")
        _show_fit(result, info, samples)
        _line("after", after)
    accuracies = [after.accuracy for _, _, after in runs if after]
    if len(accuracies) > 1:
        mean = sum(accuracies) / len(accuracies)
        span = f"from {percent(min(accuracies))} to {percent(max(accuracies))}"
        say(f"{len(runs)} seeds: accuracy {percent(mean)} ({span})")


def _csv(rows: list[list[Any]], judged: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", "epoch", "loss", "accuracy", "steps", "skipped"]
                    + (["eval_loss", "eval_accuracy"] if judged else []))  # fmt: skip
    writer.writerows(rows)
    return text.getvalue().encode()

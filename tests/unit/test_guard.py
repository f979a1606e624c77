# SPDX-License-Identifier: Apache-2.0
"""The guard around training, figures of forgetting, replay: API and command line, on the twin and the demo's data."""

from __future__ import annotations

import io
import json
import math
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import lora_mcu
from lora_mcu.cli import main
from lora_mcu.datasets import Dataset, load_npz, mix
from lora_mcu.errors import DataError, GuardError
from lora_mcu.forgetting import Forgetting, forgetting, table
from lora_mcu.session import EvalStats
from lora_mcu.session.guard import refusal, worse
from lora_mcu.twin import Twin

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"
CHANCE = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as `mine`; one person's data.npz and held_out.npz; base.npz, others.npz at the old angle."""
    made = tmp_path_factory.mktemp("guard")
    lora_mcu.compile(HAR, board="netduinoplus2", adapt="all", momentum=False).write(made / "mine")  # 120 samples fit
    with np.load(HAR.with_suffix(".npz"), allow_pickle=False) as d:
        mine, old = d["subject"] == 5, d["base_subject"] == 5
        train = np.concatenate([np.flatnonzero(mine & (d["part"] == 0) & (d["y"] == c))[:10] for c in range(6)])
        test = np.flatnonzero(mine & (d["part"] == 1))[::2]
        np.savez(made / "data.npz", x=d["x"][train], y=d["y"][train])
        np.savez(made / "held_out.npz", x=d["x"][test], y=d["y"][test])
        np.savez(made / "base.npz", x=d["base_x"][old], y=d["base_y"][old])
        np.savez(made / "others.npz", x=d["base_x"][~old], y=d["base_y"][~old])
    return made


def loaded(folder: Path, name: str) -> Dataset:
    return load_npz(folder / f"{name}.npz")


def tuned(folder: Path, epochs: int = 20) -> Twin:
    twin = lora_mcu.load_project(folder / "mine").twin()
    data = loaded(folder, "data")
    twin.configure(lr=0.02, seed=0)
    twin.store(data.x, data.labels)
    twin.run_epochs(epochs)
    return twin


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command line."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["lora-mcu", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


# ---- what is worse ----


@pytest.mark.parametrize(
    ("a", "b", "is_worse"),
    [
        (EvalStats(1.0, 0.9), EvalStats(0.1, 0.9), False),
        (EvalStats(0.1, 0.89), EvalStats(1.0, 0.9), True),
        (EvalStats(0.5, math.nan), EvalStats(0.4, math.nan), True),
        (EvalStats(0.4, math.nan), EvalStats(0.4, math.nan), False),
        (EvalStats(math.nan, math.nan), EvalStats(0.4, math.nan), True),
        (EvalStats(math.inf, math.nan), EvalStats(0.4, math.nan), True),
    ],
)
def test_worse(a: EvalStats, b: EvalStats, is_worse: bool) -> None:
    assert worse(a, b) is is_worse
    assert bool(refusal(a, b, b)) is is_worse


def test_a_better_adapter_is_kept(folder: Path) -> None:
    twin, held = lora_mcu.load_project(folder / "mine").twin(), loaded(folder, "held_out")
    data = loaded(folder, "data")
    with twin.guard(held.x, held.labels) as guard:
        twin.configure(lr=0.02, seed=0)
        twin.store(data.x, data.labels)
        twin.run_epochs(20)
        factors = twin._read_factors()
    assert twin._read_factors() == factors
    assert guard.base == guard.before and guard.before.accuracy < CHANCE < 0.8 < guard.after.accuracy


@pytest.mark.parametrize("keep", [False, True])
def test_a_worse_adapter_gives_way_to_the_one_before(folder: Path, keep: bool) -> None:
    twin, held = tuned(folder), loaded(folder, "held_out")
    before = twin._read_factors()
    guard = twin.guard(held.x, held.labels, keep_worse=keep)
    assert twin._read_factors() == before, "the base was looked at and the adapter is in use again"
    assert guard.base.accuracy < CHANCE < guard.before.accuracy

    def spoil() -> None:
        with guard:
            twin.configure(lr=0.5, seed=1)
            twin.run_epochs(3)

    if keep:
        spoil()
        assert twin._read_factors() != before and guard.after.accuracy < guard.before.accuracy
    else:
        with pytest.raises(GuardError, match=r"held-out accuracy \d+\.\d %, the .* has \d+\.\d %; it was not kept"):
            spoil()
        assert twin._read_factors() == before


def test_an_error_inside_is_not_hidden(folder: Path) -> None:
    twin, held = tuned(folder, 1), loaded(folder, "held_out")
    with pytest.raises(ZeroDivisionError), twin.guard(held.x, held.labels):
        raise ZeroDivisionError


# ---- the command line ----


def simulate(folder: Path, *more: object) -> tuple[int, str, str]:
    return run("simulate", folder / "mine", folder / "data.npz", "--eval", folder / "held_out.npz", *more)


def test_simulate_says_what_train_would_not_keep(folder: Path, tmp_path: Path) -> None:
    bad = ("--epochs", 1, "--lr", 0.3)
    code, out, err = simulate(folder, *bad, "-o", tmp_path / "a")
    assert (code, "after " in out) == (1, True) and "the base has" in err and "--keep-worse" in err
    assert not (tmp_path / "a").exists()
    code, out, _ = simulate(folder, *bad, "-o", tmp_path / "a", "--keep-worse")
    assert code == 0 and f"wrote {tmp_path / 'a'}" in out and (tmp_path / "a").is_dir()
    code, out, err = simulate(folder, *bad, "--json")
    assert code == 1 and [s["kept"] for s in json.loads(out)["seeds"]] == [False]


def test_store_policy_and_replay_on_the_command_line(folder: Path) -> None:
    code, out, _ = simulate(folder, "--epochs", 3, "--lr", 0.02, "--replay", folder / "others.npz")
    assert code == 0 and "120 samples kept in the store of netduinoplus2" in out
    more = ("--replay", folder / "others.npz", "--replay-samples", 200, "--store-policy", "reservoir", "--balance")
    code, out, _ = simulate(folder, "--epochs", 3, "--lr", 0.02, *more)
    capacity = lora_mcu.load_project(folder / "mine").info.store_capacity
    assert code == 0 and f"{capacity} of 260 samples kept" in out
    for arguments, says in (
        (("--replay-samples", 3), "name the file too"),
        (("--balance",), "use it with ring or reservoir"),
        (("--store-policy", "heap"), "use one of stop, ring, reservoir"),
        (("--replay", folder / "others.npz", "--replay-samples", 1000), "the file holds 300"),
    ):
        code, _, err = simulate(folder, *arguments)
        assert code == 1 and says in err


def test_eval_reports_forgetting_and_replay_reduces_it(folder: Path, tmp_path: Path) -> None:
    lost = {}
    for name, more in (("alone", ()), ("replay", ("--replay", folder / "others.npz"))):
        assert simulate(folder, "--epochs", 60, "--lr", 0.02, "-o", tmp_path / name, *more)[0] == 0
        command = ("eval", folder / "mine", folder / "held_out.npz", "--twin", "--adapter", tmp_path / name)
        code, out, _ = run(*command, "--retain", folder / "base.npz", "--json")
        found = json.loads(out)
        assert code == 0 and found["accuracy"] == found["table"][1][1] > 0.85
        a = found["table"]
        assert found["retained"] == {"forgetting": a[0][0] - a[1][0], "backward_transfer": a[1][0] - a[0][0]}
        lost[name] = a[0][0] - a[1][0]
        code, out, _ = run(*command, "--retain", folder / "base.npz")
        assert f"average forgetting {100 * lost[name]:.1f} points" in out
    assert lost["alone"] > 0.1 and lost["replay"] < 0.5 * lost["alone"]


def test_retain_needs_an_adapter_for_each_task(folder: Path) -> None:
    base = folder / "base.npz"
    code, _, err = run("eval", folder / "mine", folder / "data.npz", "--twin", "--retain", base, "--retain", base)
    assert code == 1 and "3 data sets go with the base and 2 adapters" in err


# ---- figures ----


def test_forgetting_of_two_and_three_tasks() -> None:
    assert forgetting([[0.75, 0.25], [0.5, 1.0]]) == Forgetting(0.25, -0.25)
    """Task 0 was best after task 1 (0.75 -> 0.5); task 1 rose from 0.5 to 0.625 when task 2 was learned."""
    a = [[0.5, 0.1, 0.0], [0.75, 0.5, 0.0], [0.5, 0.625, 1.0]]
    assert forgetting(a) == Forgetting((0.25 - 0.125) / 2, (0.0 + 0.125) / 2)


@pytest.mark.parametrize("a", [[[1.0]], [[1.0, 0.5]], [[1.0, math.nan], [0.0, 1.0]], 3.0])
def test_forgetting_refuses(a: Any) -> None:
    with pytest.raises(DataError, match="T >= 2 tasks"):
        forgetting(a)


def test_dropping_the_adapter_gives_the_base_bit_for_bit(folder: Path) -> None:
    base, held = loaded(folder, "base"), loaded(folder, "held_out")
    outputs = lora_mcu.load_project(folder / "mine").twin().infer(base.x)
    twin = tuned(folder)
    used = twin.adapter()
    assert not np.array_equal(twin.infer(base.x), outputs)
    rows = table(twin, [base, held], [used])
    assert twin.adapter() == used, "the adapter in use is in use again"
    twin.reset()
    assert np.array_equal(twin.infer(base.x), outputs)
    assert rows[0] == [twin.evaluate(d.x, d.labels).accuracy for d in (base, held)]


def test_mix_takes_classes_evenly_and_by_the_seed(folder: Path) -> None:
    data, known = loaded(folder, "data"), loaded(folder, "others")
    mixed = mix(data, known, 30, 4)
    assert len(mixed) == 90 and np.array_equal(mixed.x[:60], data.x)
    assert np.bincount(mixed.labels[60:].astype(int), minlength=6).tolist() == [5] * 6
    again, other = mix(data, known, 30, 4), mix(data, known, 30, 5)
    assert np.array_equal(mixed.x, again.x) and not np.array_equal(mixed.x, other.x)
    with pytest.raises(DataError, match="both must be alike"):
        mix(data, Dataset(known.x.astype(np.float32), known.y), 3, 0)


def test_an_adapter_of_the_other_mode_is_named(folder: Path, tmp_path: Path) -> None:
    assert simulate(folder, "--epochs", 30, "--lr", 0.02, "-o", tmp_path / "mine")[0] == 0
    command = ("eval", folder / "mine", folder / "held_out.npz", "--twin", "--adapter", tmp_path / "mine")
    _, found, err = run(*command)
    assert "numerics mode" not in err
    record = tmp_path / "mine" / "training.json"
    record.write_text(record.read_text().replace('"numerics": "i16"', '"numerics": "f32"'))
    code, again, err = run(*command)
    assert code == 0 and again == found and "was trained in numerics mode f32, this is i16" in err


@pytest.mark.parametrize(
    "record",
    [b"", b"\xff", b"[", b"[1]", b"[" * 100_000, b'{"numerics": 5}', b'{"numerics": "\x1b[2J"}',
     b'{"numerics": ["f32"]}', None],
)  # fmt: skip
def test_a_hostile_record_is_no_reason_to_refuse(record: bytes | None, folder: Path, tmp_path: Path) -> None:
    adapter = lora_mcu.load_project(folder / "mine").twin().adapter()
    adapter.save(tmp_path / "mine")
    path = tmp_path / "mine" / "training.json"
    if record is None:
        path.mkdir()
    else:
        path.write_bytes(record)
    code, out, err = run("eval", folder / "mine", folder / "held_out.npz", "--twin", "--adapter", tmp_path / "mine")
    assert code == 0 and "65 samples" in out and "numerics mode" not in err

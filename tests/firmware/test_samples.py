# SPDX-License-Identifier: Apache-2.0
"""The sample store's policies against a model of them in Python, record by record; held-out samples; the guard."""

from __future__ import annotations

import ctypes
import dataclasses
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.odd_models import odd_regression

import lora_mcu
from lora_mcu.errors import DataError, DeviceError
from lora_mcu.program import Program
from lora_mcu.random_bits import STREAM_STORE, rand
from lora_mcu.session import StorePolicy
from lora_mcu.session.shuffle import epoch_order
from lora_mcu.twin import Twin, _Stats

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"
CAPACITY, SEED = 20, 77
WORSE, STORE_EMPTY = 26, 9


@cache
def _program() -> Program:
    """The demo model with a store of 20 samples: the tests fill it many times over."""
    program = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:2", cache="off")
    info = dataclasses.replace(program.info, store_capacity=CAPACITY)
    return dataclasses.replace(program, info=info)


def _twin(**policy: Any) -> Twin:
    twin = _program().twin()
    twin.configure(seed=SEED)
    twin.configure_store(**policy)
    return twin


def _stream(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Windows that carry their number in the first bytes; classes far from equally often."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (count, 128, 6)).astype(np.int8)
    x.reshape(count, -1)[:, :2] = np.arange(count, dtype="<i2").view(np.int8).reshape(count, 2)
    return x, rng.choice(6, count, p=[0.6, 0.2, 0.1, 0.06, 0.03, 0.01])


def _records(twin: Twin) -> list[tuple[int, int, bool]]:
    """(number, class, held out) of every stored sample, in order."""
    size, stored = twin.info.record_bytes, twin.stored
    raw = ctypes.create_string_buffer(max(1, size * stored))
    twin._run("records", raw)
    found = np.frombuffer(raw.raw, np.uint8)[: size * stored].reshape(stored, size)
    tags = found[:, 768:772].copy().view("<u4").ravel()
    return [(int(n), int(t & 0xFFFFFF), bool(t >> 24 & 1))
            for n, t in zip(found[:, :2].copy().view("<i2").ravel(), tags, strict=True)]  # fmt: skip


class Model:
    """The policies as docs/data.md states them."""

    def __init__(self, policy: StorePolicy) -> None:
        self.policy, self.kept, self.n = policy, list[tuple[int, int, bool]](), 0
        self.seen, self.full = Counter[int](), set[int]()

    def draw(self, i: int, bound: int) -> int:
        return int(rand(SEED, STREAM_STORE, self.n, i)[0]) * bound >> 32

    def of(self, c: int) -> list[int]:
        return [i for i, (_, label, _) in enumerate(self.kept) if label == c]

    def victim(self, c: int) -> int | None:
        largest = max(range(6), key=lambda k: (len(self.of(k)), -k))
        if self.policy.policy == "ring":
            return self.of(largest)[0] if self.policy.balance else 0
        if not self.policy.balance:
            j = self.draw(0, self.n + 1)
            return j if j < CAPACITY else None
        self.full.add(largest)
        if c not in self.full:
            return self.of(largest)[self.draw(0, len(self.of(largest)))]
        if self.draw(0, self.seen[c]) >= len(self.of(c)):
            return None
        return self.of(c)[self.draw(1, len(self.of(c)))]

    def offer(self, number: int, c: int) -> None:
        self.seen[c] += 1
        held = bool(self.policy.hold_out) and self.n % self.policy.hold_out == self.policy.hold_out - 1
        if len(self.kept) < CAPACITY:
            self.kept.append((number, c, held))
        elif (victim := self.victim(c)) is not None:
            del self.kept[victim]
            self.kept.append((number, c, held))
        self.n += 1


@pytest.mark.parametrize("hold_out", [0, 4])
@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("policy", ["ring", "reservoir"])
def test_every_record_is_the_models(policy: str, balance: bool, hold_out: int) -> None:
    model = Model(StorePolicy(policy, balance, hold_out))
    twin = _twin(policy=policy, balance=balance, hold_out=hold_out)
    x, y = _stream(200)
    for at in range(0, 200, 10):
        twin.store(x[at : at + 10], y[at : at + 10])
        for i in range(at, at + 10):
            model.offer(i, int(y[i]))
        assert _records(twin) == model.kept, at
    state = twin.store_state()
    assert (state.stored, state.seen) == (CAPACITY, 200)
    assert state.held_out == sum(held for *_, held in model.kept) and (state.held_out > 0) == (hold_out > 0)
    classes = Counter(c for _, c, _ in model.kept)
    if balance:
        assert min(classes[c] for c in (0, 1, 2, 3)) >= 3 and max(classes.values()) <= 8, classes
    else:
        assert classes[0] > 8, classes


def test_a_reservoir_is_a_fair_draw() -> None:
    """60 samples into 20 places, 150 times: each is kept a third of the time (3.3 standard deviations)."""
    x, y = _stream(60)
    twin = _twin(policy="reservoir")
    kept = np.zeros(60)
    for seed in range(150):
        twin.clear_store()
        twin.configure(seed=seed)
        twin.store(x, y)
        kept[[n for n, *_ in _records(twin)]] += 1
    assert kept.sum() == 150 * CAPACITY and np.abs(kept / 150 - 1 / 3).max() < 3.6 * np.sqrt(2 / 9 / 150)


def test_stop_refuses_what_does_not_fit_and_stores_nothing_of_it() -> None:
    twin = _twin()
    x, y = _stream(30)
    with pytest.raises(DataError, match="30 samples do not fit: the store holds 20, 0 of them used"):
        twin.store(x, y)
    twin.store(x[:20], y[:20])
    with pytest.raises(DeviceError, match="STORE_FULL"):
        twin._store_sample(x[0].tobytes(), bytes(4))
    assert [n for n, *_ in _records(twin)] == list(range(20))
    twin.clear_store()
    assert twin.store_state() == dataclasses.replace(twin.store_state(), stored=0, seen=0, held_out=0)


def test_epochs_leave_out_what_is_held_out() -> None:
    """As a stream of the others in the order that the shuffle gives."""
    x, y = _stream(20)
    twin, other = _twin(hold_out=5), _twin()
    settings: dict[str, Any] = {"lr": 0.02, "batch_size": 4, "seed": 3}
    twin.configure(**settings)
    twin.store(x, y)
    trained = [i for i in range(20) if i % 5 != 4]
    assert [n for n, _, held in _records(twin) if not held] == trained
    stats = twin.run_epochs(3)
    other.configure(**settings)
    for epoch in range(3):
        order = epoch_order(len(trained), 3, epoch)
        other.train(x[trained][order], y[trained][order])
    assert twin._read_factors() == other._read_factors() and stats.steps == 12
    held = _Stats()
    twin._run("evaluate_held_out", ctypes.byref(held))
    expected = other.evaluate(x[4::5], y[4::5])
    assert (held.samples, held.loss_sum / held.samples) == (4, pytest.approx(expected.loss, rel=1e-6))


def test_nothing_to_train_on_is_said() -> None:
    twin = _twin(hold_out=2)
    x, y = _stream(2)
    twin.store(x[:1], y[:1])
    twin.run_epochs(1)
    twin.clear_store()
    with pytest.raises(DataError, match="no samples are stored: store"):
        twin.run_epochs(1)
    with pytest.raises(DeviceError, match="STORE_EMPTY"):
        twin._run("run_epoch", ctypes.byref(_Stats()))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"policy": "heap"}, "use one of stop, ring, reservoir"),
        ({"balance": True}, "use it with ring or reservoir"),
        ({"hold_out": 1}, "0 \\(none\\) or a whole number from 2"),
        ({"hold_out": -1}, "0 \\(none\\) or a whole number from 2"),
    ],
)
def test_policies_that_are_none(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        _twin(**policy)


def test_a_regression_has_no_classes_to_balance(tmp_path: Path) -> None:
    path = tmp_path / "odd.tflite"
    path.write_bytes(odd_regression())
    twin = lora_mcu.compile(path, board="native", adapt="all", loss="mse").twin()
    with pytest.raises(DataError, match="balance needs class labels"):
        twin.configure_store(policy="ring", balance=True)
    with pytest.raises(DeviceError, match="BAD_ARGUMENT"):
        twin._store_policy(StorePolicy("ring", True))


# ---- the guard on the device ----


class _Guard(ctypes.Structure):
    _fields_ = (("saved", ctypes.c_void_p), ("base", _Stats), ("before", _Stats), ("after", _Stats))


def _person() -> tuple[Any, Any]:
    with np.load(HAR.with_suffix(".npz"), allow_pickle=False) as data:
        mine = np.flatnonzero((data["subject"] == 5) & (data["part"] == 0))[::6]
        return data["x"][mine], data["y"][mine]


def _guarded(lr: float, epochs: int) -> tuple[int, _Guard, bytes, bytes, bytes]:
    twin = lora_mcu.compile(HAR, board="netduinoplus2", adapt="all").twin()
    twin.configure_store(hold_out=3)
    twin.store(*_person())
    twin.configure(lr=0.02, batch_size=8, seed=1)
    twin.run_epochs(30)
    before = twin._read_factors()
    saved = (ctypes.c_uint16 * twin.info.parameters)()
    guard = _Guard()
    twin._run("guard_begin", ctypes.byref(guard), saved)
    assert twin._read_factors() == before, "looking at the base changes nothing"
    twin.configure(lr=lr, batch_size=8, seed=2)
    twin.run_epochs(epochs)
    trained = twin._read_factors()
    status = twin._lib.twin_guard_end(ctypes.byref(guard))
    return status, guard, before, trained, twin._read_factors()


def test_the_guard_keeps_what_is_better() -> None:
    status, guard, before, trained, now = _guarded(0.01, 20)
    assert status == 0 and now == trained != before
    assert guard.base.correct < guard.before.correct <= guard.after.correct


def test_the_guard_restores_the_adapter_before_where_the_new_one_is_worse() -> None:
    status, guard, before, trained, now = _guarded(3.0, 2)
    assert status == WORSE and now == before != trained
    assert guard.after.correct < guard.before.correct
    assert guard.base.samples == guard.before.samples == guard.after.samples > 5


def test_the_guard_needs_samples_to_judge_by() -> None:
    twin = _twin()
    twin.store(*_stream(4))
    saved = (ctypes.c_uint16 * twin.info.parameters)()
    assert twin._lib.twin_guard_begin(ctypes.byref(_Guard()), saved) == STORE_EMPTY

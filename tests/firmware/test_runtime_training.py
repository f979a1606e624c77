# SPDX-License-Identifier: Apache-2.0
"""The training core on a hand-written one-layer model: updates equal to NumPy in every byte, states, refusals."""

from __future__ import annotations

import ctypes
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_mcu import resources

HERE = Path(__file__).parent
RUNTIME = ("train", "samples", "guard", "sgd", "loss", "selftest", "lmcu_math", "crc32", "dense", "lora", "matvec",
           "patch")  # fmt: skip
OK, BAD_LENGTH, BAD_ARGUMENT, BAD_LABEL, STORE_FULL, STORE_EMPTY, BUSY = 0, 4, 5, 6, 8, 9, 10
NOT_FINITE, BAD_CRC, FLOAT_ENV, NO_ADAPTERS, NO_TRANSFER = 11, 14, 15, 17, 18
INPUTS, OUTPUTS, RANK, CAPACITY = 6, 5, 2, 9
A_COUNT, PARAMS = RANK * INPUTS, RANK * (INPUTS + OUTPUTS)
F = np.float32
Array = np.ndarray[Any, np.dtype[Any]]


class Settings(ctypes.Structure):
    _fields_ = [(n, ctypes.c_float) for n in ("lr", "lr_b_ratio", "momentum", "weight_decay", "clip_norm")]
    _fields_ += [(n, ctypes.c_uint32) for n in ("batch_size", "seed", "rounding")]


class Stats(ctypes.Structure):
    _fields_ = [("loss_sum", ctypes.c_float)]
    _fields_ += [(n, ctypes.c_uint32) for n in ("samples", "correct", "steps", "skipped")]


class Context(ctypes.Structure):
    _fields_ = [("settings", Settings), ("pass_", Stats), ("epoch", Stats)]
    _fields_ += [(n, ctypes.c_uint32) for n in (
        "step", "total_steps", "batch_fill", "epoch_index", "run_epochs_left", "run_position", "run_steps",
        "run_skipped", "stored", "float_ok", "transfer_open", "transfer_received")]  # fmt: skip


class Label(ctypes.Union):
    _fields_ = [("class_index", ctypes.c_uint32), ("target", ctypes.c_void_p)]


@dataclass
class Core:
    """The library, and views of its memory."""

    lib: ctypes.CDLL
    context: Context
    factors: Array
    gradients: Array
    momentum: Array
    order: Array
    input: Array

    def stage(self, x: Array) -> None:
        self.input[:] = x

    def train(self, x: Array, label: int) -> int:
        self.stage(x)
        return int(self.lib.lmcu_train_sample(Label(class_index=label)))

    def configure(self, **changes: float) -> int:
        values = {"lr": 0.01, "lr_b_ratio": 1.0, "batch_size": 8} | changes
        return int(self.lib.lmcu_configure(ctypes.byref(Settings(**values))))

    def send(self, data: bytes, chunk: int = 7) -> int:
        assert self.lib.lmcu_adapter_begin() == OK
        for i in range(0, len(data), chunk):
            piece = data[i : i + chunk]
            assert self.lib.lmcu_adapter_data(i, piece, len(piece)) == OK
        return int(self.lib.lmcu_adapter_commit(zlib.crc32(data)))

    def store(self, n: int) -> None:
        for x, label in samples(n):
            self.stage(x)
            assert self.lib.lmcu_store_sample(Label(class_index=label)) == OK

    def run_epochs(self, epochs: int) -> None:
        assert self.lib.lmcu_run_begin(epochs) == OK
        while self.lib.lmcu_run_poll():
            pass


Build = Callable[..., Core]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    runtime = resources.path("firmware") / "runtime"
    flags = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
             "-fsanitize=undefined", "-fno-sanitize-recover=all"]  # fmt: skip

    def make(*defines: str) -> Core:
        out = tmp_path_factory.mktemp("core") / "core.so"
        sources = [str(runtime / f"{name}.c") for name in RUNTIME] + [str(HERE / "tiny_model.c")]
        subprocess.run(["gcc", *flags, *defines, f"-I{runtime}", *sources, "-o", str(out)], check=True, timeout=120)
        lib = ctypes.CDLL(str(out))
        lib.lmcu_run_poll.restype = lib.lmcu_update.restype = ctypes.c_bool
        lib.lmcu_adapter_crc32.restype = ctypes.c_uint32

        def view(name: str, ctype: Any, count: int, dtype: str) -> Array:
            return np.frombuffer((ctype * count).in_dll(lib, name), dtype)

        pointer = ctypes.c_void_p.in_dll(lib, "tiny_input").value
        assert pointer is not None
        return Core(
            lib=lib,
            context=Context.in_dll(lib, "lmcu_context"),
            factors=view("tiny_factors", ctypes.c_uint16, PARAMS, "<f2"),
            gradients=view("tiny_gradients", ctypes.c_float, PARAMS, "<f4"),
            momentum=view("tiny_momentum", ctypes.c_float, PARAMS, "<f4"),
            order=view("tiny_order", ctypes.c_uint16, CAPACITY, "<u2"),
            input=np.frombuffer((ctypes.c_int8 * INPUTS).from_address(pointer), np.int8),
        )

    return make


@pytest.fixture(scope="module")
def shared(build: Build) -> Core:
    return build()


@pytest.fixture
def core(shared: Core) -> Iterator[Core]:
    assert shared.lib.lmcu_init() == OK
    yield shared


def samples(n: int) -> list[tuple[Array, int]]:
    rng = np.random.default_rng(3)
    return [(rng.integers(-128, 128, INPUTS).astype(np.int8), int(rng.integers(OUTPUTS))) for _ in range(n)]


def bits(core: Core) -> bytes:
    return core.factors.tobytes()


# ---- settings ----


def test_boot_state(core: Core) -> None:
    s = core.context.settings
    assert [F(0.01), 1.0, 0.0, 0.0, 0.0, 8, 0, 0] == [s.lr, s.lr_b_ratio, s.momentum, s.weight_decay, s.clip_norm,
                                                    s.batch_size, s.seed, s.rounding]  # fmt: skip
    assert core.context.float_ok == 1
    assert not core.factors[A_COUNT:].any()
    assert core.factors[:A_COUNT].all()


@pytest.mark.parametrize(
    ("change", "status"),
    [({"lr": 0.0}, BAD_ARGUMENT), ({"lr": -1.0}, BAD_ARGUMENT), ({"lr": float("nan")}, NOT_FINITE),
     ({"lr_b_ratio": 0.0}, BAD_ARGUMENT), ({"lr_b_ratio": float("inf")}, NOT_FINITE), ({"momentum": 1.0}, BAD_ARGUMENT),
     ({"momentum": -0.1}, BAD_ARGUMENT), ({"weight_decay": -0.1}, BAD_ARGUMENT), ({"clip_norm": -1.0}, BAD_ARGUMENT),
     ({"batch_size": 0}, BAD_ARGUMENT), ({"rounding": 2}, BAD_ARGUMENT)],
)  # fmt: skip
def test_configure_refuses_and_changes_nothing(core: Core, change: dict[str, float], status: int) -> None:
    before = bytes(core.context)
    assert core.configure(**change) == status
    assert bytes(core.context) == before


def test_configure_keeps_factors_and_zeroes_the_rest(core: Core) -> None:
    core.store(5)
    core.configure(momentum=0.5, batch_size=2)
    core.run_epochs(2)
    kept = bits(core)
    assert core.train(*samples(1)[0]) == OK
    assert (core.context.step, core.context.epoch_index, core.context.batch_fill) == (6, 2, 1)
    assert core.momentum.any()
    assert core.configure(batch_size=3) == OK
    c = core.context
    assert (c.step, c.epoch_index, c.batch_fill, c.total_steps, c.stored) == (0, 0, 0, 6, 5)
    assert not core.momentum.any()
    assert bits(core) == kept


def test_reset_restores_the_base_and_keeps_settings_and_samples(core: Core) -> None:
    base = bits(core)
    core.store(5)
    core.configure(lr=0.5, batch_size=2)
    core.run_epochs(3)
    first = bits(core)
    assert first != base
    core.lib.lmcu_reset()
    assert bits(core) == base
    assert (core.context.settings.lr, core.context.stored, core.context.step) == (0.5, 5, 0)
    core.run_epochs(3)
    assert bits(core) == first


# ---- loss ----


def logits(core: Core, x: Array) -> Array:
    core.stage(x)
    core.lib.lmcu_infer()
    model_output = np.frombuffer((ctypes.c_int8 * OUTPUTS).in_dll(core.lib, "tiny_output"), np.int8)
    return F(0.125) * (model_output.astype(np.float32) + F(4))


def test_cross_entropy_and_accuracy(core: Core) -> None:
    stats, loss, correct = Stats(), 0.0, 0
    for x, label in samples(40):
        z = logits(core, x).astype(np.float64)
        loss += float(np.log(np.exp(z).sum()) - z[label])
        correct += int(np.argmax(z)) == label
        core.stage(x)
        assert core.lib.lmcu_evaluate_sample(Label(class_index=label), ctypes.byref(stats)) == OK
    assert abs(stats.loss_sum / loss - 1) < 1e-5
    assert (stats.samples, stats.correct, stats.steps) == (40, correct, 0)
    assert 0 < correct < 40


def test_gradients_are_those_of_a_straight_through_softmax(core: Core) -> None:
    core.factors[A_COUNT:] = np.linspace(-0.3, 0.3, PARAMS - A_COUNT)
    x, label = samples(3)[2]
    z = logits(core, x).astype(np.float64)
    y = np.round(z / 0.125 - 4)
    g = np.exp(z) / np.exp(z).sum() - (np.arange(OUTPUTS) == label)
    g[((y == 127) & (g < 0)) | ((y == -128) & (g > 0))] = 0
    core.stage(x)
    assert core.lib.lmcu_gradient_sample(Label(class_index=label)) == OK
    a = core.factors[:A_COUNT].astype(np.float64).reshape(RANK, INPUTS)
    b = core.factors[A_COUNT:].astype(np.float64).reshape(OUTPUTS, RANK)
    real = 0.05 * (x.astype(np.float64) - 3)
    np.testing.assert_allclose(core.gradients[A_COUNT:].reshape(OUTPUTS, RANK), 2 * np.outer(g, a @ real), rtol=1e-5)
    np.testing.assert_allclose(core.gradients[:A_COUNT].reshape(RANK, INPUTS), 2 * np.outer(b.T @ g, real), rtol=1e-5)


def test_evaluation_and_inference_change_nothing(core: Core) -> None:
    core.train(*samples(1)[0])
    state, gradients = bytes(core.context) + bits(core), core.gradients.tobytes()
    for x, label in samples(5):
        core.stage(x)
        assert core.lib.lmcu_evaluate_sample(Label(class_index=label), ctypes.byref(Stats())) == OK
        core.lib.lmcu_infer()
    assert bytes(core.context) + bits(core) == state
    assert core.gradients.tobytes() == gradients


# ---- the update ----


def mix(x: Array) -> Array:
    x = np.asarray(x, np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def rand(seed: int, stream: int, step: int, index: Array) -> Array:
    inner = mix(np.array([(seed ^ stream * 0x85EBCA6B) & 0xFFFFFFFF]))
    return mix(index.astype(np.uint32) * np.uint32(0x9E3779B9) + mix(np.uint32(step) ^ inner))


def stochastic(values: Array, random: Array) -> Array:
    magnitude = np.minimum(np.abs(values.astype(np.float64)), 65504.0)
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, -14)
    units = np.ldexp(magnitude, 10 - exponent)
    whole = np.floor(units)
    whole += np.floor((units - whole) * 65536) + random >= 65536
    return np.copysign(np.minimum(np.ldexp(whole, exponent - 10), 65504.0), values).astype("<f2")


def updated(p: Array, g: Array, m: Array, s: Settings, step: int, n: int) -> tuple[Array, Array]:
    """One step in NumPy: (factors, momentum)."""
    g = g * (F(1) / F(n))
    squares = F(0)
    for value in g:
        squares = F(squares + F(value * value))
    norm = np.sqrt(squares)
    if s.clip_norm > 0 and norm > F(s.clip_norm):
        g = g * F(F(s.clip_norm) / norm)
    m = F(s.momentum) * m + g
    is_b = np.arange(PARAMS) >= A_COUNT
    lr = np.where(is_b, F(s.lr_b_ratio) * F(s.lr), F(s.lr)).astype(F)
    old = p.astype(F)
    v = (old - lr * m) - (lr * F(s.weight_decay)) * old
    if s.rounding == 1:
        return np.clip(v, -65504, 65504).astype("<f2"), m
    index = np.arange(PARAMS)
    words = rand(s.seed, 1, step, index >> 1)
    return stochastic(v, np.where(index & 1, words >> np.uint32(16), words & np.uint32(0xFFFF)).astype(np.int64)), m


SETTINGS = [
    {"lr": 0.05},
    {"lr": 0.05, "rounding": 1},
    {"lr": 0.3, "lr_b_ratio": 7.0, "momentum": 0.9, "weight_decay": 0.05, "seed": 0xDEADBEEF},
    {"lr": 0.3, "momentum": 0.5, "clip_norm": 0.7, "rounding": 1},
    {"lr": 1e5, "seed": 4},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_update_equals_numpy_bit_for_bit(core: Core, settings: dict[str, float]) -> None:
    rng = np.random.default_rng(12)
    assert core.configure(**settings) == OK
    core.factors[:] = rng.normal(0, 0.1, PARAMS) * 10.0 ** rng.integers(-6, 1, PARAMS)
    for step in range(20):
        g = rng.normal(0, 1, PARAMS).astype(F)
        p, m = updated(core.factors.copy(), g, core.momentum.copy(), core.context.settings, step, n=step % 8 + 1)
        core.gradients[:] = g
        assert core.lib.lmcu_update(step % 8 + 1)
        if core.context.settings.momentum or core.context.settings.weight_decay:
            assert core.momentum.tobytes() == m.tobytes()  # else it is multiplied by 0, and not kept
        assert bits(core) == p.tobytes()
        core.context.step += 1


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3e38])
@pytest.mark.parametrize("at", [0, PARAMS - 1])
def test_a_step_that_is_not_finite_is_skipped_whole(core: Core, value: float, at: int) -> None:
    assert core.configure(lr=100.0, momentum=0.9) == OK
    core.momentum[:] = 0.25
    before = bits(core)
    core.gradients[:] = 1.0
    core.gradients[at] = value
    assert not core.lib.lmcu_update(1)
    assert bits(core) == before
    assert (core.momentum == F(0.25)).all()


def test_a_norm_that_overflows_is_skipped_when_clipping(core: Core) -> None:
    assert core.configure(lr=1e-20, clip_norm=1.0) == OK
    core.gradients[:] = 1e20
    assert not core.lib.lmcu_update(1)
    assert core.configure(lr=1e-20) == OK
    core.gradients[:] = 1e20
    assert core.lib.lmcu_update(1)


def test_a_skipped_batch_counts_and_does_not_advance(core: Core) -> None:
    assert core.configure(lr=3e38, lr_b_ratio=1.0, weight_decay=3e38, batch_size=1) == OK
    before = bits(core)
    assert core.lib.lmcu_pass_begin() == OK
    assert core.train(*samples(1)[0]) == OK
    c = core.context
    assert (c.pass_.skipped, c.pass_.steps, c.step, c.total_steps, c.batch_fill) == (1, 0, 0, 0, 0)
    assert bits(core) == before


# ---- batches, passes, epochs ----


def test_partial_batch_is_flushed_with_its_real_size(core: Core) -> None:
    assert core.configure(lr=0.1, batch_size=4) == OK
    assert core.lib.lmcu_pass_begin() == OK
    for x, label in samples(5):
        assert core.train(x, label) == OK
    assert core.context.pass_.steps == 1
    sums = core.gradients.copy()
    want, _ = updated(core.factors.copy(), sums, core.momentum.copy(), core.context.settings, 1, n=1)
    assert core.lib.lmcu_pass_end() == OK
    assert bits(core) == want.tobytes()
    c = core.context
    assert (c.pass_.steps, c.pass_.samples, c.step, c.total_steps, c.batch_fill) == (2, 5, 2, 2, 0)
    assert core.lib.lmcu_pass_end() == OK
    assert c.pass_.steps == 2


def test_batch_gradient_is_the_sum_of_the_samples(core: Core) -> None:
    assert core.configure(batch_size=100) == OK
    core.factors[A_COUNT:] = 0.05
    total = np.zeros(PARAMS, F)
    for x, label in samples(3):
        core.stage(x)
        assert core.lib.lmcu_gradient_sample(Label(class_index=label)) == OK
        total = total + core.gradients
    assert core.context.batch_fill == 0
    for x, label in samples(3):
        assert core.train(x, label) == OK
    assert core.gradients.tobytes() == total.tobytes()


def test_many_epochs_equal_single_ones(core: Core) -> None:
    core.store(7)
    core.configure(lr=0.1, momentum=0.5, batch_size=3, seed=9)
    core.run_epochs(20)
    at_once = bits(core), core.momentum.tobytes(), core.context.step, core.context.epoch.loss_sum
    assert core.context.run_steps == 60
    core.lib.lmcu_reset()
    for _ in range(20):
        core.run_epochs(1)
    assert (bits(core), core.momentum.tobytes(), core.context.step, core.context.epoch.loss_sum) == at_once
    assert core.context.run_steps == 3


def test_shuffle_and_streaming_in_that_order_give_the_same_bytes(core: Core) -> None:
    core.store(CAPACITY)
    core.configure(lr=0.1, batch_size=4, seed=21)
    orders = []
    for epoch in range(3):
        core.run_epochs(1)
        orders.append(core.order.copy())
        want = list(range(CAPACITY))
        words = rand(21, 3, epoch, np.arange(CAPACITY))
        for i in range(CAPACITY - 1, 0, -1):
            j = int(words[i]) * (i + 1) >> 32
            want[i], want[j] = want[j], want[i]
        assert orders[-1].tolist() == want
    assert len({o.tobytes() for o in orders}) == 3
    stored = bits(core)
    core.lib.lmcu_reset()
    data = samples(CAPACITY)
    for order in orders:
        assert core.lib.lmcu_pass_begin() == OK
        for i in order:
            assert core.train(*data[i]) == OK
        assert core.lib.lmcu_pass_end() == OK
    assert bits(core) == stored


def test_loss_falls(core: Core) -> None:
    core.store(6)
    core.configure(lr=0.05, batch_size=2)
    core.run_epochs(1)
    first = core.context.epoch.loss_sum
    core.run_epochs(60)
    assert core.context.epoch.loss_sum < 0.7 * first


def test_stop_drops_the_open_batch(core: Core) -> None:
    core.store(5)
    core.configure(lr=0.1, batch_size=2)
    assert core.lib.lmcu_run_begin(10) == OK
    for _ in range(3):
        assert core.lib.lmcu_run_poll()
    kept = bits(core)
    core.lib.lmcu_run_stop()
    assert not core.lib.lmcu_run_poll()
    c = core.context
    assert (c.run_steps, c.step, c.batch_fill, c.run_epochs_left, c.epoch_index) == (1, 1, 0, 0, 1)
    assert bits(core) == kept


# ---- refusals ----


def test_labels_and_store_limits(core: Core) -> None:
    assert core.lib.lmcu_run_begin(1) == STORE_EMPTY
    assert core.train(samples(1)[0][0], OUTPUTS) == BAD_LABEL
    assert core.lib.lmcu_evaluate_sample(Label(class_index=OUTPUTS), ctypes.byref(Stats())) == BAD_LABEL
    assert core.lib.lmcu_store_sample(Label(class_index=OUTPUTS)) == BAD_LABEL
    core.store(CAPACITY)
    assert core.lib.lmcu_store_sample(Label(class_index=0)) == STORE_FULL
    assert core.lib.lmcu_run_begin(0) == BAD_ARGUMENT
    core.lib.lmcu_store_clear()
    assert core.lib.lmcu_run_begin(1) == STORE_EMPTY


def test_busy_while_a_run_or_a_transfer_is_open(core: Core) -> None:
    core.store(3)
    label, stats = Label(class_index=0), Stats()
    calls = [
        core.lib.lmcu_pass_begin,
        core.lib.lmcu_pass_end,
        lambda: core.lib.lmcu_train_sample(label),
        lambda: core.lib.lmcu_gradient_sample(label),
        lambda: core.lib.lmcu_evaluate_sample(label, ctypes.byref(stats)),
        lambda: core.lib.lmcu_store_sample(label),
        lambda: core.lib.lmcu_run_begin(1),
    ]
    assert core.lib.lmcu_run_begin(2) == OK
    assert [call() for call in calls] == [BUSY] * len(calls)
    assert core.configure() == BUSY
    assert core.lib.lmcu_adapter_begin() == BUSY
    core.lib.lmcu_store_clear()
    assert core.lib.lmcu_pass_begin() == OK
    assert core.lib.lmcu_adapter_begin() == OK
    assert [call() for call in calls] == [BUSY] * len(calls)
    core.lib.lmcu_adapter_abort()
    assert core.lib.lmcu_pass_begin() == OK


def test_a_wrong_float_environment_refuses_training_only(core: Core) -> None:
    core.context.float_ok = 0
    assert core.lib.lmcu_pass_begin() == FLOAT_ENV
    assert core.train(*samples(1)[0]) == FLOAT_ENV
    assert core.lib.lmcu_run_begin(1) == FLOAT_ENV
    core.stage(samples(1)[0][0])
    assert core.lib.lmcu_evaluate_sample(Label(class_index=0), ctypes.byref(Stats())) == OK


def test_without_adapters_training_is_refused(build: Build) -> None:
    core = build("-DTINY_ADAPTERS=0")
    assert core.lib.lmcu_init() == OK
    assert core.lib.lmcu_pass_begin() == NO_ADAPTERS
    assert core.lib.lmcu_adapter_begin() == NO_ADAPTERS
    assert core.train(*samples(1)[0]) == NO_ADAPTERS


# ---- adapter transfer ----


def adapter() -> bytes:
    return np.random.default_rng(17).normal(0, 0.2, PARAMS).astype("<f2").tobytes()


@pytest.mark.parametrize("chunk", [1, 7, 2 * PARAMS])
def test_transfer_replaces_the_factors_at_commit_only(core: Core, chunk: int) -> None:
    core.configure(momentum=0.5, batch_size=1)
    core.train(*samples(1)[0])
    before = bits(core)
    assert core.lib.lmcu_adapter_begin() == OK
    assert core.lib.lmcu_adapter_data(0, adapter(), 10) == OK
    assert bits(core) == before
    assert core.send(adapter(), chunk) == OK
    assert bits(core) == adapter()
    assert core.lib.lmcu_adapter_crc32() == zlib.crc32(adapter())
    assert not core.momentum.any()
    assert (core.context.step, core.context.transfer_open, core.context.total_steps) == (0, 0, 1)


def test_transfer_refusals_keep_the_old_adapter(core: Core) -> None:
    before, data = bits(core), adapter()
    assert core.lib.lmcu_adapter_data(0, data, 4) == NO_TRANSFER
    assert core.lib.lmcu_adapter_commit(0) == NO_TRANSFER
    assert core.lib.lmcu_adapter_begin() == OK
    assert core.lib.lmcu_adapter_data(4, data, 4) == BAD_ARGUMENT
    assert core.lib.lmcu_adapter_data(0, data, len(data) + 1) == BAD_ARGUMENT
    assert core.lib.lmcu_adapter_data(0, data, 4) == OK
    assert core.lib.lmcu_adapter_data(0, data, 4) == BAD_ARGUMENT
    assert core.lib.lmcu_adapter_data(0xFFFFFFFF, data, 4) == BAD_ARGUMENT
    assert core.lib.lmcu_adapter_data(4, data, 0xFFFFFFFE) == BAD_ARGUMENT
    assert core.lib.lmcu_adapter_commit(zlib.crc32(data[:4])) == BAD_LENGTH
    assert core.lib.lmcu_adapter_commit(zlib.crc32(data)) == NO_TRANSFER
    assert core.lib.lmcu_adapter_begin() == OK
    assert core.lib.lmcu_adapter_data(0, data, len(data)) == OK
    assert core.lib.lmcu_adapter_commit(zlib.crc32(data) ^ 1) == BAD_CRC
    for poison in (np.inf, -np.inf, np.nan):
        bad = np.frombuffer(data, "<f2").copy()
        bad[-1] = poison
        assert core.send(bad.tobytes()) == NOT_FINITE
    assert bits(core) == before


@pytest.mark.parametrize("end", ["lmcu_reset", "configure"])
def test_reset_and_configure_forget_a_transfer(core: Core, end: str) -> None:
    assert core.lib.lmcu_adapter_begin() == OK
    assert core.lib.lmcu_adapter_data(0, adapter(), 8) == OK
    assert (core.configure() if end == "configure" else core.lib.lmcu_reset()) is not None
    assert core.lib.lmcu_adapter_data(8, adapter()[8:], 4) == NO_TRANSFER
    assert core.train(*samples(1)[0]) == OK
    assert core.context.batch_fill == 1


# ---- regression ----


def test_mean_squared_error(build: Build) -> None:
    core = build("-DTINY_LOSS=LMCU_LOSS_MSE")
    assert core.lib.lmcu_init() == OK
    target = np.array([0.5, -3.0, 2.25, 10.0, -0.125], F)
    label = Label(target=target.ctypes.data)
    x = samples(1)[0][0]
    y = logits(core, x)
    stats = Stats()
    core.stage(x)
    assert core.lib.lmcu_evaluate_sample(label, ctypes.byref(stats)) == OK
    assert abs(stats.loss_sum / float(((y - target) ** 2).mean()) - 1) < 1e-6
    core.stage(x)
    assert core.lib.lmcu_store_sample(label) == OK
    core.configure(lr=0.005, batch_size=1)
    core.run_epochs(1)
    first = core.context.epoch.loss_sum
    core.run_epochs(40)
    assert core.context.epoch.loss_sum < 0.7 * first
    target[2] = np.nan
    assert core.lib.lmcu_train_sample(label) == BAD_LABEL

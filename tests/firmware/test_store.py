# SPDX-License-Identifier: Apache-2.0
"""The adapter store on a flash that loses power at every operation, and again at every operation of what comes next.

Afterwards the store holds what it held before the cut operation or after it, bit for bit, and the next save works. A
failure prints its case; `run_case(unit, step, cut, ending, second_cut, second_ending)` runs that one again.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from lora_mcu import boards, resources
from lora_mcu.boards import AdapterRegion
from lora_mcu.link.codes import Status

HERE = Path(__file__).resolve().parent
RUNTIME = resources.path("firmware") / "runtime"
SMALL, REAL = 10, 2008  # parameters; the demo's adapter has 2008
ENDINGS = ("untouched", "ecc", "some bits", "seems blank", "done")
SAVE, LOAD, DELETE, DEFAULT, KEEP, RESTORE = range(6)
NEVER = 0xFFFFFFFF
State = tuple[dict[str, int], str, int]  # slots, default, samples
Step = tuple[int, str, int]  # what, name, value
# fills the half several times over: appends and compactions of every kind of change
STEPS: list[Step] = [
    (SAVE, "a", 1), (SAVE, "b", 2), (DEFAULT, "a", 0), (SAVE, "a", 3), (SAVE, "b", 4), (DELETE, "b", 0),
    (DEFAULT, "", 0), (SAVE, "c", 5), (DEFAULT, "c", 0), (SAVE, "a", 6), (SAVE, "b", 7), (DELETE, "c", 0),
    (SAVE, "b", 8), (KEEP, "", 21), (SAVE, "a", 9), (KEEP, "", 22), (DEFAULT, "a", 0), (KEEP, "", 0), (SAVE, "b", 10),
    (KEEP, "", 23), (DELETE, "a", 0), (KEEP, "", 24), (KEEP, "", 25), (SAVE, "b", 11),
]  # fmt: skip


def name16(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


class Store:
    """The store over an emulated flash."""

    def __init__(self, library: ctypes.CDLL, unit: int, half: int) -> None:
        self.c, self.unit, self.half = library, unit, half
        library.emu_samples_value.restype = ctypes.c_uint32
        library.emu_value.restype = library.emu_erases.restype = library.emu_violations.restype = ctypes.c_uint32
        library.lmcu_slot_at.restype = ctypes.c_bool
        library.emu_new(unit, half)
        library.emu_identity(1, 2)

    def run(self, step: Step, cut: int = NEVER, ending: int = 0) -> int:
        """The status, -1: cut."""
        what, name, value = step
        if what == SAVE:
            self.c.emu_factors(value)
        if what == KEEP:
            self.c.emu_samples(value)
        return int(self.c.emu_run(what, name16(name), cut, ending, cut + 7919 * ending + 1))

    def must(self, step: Step) -> None:
        assert self.run(step) == Status.OK, step

    def operations(self, step: Step) -> int:
        """How many the step takes from here; changes nothing."""
        self.c.emu_keep()
        self.must(step)
        self.c.emu_back()
        return int(self.c.emu_operations())

    def names(self) -> list[str]:
        slot = ctypes.create_string_buffer(24)
        found: list[str] = []
        while self.c.lmcu_slot_at(len(found), slot):
            found.append(slot.raw[:16].rstrip(b"\0").decode())
        return found

    def state(self) -> State:
        """What a boot would find: every slot loaded, and the default."""
        slots = {}
        for name in self.names():
            assert self.run((LOAD, name, 0)) == Status.OK, name
            slots[name] = int(self.c.emu_value())
        assert self.c.emu_violations() == 0
        default = ctypes.create_string_buffer(16)
        self.c.lmcu_slot_default(default)
        self.c.emu_forget_samples()
        assert self.run((RESTORE, "", 0)) in (Status.OK, Status.NOT_FOUND)
        return slots, default.raw.rstrip(b"\0").decode(), int(self.c.emu_samples_value())


def after(state: State, step: Step) -> State:
    what, name, value = step
    slots, default, samples = dict(state[0]), state[1], state[2]
    if what == SAVE:
        slots[name] = value
    elif what == DELETE:
        del slots[name]
        default = "" if default == name else default
    elif what == KEEP:
        samples = value
    else:
        default = name
    return slots, default, samples


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """Store(parameters, unit, half): each has a copy of the library, and so memory of its own."""
    folder, copies = tmp_path_factory.mktemp("store"), iter(range(1000))

    @cache
    def compiled(parameters: int) -> bytes:
        target = folder / f"{parameters}.so"
        sources = [
            HERE / "flash_emulator.c",
            *(RUNTIME / f"{name}.c" for name in ("store", "samples", "crc32", "mem", "moments")),
        ]
        flags = [
            "-std=gnu99",
            "-O2",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-DFAKE_PARAMETERS={parameters}",
        ]
        subprocess.run(["gcc", *flags, f"-I{RUNTIME}", *sources, "-o", target], check=True)
        return target.read_bytes()

    def build(parameters: int, unit: int, half: int) -> Store:
        target = folder / f"copy{next(copies)}.so"
        target.write_bytes(compiled(parameters))
        return Store(ctypes.CDLL(str(target)), unit, half)

    return build


def small(make: Callable[..., Store], unit: int) -> Store:
    """Three adapters and a bit fit a half."""
    record = 96 + -(-2 * SMALL // unit) * unit + unit
    return make(SMALL, unit, (64 + 3 * record + 2 * (96 + unit) + 31) // 32 * 32)


def prepare(store: Store, step: int) -> State:
    state: State = ({}, "", 0)
    for done in STEPS[:step]:
        store.must(done)
        state = after(state, done)
    assert store.state() == state
    return state


AGAIN: Step = (SAVE, "again", 99)
LAST: Step = (SAVE, "a", 77)


def run_case(
    store: Store, before: State, step: Step, cut: int, ending: int, second: int = NEVER, second_ending: int = 0
) -> None:
    """One or two cuts from a kept flash: old or new state after each, then a save that works."""
    case = f"unit {store.unit}, {step}, cut {cut} {ENDINGS[ending]}, then {second} {ENDINGS[second_ending]}"
    store.c.emu_back()
    assert store.run(step, cut, ending) == -1, case
    found = store.state()
    assert found in (before, after(before, step)), case
    if second != NEVER:
        status = store.run(LAST, second, second_ending)
        assert status in (-1, Status.OK), case
        again = store.state()
        assert again == after(found, LAST) or (status == -1 and again == found), case
        found = again
    assert store.run(LAST) == Status.OK, case
    assert store.state() == after(found, LAST), case


@pytest.mark.parametrize("step", range(len(STEPS)), ids=lambda n: f"step{n}")
@pytest.mark.parametrize("unit", [4, 8, 32], ids=lambda n: f"unit{n}")
def test_every_cut_leaves_old_or_new(make: Callable[..., Store], unit: int, step: int) -> None:
    store = small(make, unit)
    before = prepare(store, step)
    count = store.operations(STEPS[step])
    assert count > 3
    store.c.emu_keep()
    for cut in range(count):
        for ending in range(len(ENDINGS)):
            run_case(store, before, STEPS[step], cut, ending)


@pytest.mark.parametrize(
    ("unit", "step"),
    [(4, 3), (8, 3), (8, 9), (32, 0), (32, 3), (32, 5), (32, 8), (32, 9), (32, 12),
     (8, 15), (32, 13), (32, 17), (32, 22)],
    ids=lambda n: str(n),
)  # fmt: skip
def test_a_cut_in_what_follows_a_cut(make: Callable[..., Store], unit: int, step: int) -> None:
    """After each first cut, the save that follows is cut at each of its operations too."""
    store = small(make, unit)
    before = prepare(store, step)
    count = store.operations(STEPS[step])
    store.c.emu_keep()
    cases = 0
    for cut in range(count):
        for ending in range(len(ENDINGS)):
            store.c.emu_back()
            assert store.run(STEPS[step], cut, ending) == -1
            assert store.run(LAST) == Status.OK
            seconds = int(store.c.emu_operations())
            for second in range(seconds):
                run_case(store, before, STEPS[step], cut, ending, second, (cut + second) % len(ENDINGS))
                cases += 1
    assert cases > 5 * count


@pytest.mark.slow
@pytest.mark.parametrize("unit", [4, 8, 32], ids=lambda n: f"unit{n}")
def test_the_demos_adapter_in_sectors_of_16_kb(make: Callable[..., Store], unit: int) -> None:
    """The size of the demo's adapter, STM32F4's small sectors: an append and a compaction cut at every operation."""
    store = make(REAL, unit, 16384)
    state: State = ({}, "", 0)
    kinds = set()
    for value, name in enumerate(["a", "b", "a", "b", "a"], 1):
        step: Step = (SAVE, name, value)
        before_erases = int(store.c.emu_erases())
        count = store.operations(step)
        kind = "compaction" if int(store.c.emu_erases()) > before_erases else "append"
        if state[0] and kind not in kinds:
            kinds.add(kind)
            store.c.emu_keep()
            for cut in range(count):
                run_case(store, state, step, cut, 1 + cut % 3)
            store.c.emu_back()
        store.must(step)
        state = after(state, step)
    assert kinds == {"append", "compaction"} and store.state() == state


# ---- what it holds, what it refuses ----


def test_slots_come_and_go_and_erases_are_few(make: Callable[..., Store]) -> None:
    store = small(make, 8)
    prepare(store, STEPS.index((KEEP, "", 21)))
    store.must((SAVE, "b", 9))
    state: State = ({"a": 6, "b": 9}, "", 0)
    assert store.state() == state
    erases = int(store.c.emu_erases())
    for n in range(60):
        step: Step = (SAVE, "ab"[n % 2], 10 + n)
        store.must(step)
        state = after(state, step)
        assert store.state() == state
    assert 20 <= int(store.c.emu_erases()) - erases <= 60
    assert store.c.emu_violations() == 0


@pytest.mark.parametrize("unit", [4, 32])
def test_as_many_fit_as_it_says(make: Callable[..., Store], unit: int) -> None:
    store = make(REAL, unit, 16384)
    capacity = int(store.c.lmcu_slot_capacity())
    assert capacity == (16384 - 64 - 96 - unit) // (96 + 4016 + (-4016 % unit) + unit) == 3
    board = replace(boards.load("native"), adapter_region=AdapterRegion(0, 16384, 2, unit))
    assert board.adapter_slots(2 * REAL) == capacity  # what the compiler's report says
    for n in range(capacity):
        store.must((SAVE, f"user{n}", n + 1))
    full = store.state()
    assert store.run((SAVE, "more", 50)) == Status.NO_SPACE
    assert store.state() == full
    for step in [
        (SAVE, "user0", 60),
        (DEFAULT, "user2", 0),
        (SAVE, "user1", 61),
        (DEFAULT, "user1", 0),
        (SAVE, "user0", 7),
    ]:
        store.must(step)
        full = after(full, step)
        assert store.state() == full
    store.must((DELETE, "user1", 0))
    store.must((SAVE, "more", 50))
    assert store.state() == ({"user0": 7, "user2": 3, "more": 50}, "", 0)


def test_refusals_change_nothing(make: Callable[..., Store]) -> None:
    store = small(make, 8)
    store.must((SAVE, "a", 5))
    store.c.emu_factors(9)
    before = store.c.emu_operations()
    for what in (LOAD, DELETE, DEFAULT):
        assert store.run((what, "b", 0)) == Status.NOT_FOUND
    for bad in (b"\0" * 16, b"a" * 16, b"a\0b".ljust(16, b"\0"), b"a b".ljust(16, b"\0"), b"\xff".ljust(16, b"\0")):
        for what in (SAVE, LOAD, DELETE) + (() if bad == b"\0" * 16 else (DEFAULT,)):
            assert store.c.emu_run(what, bad, NEVER, 0, 1) == Status.BAD_ARGUMENT
    assert store.c.emu_operations() == 0 < before and store.c.emu_value() == 9
    for identity, status in (((7, 2), Status.WRONG_MODEL), ((1, 7), Status.WRONG_LAYOUT)):
        store.c.emu_identity(*identity)
        assert store.run((LOAD, "a", 0)) == status and store.c.emu_value() == 9
        assert store.names() == ["a"]
    store.c.emu_identity(1, 2)
    store.must((KEEP, "", 31))
    store.c.emu_identity(7, 2)
    store.c.emu_forget_samples()
    assert store.run((RESTORE, "", 0)) == Status.WRONG_MODEL and store.c.emu_samples_value() == 0
    store.c.emu_identity(1, 2)
    assert store.state() == ({"a": 5}, "", 31)


def test_without_flash_it_is_unsupported(make: Callable[..., Store]) -> None:
    store = make(SMALL, 4, 0)
    for what in range(6):
        assert store.run((what, "a", 1)) == Status.UNSUPPORTED
    assert store.names() == [] and store.c.lmcu_slot_capacity() == 0

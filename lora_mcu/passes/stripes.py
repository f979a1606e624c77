# SPDX-License-Identifier: Apache-2.0
"""Depth-first execution: a run of frozen operators made row by row, so that only a window of rows of each map inside is
in memory (as in patch-based inference, arXiv 2110.15352, but whole rows: nothing is computed twice).

A window that is full is moved down by the rows that nobody needs any more; these moved bytes are all that it costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_mcu.ir import Graph, Op, Pad
from lora_mcu.ir.ops import Window
from lora_mcu.passes import placement
from lora_mcu.passes.placement import Buffer

if TYPE_CHECKING:
    from lora_mcu.passes.memory import MemoryPlan

MAX_OPS = 24
BAND_BYTES = 16  # lmcu_band_t


@dataclass(frozen=True)
class Schedule:
    """``order``: which operator makes its next row, after how many rows of its window were dropped; ``windows``: rows
    that each operator's output keeps (the last one keeps all)."""

    order: list[tuple[int, int]]
    windows: list[int]
    moved_bytes: int


@dataclass(eq=False)
class Stripe:
    """Steps ``first`` to ``last``, run together; ``table`` holds the state of the windows while they run."""

    first: int
    last: int
    ops: list[Op]
    schedule: Schedule
    table: Buffer


Schedules = dict[tuple[int, int], Schedule]  # of the forward operators from one index to another, both included


def height(graph: Graph, tensor: int) -> int:
    return graph.tensors[tensor].shape[1]


def row_bytes(graph: Graph, tensor: int) -> int:
    return graph.tensors[tensor].nbytes // height(graph, tensor)


def is_able(graph: Graph, op: Op) -> bool:
    """The operator makes an image row by row from images."""
    if op.input_rows(0) is None:
        return False
    tensors = [graph.tensors[i] for i in (*op.data_inputs(), *op.outputs)]
    images = all(len(t.shape) == 4 and t.shape[0] == 1 and t.data is None and t.dtype == "int8" for t in tensors)
    moves = isinstance(getattr(op, "window", None), Window) or isinstance(op, Pad)
    return images and len(op.outputs) == 1 and (moves or all(t.shape == tensors[-1].shape for t in tensors))


def _input_rows(op: Op, row: int, size: int) -> tuple[int, int]:
    """Rows [first, end) of an input of ``size`` rows that a row of the output reads."""
    rows = op.input_rows(row)
    assert rows is not None
    return min(max(rows[0], 0), size), min(max(rows[1], 0), size)


def schedule(graph: Graph, ops: list[Op]) -> Schedule:
    """Rows on demand: the last operator's output row by row, each row of a map as late as it can be made."""
    index = {op.output: k for k, op in enumerate(ops)}
    sizes = [height(graph, op.output) for op in ops]
    sources = [[index[i] for i in dict.fromkeys(op.data_inputs()) if i in index] for op in ops]
    readers: list[list[int]] = [[c for c in range(len(ops)) if k in sources[c]] for k in range(len(ops))]
    made = [0] * len(ops)
    windows = [1] * len(ops)
    needed: list[tuple[int, int, int]] = []  # operator, its row, first row of its window that is still read

    def first_read(k: int) -> int:
        left = (_input_rows(ops[c], made[c], sizes[k])[0] for c in readers[k] if made[c] < sizes[c])
        return min(left, default=sizes[k])

    def make(k: int, end: int) -> None:
        while made[k] < end:
            for source in sources[k]:
                make(source, _input_rows(ops[k], made[k], sizes[source])[1])
            keep = min(first_read(k), made[k])
            windows[k] = max(windows[k], made[k] + 1 - keep)
            needed.append((k, made[k], keep))
            made[k] += 1

    make(len(ops) - 1, sizes[-1])
    windows[-1] = sizes[-1]
    order, first, moved = [], [0] * len(ops), 0
    for k, row, keep in needed:
        drop = keep - first[k] if row - first[k] >= windows[k] else 0
        if drop:
            moved += (row - keep) * row_bytes(graph, ops[k].output)
            first[k] = keep
        order.append((k, drop))
    return Schedule(order, windows, moved)


class _Search:
    """Which runs of operators to make row by row, so that the largest live set shrinks."""

    def __init__(
        self, memory: MemoryPlan, graph: Graph, ops: list[Op], keep: set[int], cut_at: int, known: Schedules
    ) -> None:  # fmt: skip
        self.memory, self.graph, self.ops, self.cut_at, self.known = memory, graph, ops, cut_at, known
        self.able = [
            is_able(graph, op)
            and not keep.intersection(op.outputs)
            and all(i in memory.activation for i in (*op.data_inputs(), op.output))
            for op in ops
        ]
        self.buffers, self.pairs = list(memory.buffers), list(memory.pairs)
        self.spans = [(b, b.nbytes, b.start, b.end) for b in self.buffers]
        self.chosen: list[tuple[int, int, Schedule]] = []

    def run(self) -> None:
        while (found := self._next()) is not None:
            i, j, made = found
            self.chosen = [c for c in self.chosen if c[1] < i or c[0] > j] + [(i, j, made)]
            self._apply()

    def _next(self) -> tuple[int, int, Schedule] | None:
        live = placement.profile(self.memory.buffers, self.memory.pairs, len(self.memory.steps))[1:]
        peak = max(live)
        at = live.index(peak)
        if at >= len(self.ops) or not self.able[at]:
            return None
        able = [*self.able, *[False] * (len(live) - len(self.ops))]
        floor = max((n for n, a in zip(live, able, strict=True) if not a), default=0)
        best: tuple[int, int] = (peak, 0)
        found = None
        for i, j in self._runs(at):
            cost = self._whole(i, j)
            if (max(floor, cost), j - i) >= best:
                continue
            if (i, j) not in self.known:
                self.known[i, j] = schedule(self.graph, self.ops[i : j + 1])
            made = self.known[i, j]
            if any(drop > 255 for _, drop in made.order):
                continue
            cost += self._windows(i, j, made)
            if (max(floor, cost), j - i) < best and cost < peak:
                best, found = (max(floor, cost), j - i), (i, j, made)
        return found

    def _runs(self, at: int) -> Iterable[tuple[int, int]]:
        """Runs of operators around step ``at`` whose maps nobody outside reads but the last."""
        for i in range(at, max(-1, at - MAX_OPS), -1):
            if not self.able[i]:
                return
            reach = 0
            for j in range(i, min(len(self.ops), i + MAX_OPS)):
                if not self.able[j]:
                    break
                inside = j > i and j >= at and reach <= j and not i < self.cut_at <= j
                if inside and all(c[1] < i or c[0] > j or (i <= c[0] and c[1] <= j) for c in self.chosen):
                    yield i, j
                reach = max(reach, self._end(self.ops[j].output))

    def _end(self, tensor: int) -> int:
        """Last step that reads the tensor, as it was before any run was chosen."""
        buffer = self.memory.activation[tensor]
        return next(end for b, _, _, end in self.spans if b is buffer)

    def _inner(self, i: int, j: int) -> list[Buffer]:
        return [self.memory.activation[op.output] for op in self.ops[i:j]]

    def _whole(self, i: int, j: int) -> int:
        """Bytes of what stays whole while steps i to j run, their scratch and table included."""
        inner = {id(b) for b in self._inner(i, j)}
        total, scratch = 0, 0
        for b, nbytes, start, end in self.spans:
            if id(b) in inner or start > j or end < i:
                continue
            if b.role == "scratch":
                scratch = max(scratch, nbytes)
            else:
                total += nbytes
        return total + scratch + self._table_bytes(i, j)

    def _table_bytes(self, i: int, j: int) -> int:
        return BAND_BYTES * len(tensors_of(self.ops[i : j + 1]))

    def _window_bytes(self, op: Op, rows: int) -> int:
        return -(-rows * row_bytes(self.graph, op.output) // 8) * 8

    def _windows(self, i: int, j: int, made: Schedule) -> int:
        return sum(self._window_bytes(op, n) for op, n in zip(self.ops[i:j], made.windows, strict=False))

    def _apply(self) -> None:
        """The memory plan with the chosen runs."""
        memory = self.memory
        for b, nbytes, start, end in self.spans:
            b.nbytes, b.start, b.end, b.role = nbytes, start, end, "activation" if b.role == "rows" else b.role
        memory.buffers, memory.pairs, memory.stripes = list(self.buffers), list(self.pairs), []
        memory.scratch = {b.start: b for b in self.buffers if b.role == "scratch"}
        for i, j, made in sorted(self.chosen, key=lambda c: c[0]):
            self._join(i, j, made)

    def _join(self, i: int, j: int, made: Schedule) -> None:
        memory, steps = self.memory, range(i, j + 1)
        for op, rows in zip(self.ops[i:j], made.windows, strict=False):
            b = memory.activation[op.output]
            b.nbytes, b.start, b.end, b.role = self._window_bytes(op, rows), i, j, "rows"
        for b in memory.buffers:
            if b.role == "activation" and i <= b.start <= j:
                b.start = i
            if b.role == "activation" and i <= b.end <= j:
                b.end = j
        memory.pairs = [(old, new) for old, new in memory.pairs if new.start not in steps and old.end not in steps]
        scratch = [memory.scratch.pop(t) for t in steps if t in memory.scratch]
        memory.buffers = [b for b in memory.buffers if b not in scratch]
        table = Buffer(f"{memory.steps[i]} to {memory.steps[j]}", "scratch", self._table_bytes(i, j), i, j)
        memory.buffers.append(table)
        if scratch:
            joint = Buffer(table.name, "scratch", max(b.nbytes for b in scratch), i, j)
            memory.buffers.append(joint)
            memory.scratch |= dict.fromkeys(steps, joint)
        memory.stripes.append(Stripe(i, j, self.ops[i : j + 1], made, table))


def tensors_of(ops: list[Op]) -> list[int]:
    """Outputs of the operators, then what they read from outside."""
    outputs = [op.output for op in ops]
    return outputs + [i for i in dict.fromkeys(i for op in ops for i in op.data_inputs()) if i not in outputs]


def choose(
    memory: MemoryPlan, graph: Graph, ops: list[Op], keep: set[int], cut_at: int, known: Schedules
) -> None:  # fmt: skip
    """Make runs of ``ops``, the frozen operators in front, depth-first while that lowers the plan's largest live set.
    Tensors in ``keep`` stay whole, and so does what there is before step ``cut_at``. ``known`` keeps the schedules of
    this graph from one plan to the next: making them takes longest."""
    _Search(memory, graph, ops, keep, cut_at, known).run()

# SPDX-License-Identifier: Apache-2.0
"""Offsets for buffers with lifetimes: best of several greedy orders, in place where a pair allows it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_TRIES, _WORK = 2000, 6_000_000  # placements to try, and what they may take: buffers looked at
_FEW, _GOOD = 2, 1.01  # after so many improved orders a plan this near the bound will do


@dataclass(eq=False)
class Buffer:
    """``nbytes`` of the arena, in use from step ``start`` to ``end``, both included; ``fixed``: moves with its like."""

    name: str
    role: str  # activation | gradient | factor gradient | scratch | rows
    nbytes: int
    start: int
    end: int
    offset: int = -1
    fixed: bool = False

    def overlaps(self, other: Buffer) -> bool:
        return self.start <= other.end and other.start <= self.end


Pairs = list[tuple[Buffer, Buffer]]  # the second may begin where the first is, in the step that they share


def profile(buffers: list[Buffer], pairs: Pairs, steps: int) -> list[int]:
    """Bytes in use by step, from step -1 (the sample is staged) on; a pair counts once, as its larger half."""
    change = [0] * (steps + 2)
    for b in buffers:
        change[b.start + 1] += b.nbytes
        change[b.end + 2] -= b.nbytes
    saved = [0] * (steps + 1)
    for old, new in pairs:
        saved[new.start + 1] = max(saved[new.start + 1], min(old.nbytes, new.nbytes))
    live, total = [], 0
    for t in range(steps + 1):
        total += change[t]
        live.append(total - saved[t])
    return live


def place(buffers: list[Buffer], pairs: Pairs, bound: int) -> int:
    """Set every offset and return the arena's size, at least ``bound``. Equal inputs give equal offsets.

    Greedy by several orders; then each order is improved: a buffer at the arena's top, or one that it stands on, is
    placed earlier, which is kept unless the arena grows. The fixed buffers are tried at both ends of the arena.
    """
    if not buffers:
        return 0
    best, offsets = _Placer(buffers, pairs, bound).run()
    for buffer, offset in zip(buffers, offsets, strict=True):
        buffer.offset = offset
    return best


class _Placer:
    """Buffers by index. A placement is a list of offsets; ``near`` has the indices of those in use at the same time."""

    def __init__(self, buffers: list[Buffer], pairs: Pairs, bound: int) -> None:
        self.buffers, self.bound = buffers, bound
        index = {id(b): i for i, b in enumerate(buffers)}
        self.partners: list[set[int]] = [set() for _ in buffers]
        for old, new in pairs:
            self.partners[index[id(old)]].add(index[id(new)])
            self.partners[index[id(new)]].add(index[id(old)])
        self.near = [[j for j, q in enumerate(buffers) if j != i and b.overlaps(q)] for i, b in enumerate(buffers)]
        self.free = [i for i, b in enumerate(buffers) if not b.fixed]
        self.best: tuple[int, list[int]] = (-1, [])

    def run(self) -> tuple[int, list[int]]:
        """The arena's size and all offsets."""
        fixed_end = max((b.offset + b.nbytes for b in self.buffers if b.fixed), default=0)
        shifts = [0, max(0, self.bound - fixed_end) // 8 * 8] if fixed_end else [0]
        starts = [(shift, order) for order in self._orders() for shift in shifts]
        for shift, order in starts:
            self.greedy(order, shift)
        tries = min(_TRIES, _WORK // (1 + sum(map(len, self.near)))) // len(starts)
        for attempt, (shift, order) in enumerate(starts):
            if self.best[0] <= (self.bound if attempt < _FEW else _GOOD * self.bound):
                break
            self._improve(order, shift, tries, random.Random(attempt))
        return self.best

    def _orders(self) -> list[list[int]]:
        """Largest first, longest first, and so on; each also with those of the fullest steps in front."""
        keys: list[Callable[[Buffer], tuple[int, int]]] = [
            lambda b: (-b.nbytes, b.start),
            lambda b: (-(b.end - b.start), -b.nbytes),
            lambda b: (-b.nbytes * (b.end - b.start + 1), b.start),
            lambda b: (b.start, -b.nbytes),
        ]
        live = [b.nbytes + sum(self.buffers[j].nbytes for j in self.near[i]) for i, b in enumerate(self.buffers)]
        plain = [sorted(self.free, key=lambda i, key=key: key(self.buffers[i])) for key in keys]  # type: ignore[misc]
        return plain + [sorted(order, key=lambda i: -live[i]) for order in plain]

    def _improve(self, order: list[int], shift: int, tries: int, rng: random.Random) -> None:
        total, offsets = self.greedy(order, shift)
        for _ in range(tries):
            if self.best[0] == self.bound:
                return
            changed = self._changed(order, offsets, total, rng)
            new_total, new_offsets = self.greedy(changed, shift)
            if new_total <= total:
                total, offsets, order = new_total, new_offsets, changed

    def _changed(self, order: list[int], offsets: list[int], total: int, rng: random.Random) -> list[int]:
        """``order`` with one buffer of those that make the arena as large as it is at an earlier place."""
        tops = [i for i in order if offsets[i] + self.buffers[i].nbytes == total]
        if not tops:
            return rng.sample(order, len(order))
        i = rng.choice(tops)
        while rng.random() < 0.5 and (below := [j for j in self.near[i] if self._carries(j, i, offsets)]):
            i = rng.choice(below)
        rest = [j for j in order if j != i]
        at = rng.randrange(max(1, order.index(i) + 1))
        return [*rest[:at], i, *rest[at:]]

    def _carries(self, j: int, i: int, offsets: list[int]) -> bool:
        return not self.buffers[j].fixed and offsets[j] + self.buffers[j].nbytes == offsets[i]

    def greedy(self, order: list[int], shift: int) -> tuple[int, list[int]]:
        """Each buffer in the place of a partner, or else as low as it fits beside those before it."""
        sizes = [b.nbytes for b in self.buffers]
        offsets = [b.offset + shift if b.fixed else -1 for b in self.buffers]
        for i in order:
            taken = sorted((offsets[j], offsets[j] + sizes[j], j) for j in self.near[i] if offsets[j] >= 0)
            size, partners = sizes[i], self.partners[i]
            mine = [t[0] for t in taken if t[2] in partners] if partners else []
            at = next((o for o in mine if _fits(o, size, taken, partners)), -1)
            offsets[i] = at if at >= 0 else _lowest(size, taken)
        total = max(map(sum, zip(offsets, sizes, strict=True)))
        if self.best[0] < 0 or total < self.best[0]:
            self.best = total, offsets
        return total, offsets


def _fits(offset: int, size: int, taken: list[tuple[int, int, int]], partners: set[int]) -> bool:
    end = offset + size
    return all(a >= end or e <= offset or (a == offset and j in partners) for a, e, j in taken)


def _lowest(size: int, taken: list[tuple[int, int, int]]) -> int:
    offset = 0
    for a, e, _ in taken:
        if offset + size <= a:
            break
        offset = max(offset, e)
    return offset

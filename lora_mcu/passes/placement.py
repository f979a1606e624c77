# SPDX-License-Identifier: Apache-2.0
"""Offsets for buffers with lifetimes: best of several greedy orders, in place where a pair allows it."""

from __future__ import annotations

import random
from dataclasses import dataclass

_TRIES, _MORE_TRIES, _MANY = 60, 600, 300


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
    """Set every offset and return the arena's size, at least ``bound``. Equal inputs give equal offsets."""
    partners: dict[int, set[int]] = {}
    for old, new in pairs:
        partners.setdefault(id(old), set()).add(id(new))
        partners.setdefault(id(new), set()).add(id(old))
    fixed, free = [b for b in buffers if b.fixed], [b for b in buffers if not b.fixed]
    top = max(0, bound - max((b.offset + b.nbytes for b in fixed), default=0)) // 8 * 8
    rng = random.Random(0)
    orders = [
        lambda b: (-b.nbytes, b.start),
        lambda b: (-(b.end - b.start), -b.nbytes),
        lambda b: (-b.nbytes * (b.end - b.start + 1), b.start),
        lambda b: (b.start, -b.nbytes),
    ]
    best, offsets = -1, [b.offset for b in buffers]
    for attempt in range(_MORE_TRIES):
        if attempt >= _TRIES and (best <= 1.03 * bound or len(buffers) > _MANY):
            break
        if fixed and attempt:
            _shift(fixed, top if attempt % 2 else -top)
        if attempt < len(orders):
            order = sorted(free, key=orders[attempt])
        else:
            order = sorted(free, key=lambda b: -b.nbytes * rng.uniform(0.5, 1.5))
        total = _greedy(fixed, order, partners)
        if best < 0 or total < best:
            best, offsets = total, [b.offset for b in buffers]
        if best == bound:
            break
    for buffer, offset in zip(buffers, offsets, strict=True):
        buffer.offset = offset
    return max(best, 0)


def _shift(fixed: list[Buffer], by: int) -> None:
    """From the arena's start to its end, or back."""
    for b in fixed:
        b.offset += by


def _greedy(fixed: list[Buffer], order: list[Buffer], partners: dict[int, set[int]]) -> int:
    placed = list(fixed)
    for b in order:
        near = sorted((p for p in placed if p.overlaps(b)), key=lambda p: p.offset)
        mine = [p for p in near if id(p) in partners.get(id(b), ())]
        offset = next((p.offset for p in mine if _fits(b, p.offset, near, mine)), -1)
        b.offset = offset if offset >= 0 else _lowest(b, near)
        placed.append(b)
    return max((b.offset + b.nbytes for b in placed), default=0)


def _fits(b: Buffer, offset: int, near: list[Buffer], mine: list[Buffer]) -> bool:
    end = offset + b.nbytes
    return all(
        p.offset >= end or p.offset + p.nbytes <= offset or (p.offset == offset and any(p is m for m in mine))
        for p in near
    )


def _lowest(b: Buffer, near: list[Buffer]) -> int:
    offset = 0
    for other in near:
        if offset + b.nbytes <= other.offset:
            break
        offset = max(offset, other.offset + other.nbytes)
    return offset

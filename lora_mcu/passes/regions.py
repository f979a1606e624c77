# SPDX-License-Identifier: Apache-2.0
"""Which of a board's SRAM regions each array lies in. Stack, line and context lie in the first; an array in one region.

The best placement leaves the largest region: stored samples are one array and take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Index of each array's region, bytes that each region has left, and bytes that are missing (0: all fit)."""

    where: Mapping[str, int]
    left: tuple[int, ...]
    over: int = 0

    @property
    def roomiest(self) -> int:
        """Index of the region with the most bytes left, the first of equals."""
        return self.left.index(max(self.left))


def place(runtime: int, arrays: Mapping[str, int], sizes: Sequence[int]) -> Layout:
    """Place ``arrays`` (bytes by name) into regions of ``sizes`` bytes, the first of which holds ``runtime`` bytes too.

    Exhaustive, the largest array first, regions in their order but the largest last (a board lists fast memories
    first), ended by the first placement that leaves as much in one region as any can. Equal inputs give equal
    placements.
    """
    rooms = [sizes[0] - runtime, *sizes[1:]]
    names = sorted(arrays, key=lambda name: (-arrays[name], name))
    over = max(sum(arrays.values()) - sum(rooms), -rooms[0])
    if over <= 0:
        search = _Search([arrays[name] for name in names], rooms)
        search.run(0, rooms, [])
        if search.where is not None:
            return Layout(dict(zip(names, search.where, strict=True)), tuple(search.left))
        over = max(1, arrays[names[0]] - max(rooms))
    return Layout(dict.fromkeys(names, 0), tuple(rooms), over)


class _Search:
    def __init__(self, sizes: list[int], rooms: list[int]) -> None:
        self.sizes, self.bound = sizes, max(rooms)
        largest = rooms.index(self.bound)
        self.order = [*(at for at in range(len(rooms)) if at != largest), largest]
        self.where: list[int] | None = None
        self.left: list[int] = []

    def run(self, i: int, rooms: list[int], where: list[int]) -> None:
        """Place array ``i`` and those behind it; ``rooms`` is what those before it have left."""
        most = max(self.left, default=-1)
        if most == self.bound or max(rooms) <= most:
            return
        if i == len(self.sizes):
            self.where, self.left = list(where), list(rooms)
            return
        for at in self.order:
            if rooms[at] >= self.sizes[i]:
                rooms[at] -= self.sizes[i]
                self.run(i + 1, rooms, [*where, at])
                rooms[at] += self.sizes[i]

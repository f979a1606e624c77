# SPDX-License-Identifier: Apache-2.0
"""``adapt = auto``: which layers, and at which rank, under limits of SRAM and of multiply-accumulates a step.

More layers come before more rank (arXiv 2106.09685, section 7.1), and of as many layers those with a shorter backward
pass. Two ways are tried: dense and pointwise layers first, from the end on (larger kernels have kernel_h * kernel_w
times the bytes of factors), or all layers from the end on. Both then go on towards the input with whatever still fits.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

RANK, LOW_RANK = 4, 2  # what is enough, and what is given up for more layers


@dataclass(frozen=True)
class Need:
    """What a choice takes: bytes of SRAM without stored samples, MACs of a step on one sample."""

    sram: int
    macs: int

    def over(self, limit: Need) -> str:
        """What is too much, in words; empty where nothing is."""
        parts = []
        if self.sram > limit.sram:
            parts.append(f"{self.sram - limit.sram:,} bytes too many")
        if self.macs > limit.macs:
            parts.append(f"{self.macs - limit.macs:,} MACs too many")
        return " and ".join(parts)


@dataclass(frozen=True)
class Choice:
    """Layer names in operator order and their rank. ``later`` is the next larger choice, None where there is none."""

    names: tuple[str, ...]
    rank: int
    need: Need
    later: Choice | None = None


Needs = Callable[[tuple[str, ...], int], Need | None]  # None: cannot be compiled so


@dataclass
class Search:
    """``names``: the candidates in operator order; ``light``: the dense and pointwise ones; ``rank``: fixed, or None.
    Every question to ``needs`` plans memory, so few are asked and none twice."""

    names: Sequence[str]
    light: set[str]
    rank: int | None
    needs: Needs
    limit: Need
    asked: dict[tuple[tuple[str, ...], int], Need | None] = field(default_factory=dict)

    def run(self) -> Choice:
        """The choice; the last layer alone at the lowest rank where nothing fits."""
        everything = tuple(self.names)
        wanted = self.rank or RANK
        names, rank = everything, wanted
        if not self.fits(names, rank):
            rank = self.rank or LOW_RANK
            names = self._grow(rank)
            if not names and self.rank is None:
                rank = 1
                names = self._grow(rank)
            names = names or everything[-1:]
            rank = next((r for r in range(wanted, rank, -1) if self.fits(names, r)), rank)
        need = self.need(names, rank)
        assert need is not None, "a layer with a gradient path can be compiled"
        return Choice(names, rank, need, self._later(names, rank))

    def need(self, names: tuple[str, ...], rank: int) -> Need | None:
        key = (names, rank)
        if key not in self.asked:
            self.asked[key] = self.needs(names, rank)
        return self.asked[key]

    def fits(self, names: tuple[str, ...], rank: int) -> bool:
        need = self.need(names, rank)
        return need is not None and not need.over(self.limit)

    def _grow(self, rank: int) -> tuple[str, ...]:
        """The better of both ways; no layer is further from the end than any that fits by itself at rank 1."""
        first = bisect.bisect_left(range(len(self.names)), True, key=lambda i: self.fits((self.names[i],), 1))
        near = self.names[first:]
        light = [n for n in near if n in self.light]
        heavy = [n for n in near if n not in self.light]
        ways = [self._fill([near], rank)]
        if light and heavy:
            ways.append(self._fill([light, heavy], rank))
        return max(ways, key=lambda names: (len(names), -self._macs(names, rank)))

    def _fill(self, groups: list[Sequence[str]], rank: int) -> tuple[str, ...]:
        """As many of the first group's end as fit, by halving; then one by one, from the end on, group by group."""
        front = groups[0]
        start = bisect.bisect_left(range(len(front)), True, key=lambda i: self.fits(tuple(front[i:]), rank))
        chosen = set(front[start:])
        for name in [n for group in groups for n in reversed(group) if n not in chosen]:
            if self.fits(self._ordered(chosen | {name}), rank):
                chosen.add(name)
        return self._ordered(chosen)

    def _macs(self, names: tuple[str, ...], rank: int) -> int:
        need = self.need(names, rank) if names else None
        return need.macs if need else 0

    def _ordered(self, chosen: set[str]) -> tuple[str, ...]:
        return tuple(n for n in self.names if n in chosen)

    def _later(self, names: tuple[str, ...], rank: int) -> Choice | None:
        """One layer more, the one nearest to the end, or else more rank."""
        left = [n for n in self.names if n not in names]
        if left:
            names, rank = self._ordered({*names, left[-1]}), min(rank, self.rank or LOW_RANK)
        elif self.rank is None:
            rank = 2 * rank if rank >= RANK else RANK
        else:
            return None
        need = self.need(names, rank)
        return Choice(names, rank, need) if need else None


def words(names: tuple[str, ...], everything: Sequence[str]) -> str:
    """``all N layers``, ``last:N of M layers``, or the number and how far the choice reaches."""
    count, total = len(names), len(everything)
    if count == total:
        return "the only layer" if count == 1 else f"all {count} layers"
    if tuple(everything[-count:]) == names:
        return f"last:{count} of {total} layers"
    tail = next(n for n in range(count + 1) if n == count or everything[-1 - n] != names[-1 - n])
    behind = f"last:{tail} and {', '.join(names[: count - tail])}" if tail else ", ".join(names)
    return f"{count} of {total} layers ({behind})"


def explain(choice: Choice, names: Sequence[str], limit: Need) -> str:
    """One line: what was chosen, what it takes, what the next larger choice takes, and why it was not chosen."""
    text = f"auto: {words(choice.names, names)} at rank {choice.rank}"
    text += f", {choice.need.sram:,} bytes and {choice.need.macs:,} MACs a step"
    later = choice.later
    if later is None:
        return text
    more = [n for n in later.names if n not in choice.names]
    what = f"{more[0]} too" if more else f"rank {later.rank}"
    what += f" at rank {later.rank}" if more and later.rank != choice.rank else ""
    text += f"; {what}: {later.need.sram:,} bytes and {later.need.macs:,} MACs"
    return f"{text}, {later.need.over(limit) or 'which fits too'}"

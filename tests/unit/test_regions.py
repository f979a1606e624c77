# SPDX-License-Identifier: Apache-2.0
"""Arrays in regions of SRAM, against every placement that there is."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_mcu.passes import regions

SIZES = st.integers(0, 60).map(lambda n: 8 * n)


@settings(max_examples=300, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=4), st.lists(SIZES, min_size=1, max_size=5), SIZES)
def test_the_placement_is_the_best_of_all(sizes: list[int], arrays: list[int], runtime: int) -> None:
    named = {f"a{i}": size for i, size in enumerate(arrays)}
    best = -1
    for where in product(range(len(sizes)), repeat=len(arrays)):
        left = [sizes[0] - runtime, *sizes[1:]]
        for at, size in zip(where, arrays, strict=True):
            left[at] -= size
        if min(left) >= 0:
            best = max(best, max(left))
    layout = regions.place(runtime, named, sizes)
    assert (layout.over > 0) == (best < 0)
    if best >= 0:
        left = [sizes[0] - runtime, *sizes[1:]]
        for name, at in layout.where.items():
            left[at] -= named[name]
        assert tuple(left) == layout.left and min(left) >= 0 and max(left) == best == left[layout.roomiest]


def test_one_region_is_short_by_what_is_missing() -> None:
    assert regions.place(40, {"a": 96, "b": 32}, [128]).over == 40
    assert regions.place(200, {"a": 8}, [128, 512]).over == 72  # the runtime lies in the first
    assert regions.place(0, {"a": 96}, [64, 64]).over == 32

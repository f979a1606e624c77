# SPDX-License-Identifier: Apache-2.0
"""A short soak; `make soak` is the long one."""

from __future__ import annotations

from link.soak import soak


def test_no_sample_is_lost_or_doubled_on_a_bad_line() -> None:
    said = soak("native", 2000, seed=2, stall=0.1)  # some hundred reads: none would be delayed now and then at 1 %
    assert "2,000 samples" in said and "0 lost, 0 doubled" in said
    assert all(fault in said for fault in ("drop", "duplicate", "flip", "stall"))

# SPDX-License-Identifier: Apache-2.0
"""Line and core work at the same time: whichever is slower is busy nearly always (benchmarks/link.py, shortened)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import link as bench
from link.fake_device import Model
from lora_mcu.passes.ring import ring_bytes, sample_line_bytes

COSTS = bench.Costs(**json.loads(bench.COSTS.read_text())["instructions"])


def busiest(name: str, cycles: float, baud: int, samples: int, window: int = 8, ring: int | None = None) -> float:
    seen = bench.stream(bench.model_of(name, window, ring), cycles, baud, 168_000_000, COSTS, samples)
    assert seen["lost"] == 0
    return max(seen["line"], seen["core"])


@pytest.mark.parametrize(
    ("name", "cycles", "baud", "samples"),
    [
        ("HAR demo", 700_000, 115_200, 40),  # the line is slower
        ("HAR demo", 700_000, 2_000_000, 60),  # about equal, the core a little slower
        ("MLPerf Tiny KWS", 11_000_000, 115_200, 40),  # the core is slower
        ("MLP 128-48-32-10", 130_000, 921_600, 150),
    ],
)
def test_the_slower_of_line_and_core_is_busy(name: str, cycles: float, baud: int, samples: int) -> None:
    assert busiest(name, cycles, baud, samples) >= bench.TARGET


def test_one_request_at_a_time_would_not_do() -> None:
    assert busiest("HAR demo", 700_000, 2_000_000, 60, window=1) < 0.6


def test_a_ring_that_holds_no_sample_would_not_do() -> None:
    """Targets of 2,560 bytes beside samples of 640: 4,096 bytes of ring, which is what the compiler chooses."""
    assert bench.model_of("MLPerf Tiny AD", 8, None).rx_ring == 4096
    assert busiest("MLPerf Tiny AD", 2_200_000, 2_000_000, 30) >= 0.95
    assert busiest("MLPerf Tiny AD", 2_200_000, 2_000_000, 30, ring=2048) < 0.9


def test_the_rings_size_follows_the_sample() -> None:
    small, large = Model(inputs=768).info, Model(inputs=3072).info
    assert sample_line_bytes(small, 1024) == 4 + 768 + 10 + 3
    assert ring_bytes(small, 1024, 2048, 0x20000) == 2048
    assert sample_line_bytes(large, 1024) > 3072 + 4 * 14 and ring_bytes(large, 1024, 2048, 0x20000) == 4096
    image = replace(large, input=replace(large.input, shape=(96, 96, 1)))
    assert ring_bytes(image, 1024, 2048, 0x20000) == 4096, "no more than a 32nd of SRAM"
    assert ring_bytes(image, 1024, 2048, 64 << 20) == 16384

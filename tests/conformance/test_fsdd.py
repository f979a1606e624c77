# SPDX-License-Identifier: Apache-2.0
"""LoRA on the twin is within a point of LoRA in floats on speakers that the base never heard (all six: fsdd.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.fsdd import compare


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twin_is_within_a_point_of_float_lora(data_dir: Path) -> None:
    result = compare([1, 2], range(2), data_dir)
    assert result.twin_accuracy >= result.float_accuracy - 0.01, result
    assert result.twin_accuracy >= result.before + 0.03, result

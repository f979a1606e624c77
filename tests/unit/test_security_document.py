# SPDX-License-Identifier: Apache-2.0
"""docs/security.md: its invariants are numbered in order, each names tests, and those tests exist and are run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
_INVARIANT = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |^#|\Z)", re.MULTILINE | re.DOTALL)


def invariants() -> dict[int, str]:
    start = DOCUMENT.index("## Invariants")
    end = DOCUMENT.index("\n## ", start + 1)
    return {int(number): text for number, text in _INVARIANT.findall(DOCUMENT[start:end])}


def test_every_invariant_names_tests_that_exist() -> None:
    found = invariants()
    assert list(found) == list(range(1, len(found) + 1)) and len(found) >= 20
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    for number, text in found.items():
        named = re.findall(r"`(test_\w+)`", text)
        assert named, f"invariant {number} names no test"
        assert set(named) <= tests, f"invariant {number}: {sorted(set(named) - tests)}"


def test_the_table_speaks_of_invariants_that_are_there() -> None:
    table = DOCUMENT[DOCUMENT.index("| the line, towards the device") : DOCUMENT.index("| project, generated C")]
    numbers = {int(n) for line in table.splitlines() for n in re.findall(r"\b(\d+)\b", line.split("|")[4])}
    assert numbers and numbers <= set(invariants())

# SPDX-License-Identifier: Apache-2.0
"""What all tests share: where real models and data are, the order of the kinds, the count of what was not run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("unit", "conformance", "firmware", "link", "emulator")

for _variable, _folder in (("LORA_MCU_MODELS", "models"), ("LORA_MCU_DATA", "data")):
    _default = ROOT.parent / "shared" / _folder
    if _variable not in os.environ and _default.is_dir():
        os.environ[_variable] = str(_default)

_not_run: Counter[str] = Counter()


def _real_folder(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of real .tflite models; skips the test where there is none."""
    return _real_folder("LORA_MCU_MODELS")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; skips the test where there is none."""
    return _real_folder("LORA_MCU_DATA")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder is its kind; quick kinds run first, slow tests last."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        kinds = [i for i, kind in enumerate(KINDS) if kind in item.keywords]
        return item.get_closest_marker("slow") is not None, min(kinds, default=len(KINDS))

    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in KINDS:
            item.add_marker(folder)
    items.sort(key=place)


def pytest_deselected(items: list[pytest.Item]) -> None:
    _not_run["deselected"] += len(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    _not_run["not reached"] = len(session.items)


def pytest_runtest_logstart() -> None:
    _not_run["not reached"] -= 1


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _not_run[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _not_run[f"{report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}"] += 1
    if report.failed:
        _not_run[f"{report.nodeid} cannot be collected"] += 1


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run: how many tests did not run, and why."""
    if config.option.collectonly:
        return
    reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(_not_run.items()) if count)
    print(f"not run: {sum(_not_run.values())}" + (f" ({reasons})" if reasons else ""))

# SPDX-License-Identifier: Apache-2.0
"""Models that several files share, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.models import make_all

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def made_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small Keras models as .tflite files, by name (TensorFlow converts them once a session)."""
    return make_all(tmp_path_factory.mktemp("made_models"))


@pytest.fixture(scope="session")
def har_model() -> Path:
    """The demo's model, a file of this repository."""
    return ROOT / "examples" / "har" / "har.tflite"

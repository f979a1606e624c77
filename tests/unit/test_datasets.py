# SPDX-License-Identifier: Apache-2.0
"""Data files: what NumPy writes is read back exactly; anything else ends in one line, whatever its bytes are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_mcu.datasets import Dataset, load_npz
from lora_mcu.errors import DataError

QUIET = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32", "float64", ">i2", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_numpy_wrote(tmp_path: Path, dtype: str, order: str) -> None:
    x = np.asarray(np.arange(2 * 3 * 4).reshape(2, 3, 4) % 2, dtype=dtype, order=order)  # type: ignore[call-overload]
    (tmp_path / "d.npz").write_bytes(npz(x=x, y=np.array([3, 1]), label_names=np.array(["a b", "c\nd"]), other=x))
    data = load_npz(tmp_path / "d.npz")
    assert data.x.dtype == x.dtype and np.array_equal(data.x, x)
    assert data.labels.tolist() == [3, 1] and data.label_names == ("a b", "c d") and len(data) == 2


def test_labels_are_asked_for_only_where_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(npz(x=np.zeros((2, 3), np.int8)))
    data = load_npz(tmp_path / "d.npz", need_labels=False)
    assert data.y is None
    with pytest.raises(DataError, match="no y"):
        _ = data.labels
    with pytest.raises(DataError, match="'y'"):
        load_npz(tmp_path / "d.npz")


def test_encrypted_and_forged_members_are_refused(tmp_path: Path) -> None:
    """A header that claims more than the member holds must not allocate."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|i1", "fortran_order": False, "shape": (1 << 30,)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"12")
        archive.writestr("y.npy", header.getvalue())
    with pytest.raises(DataError, match=r"x claims 1,073,741,824 bytes and holds"):
        load_npz(tmp_path / "d.npz")


def read_or_refuse(file: Path) -> None:
    try:
        found = load_npz(file)
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith(str(file))
    else:
        assert isinstance(found, Dataset) and len(found.labels) == len(found)


@QUIET
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    read_or_refuse(tmp_path / "d.npz")


GOOD = npz(x=np.arange(24, dtype=np.int8).reshape(4, 6), y=np.arange(4), label_names=np.array(["a", "b"]))


@QUIET
@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    (tmp_path / "d.npz").write_bytes(bytes(content))
    read_or_refuse(tmp_path / "d.npz")


@QUIET
@given(header=st.text(max_size=120), version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]))
def test_any_array_header(tmp_path: Path, header: str, version: tuple[int, int]) -> None:
    """Headers are text that NumPy parses: none may raise anything else."""
    raw = header.encode()
    size = len(raw).to_bytes(2 if version == (1, 0) else 4, "little")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY" + bytes(version) + size + raw)
    read_or_refuse(tmp_path / "d.npz")


def test_every_cut(tmp_path: Path) -> None:
    for size in range(len(GOOD)):
        (tmp_path / "d.npz").write_bytes(GOOD[:size])
        with pytest.raises(DataError):
            load_npz(tmp_path / "d.npz")

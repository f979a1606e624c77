# SPDX-License-Identifier: Apache-2.0
"""Reading .npz data files: `x [N, *sample]`, `y [N]` (or targets `[N, *output]`), optional `label_names`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lora_mcu.errors import DataError

MAX_BYTES = 1 << 31  # of one array, unpacked: a small zip file can claim any size
_MAKE = 'np.savez("data.npz", x=samples, y=labels)'


@dataclass(frozen=True)
class Dataset:
    """Samples ``x`` [N, *sample], labels or targets ``y`` [N, ...] (None without), names of the labels."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """``y``, or a DataError where the file has none."""
        if self.y is None:
            raise DataError(f"the data has no y (labels or targets): {_MAKE} writes both")
        return self.y


def load_npz(path: str | Path, need_labels: bool = True) -> Dataset:
    """Read a data set without unpickling anything.

    Raises DataError, one line, when the file is missing, is no .npz, lacks x (or y, if ``need_labels``), holds pickled
    objects, text or more than 2 GiB in one array, is cut or empty, or has x and y of different lengths. Whether shapes,
    dtypes, labels and values fit a model is checked where a model is known (lora_mcu.session).
    """
    file = Path(path)
    arrays = _read(file)
    for key in ("x", "y") if need_labels else ("x",):
        if key not in arrays:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise DataError(f"{file}: no array {key!r} (it holds {found}): {_MAKE} writes one")
    x, y = arrays["x"], arrays.get("y")
    for key, array in (("x", x), ("y", y)):
        if array is not None:
            _check(file, key, array)
    if y is not None and len(y) != len(x):
        raise DataError(f"{file}: x has {len(x)} samples and y has {len(y)}: they must be as many")
    return Dataset(x, y, _names(file, arrays.get("label_names")))


def mix(data: Dataset, known: Dataset, count: int, seed: int) -> Dataset:
    """``data`` and ``count`` samples of ``known`` behind it (replay), as evenly over its classes as it has them.

    Which ones follows from ``seed``. Raises DataError where they cannot stand in one data set, or are too few.
    """
    if count > len(known):
        raise DataError(f"{count} samples are to be replayed, the file holds {len(known)}: give fewer or another file")
    if data.x.shape[1:] != known.x.shape[1:] or data.x.dtype != known.x.dtype:
        raise DataError(
            f"samples to replay are {known.x.dtype} {list(known.x.shape[1:])}, the data {data.x.dtype} "
            f"{list(data.x.shape[1:])}: both must be alike"
        )
    order = np.random.default_rng(seed).permutation(len(known))
    if known.labels.ndim == 1:  # the first of every class, then the second of every class, ...
        labels = known.labels[order]
        turn = np.zeros(len(order), np.int64)
        for label in np.unique(labels):
            turn[labels == label] = np.arange((labels == label).sum())
        order = order[np.argsort(turn, kind="stable")]
    chosen = np.sort(order[:count])
    return Dataset(np.concatenate([data.x, known.x[chosen]]), np.concatenate([data.labels, known.labels[chosen]]),
                   data.label_names)  # fmt: skip


def _read(file: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            wanted = [m for m in archive.infolist() if m.filename in ("x.npy", "y.npy", "label_names.npy")]
            others = {Path(m.filename).stem for m in archive.infolist()}
            arrays = {}
            for member in wanted:
                key = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    arrays[key] = _array(file, key, member.file_size, stream)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or _one_line(error)}") from None
    except zipfile.BadZipFile:
        raise DataError(f"{file}: not an .npz file, or cut: {_MAKE} writes one") from None
    except Exception as error:  # whatever a decompressor or NumPy makes of untrusted bytes
        raise DataError(f"{file}: unreadable ({_one_line(error)}): write it again with {_MAKE}") from None
    if "x" not in arrays and others:
        raise DataError(f"{file}: no array 'x' (it holds {', '.join(sorted(others))}): {_MAKE} writes one")
    return arrays


def _array(file: Path, key: str, size: int, stream: IO[bytes]) -> npt.NDArray[Any]:
    """One member, its header judged before anything is allocated for it."""
    shape, fortran, dtype = _header(file, key, stream)
    if dtype.hasobject:
        raise DataError(f"{file}: {key} holds Python objects, which are never unpickled: store one plain numeric array")
    count = 1
    for extent in shape:
        count *= extent
    nbytes = count * dtype.itemsize
    if nbytes > MAX_BYTES:
        raise DataError(f"{file}: {key} would take {nbytes:,} bytes, the limit is {MAX_BYTES:,}: split the file")
    if nbytes > size:
        raise DataError(f"{file}: {key} claims {nbytes:,} bytes and holds fewer: the file is cut or forged")
    content = stream.read(nbytes)
    if len(content) != nbytes:
        raise DataError(f"{file}: {key} claims {nbytes:,} bytes and holds {len(content):,}: the file is cut")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: Path, key: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy parses the header as Python source: tokenizer, syntax and value errors come out
        raise DataError(f"{file}: {key} has no readable header ({_one_line(error)}): {_MAKE} writes one") from None
    if any(extent < 0 for extent in shape):
        raise DataError(f"{file}: {key} claims the shape {list(shape)}: the file is forged")
    return shape, fortran, dtype


def _check(file: Path, key: str, array: npt.NDArray[Any]) -> None:
    if array.ndim == 0 or len(array) == 0 or array.size == 0:
        raise DataError(f"{file}: {key} is empty (shape {list(array.shape)}): at least one sample is needed")
    if array.dtype.kind not in "iufb":
        raise DataError(f"{file}: {key} has dtype {array.dtype}: numbers are needed")


def _names(file: Path, names: npt.NDArray[Any] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{file}: label_names must be a list of strings, not {names.dtype} {list(names.shape)}")
    return tuple(" ".join(str(name).split()) for name in names)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

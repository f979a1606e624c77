# SPDX-License-Identifier: Apache-2.0
"""C objects whose size is known before any compiler runs: constant arrays and constant structs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fields = Sequence["str | Fields"]  # "i" 4 bytes, "p" a pointer, a nested sequence for a struct

_CTYPES = {
    np.dtype(np.int8): "int8_t",
    np.dtype(np.uint8): "uint8_t",
    np.dtype(np.int16): "int16_t",
    np.dtype(np.int32): "int32_t",
    np.dtype(np.uint16): "uint16_t",
    np.dtype(np.uint64): "uint64_t",
    np.dtype(np.float32): "float",
}


@dataclass(frozen=True)
class Constant:
    """One constant object: ``nbytes`` is its size in the image, held to it by a static assertion."""

    name: str
    nbytes: int
    definition: str


def c_type(values: NDArray[np.generic]) -> str:
    """The C type of an element."""
    return _CTYPES[values.dtype]


def array(name: str, values: NDArray[np.generic], *, in_words: bool = False) -> Constant:
    """``const <type> name[n] = {...};`` for a non-empty array, floats as exact hexadecimal.

    ``in_words``: it begins at a multiple of four bytes.
    """
    flat = values.ravel()
    if flat.dtype == np.float32:
        items = [f"{float(v).hex()}f" for v in flat]
    else:
        suffix = "ull" if flat.dtype == np.uint64 else ""
        items = [f"{v}{suffix}" if v != -(2**31) else "(-2147483647 - 1)" for v in flat.tolist()]
    rows = [", ".join(items[i : i + 16]) for i in range(0, len(items), 16)]
    body = ",\n    ".join(rows)
    aligned = "LMCU_ALIGNED(4) " if in_words else ""
    return Constant(name, flat.nbytes, f"{aligned}const {c_type(flat)} {name}[{len(items)}] = {{\n    {body}}};")


def struct(name: str, ctype: str, fields: Fields, values: str, pointer_bytes: int) -> Constant:
    """``const ctype name = {values};`` with the size that ``fields`` have under the target's alignment rules."""
    return Constant(name, sizeof(fields, pointer_bytes), f"const {ctype} {name} = {{{values}}};")


def table(name: str, ctype: str, fields: Fields, rows: list[str], pointer_bytes: int) -> Constant:
    """``const ctype name[n] = {rows};``; ``fields`` are those of all rows."""
    body = ",\n    ".join(rows)
    definition = f"const {ctype} {name}[{len(rows)}] = {{\n    {body}}};"
    return Constant(name, sizeof(fields, pointer_bytes), definition)


def sizeof(fields: Fields, pointer_bytes: int) -> int:
    """Size of a C struct of 4-byte numbers, pointers and nested structs, natural alignment."""
    size, alignment = _layout(fields, pointer_bytes)
    return -(-size // alignment) * alignment


def _layout(fields: Fields, pointer_bytes: int) -> tuple[int, int]:
    offset, largest = 0, 4
    for field in fields:
        if field == "i":
            size, alignment = 4, 4
        elif field == "p":
            size, alignment = pointer_bytes, pointer_bytes
        else:
            _, alignment = _layout(field, pointer_bytes)
            size = sizeof(field, pointer_bytes)
        offset = -(-offset // alignment) * alignment + size
        largest = max(largest, alignment)
    return offset, largest


def c_float(value: float | np.floating[Any]) -> str:
    """A float32 as an exact C literal."""
    return f"{float(np.float32(value)).hex()}f"

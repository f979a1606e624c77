# SPDX-License-Identifier: Apache-2.0
"""mem.c, renamed to stand beside the host's own functions: every alignment, length and overlap up to 20 bytes."""

from __future__ import annotations

import ctypes
import itertools
import subprocess

import pytest

from lora_mcu import resources

NAMES = ("memcpy", "memmove", "memset", "memcmp")
SIZE = 48


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    runtime = resources.path("firmware") / "runtime"
    out = tmp_path_factory.mktemp("mem") / "mem.so"
    flags = ["-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fno-builtin"]
    flags += ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-DLMCU_FREESTANDING", f"-I{runtime}"]
    flags += [f"-D{name}=own_{name}" for name in NAMES]
    subprocess.run(["gcc", *flags, str(runtime / "mem.c"), "-o", str(out)], check=True, timeout=60)
    library = ctypes.CDLL(str(out))
    for name in NAMES[:3]:
        getattr(library, f"own_{name}").restype = ctypes.c_void_p
    return library


def block() -> tuple[ctypes.Array[ctypes.c_uint8], bytearray]:
    """The same bytes for the library and for Python."""
    data = bytearray((i * 37 + 11) & 0xFF for i in range(SIZE))
    return (ctypes.c_uint8 * SIZE).from_buffer_copy(data), data


CASES = list(itertools.product(range(5), range(5), range(21)))


def test_memcpy(lib: ctypes.CDLL) -> None:
    for to, start, count in CASES:
        memory, data = block()
        base = ctypes.addressof(memory)
        assert lib.own_memcpy(ctypes.c_void_p(base + to), ctypes.c_void_p(base + 24 + start), count) == base + to
        data[to : to + count] = data[24 + start : 24 + start + count]
        assert bytes(memory) == bytes(data)


def test_memmove_with_overlap(lib: ctypes.CDLL) -> None:
    for to, start, count in CASES:
        memory, data = block()
        base = ctypes.addressof(memory)
        assert lib.own_memmove(ctypes.c_void_p(base + to), ctypes.c_void_p(base + start), count) == base + to
        data[to : to + count] = data[start : start + count]
        assert bytes(memory) == bytes(data)


def test_memset(lib: ctypes.CDLL) -> None:
    for to, value, count in CASES:
        memory, data = block()
        base = ctypes.addressof(memory)
        byte = value * 60
        assert lib.own_memset(ctypes.c_void_p(base + to), byte, count) == base + to
        data[to : to + count] = bytes([byte]) * count
        assert bytes(memory) == bytes(data)


def test_memcmp(lib: ctypes.CDLL) -> None:
    left = bytes(range(200, 220))
    for at in range(20):
        for change in (1, 255):
            right = bytearray(left)
            right[at] = (right[at] + change) & 0xFF
            want = -1 if left < bytes(right) else 1
            assert lib.own_memcmp(left, bytes(right), 20) == want
            assert lib.own_memcmp(left, bytes(right), at) == 0

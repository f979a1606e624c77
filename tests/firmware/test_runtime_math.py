# SPDX-License-Identifier: Apache-2.0
"""The runtime's own arithmetic, built with sanitizers: binary16, exp, log, sqrt, random bits, CRC, boot self-test."""

from __future__ import annotations

import platform
import subprocess
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_mcu import resources

HERE = Path(__file__).parent
SOURCES = ("lmcu_math.c", "crc32.c", "selftest.c")
STRICT = ("-Wall", "-Wextra", "-Werror", "-O2")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[..., bytes]


def build(out: Path, *flags: str) -> Path:
    """The driver with the runtime sources under these flags."""
    runtime = resources.path("firmware") / "runtime"
    sources = [str(runtime / name) for name in SOURCES] + [str(HERE / "math_driver.c")]
    subprocess.run(["gcc", *STRICT, *flags, f"-I{runtime}", *sources, "-o", str(out)], check=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    driver = build(tmp_path_factory.mktemp("math") / "driver", "-std=c99", "-ffp-contract=off", *SANITIZE)

    def call(name: str, data: bytes = b"") -> bytes:
        return subprocess.run([driver, name], input=data, capture_output=True, check=True, timeout=120).stdout

    return call


def floats(run: Run, name: str, x: Array) -> Array:
    return np.frombuffer(run(name, x.astype("<f4").tobytes()), "<f4")


def in_ulps(y: Array, exact: Array) -> Array:
    """|y - exact| in units of the last place of float32(exact)."""
    return np.abs(y.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


# ---- binary16 ----


def test_every_half_expands_exactly(run: Run) -> None:
    halves = np.arange(65536, dtype="<u2")
    got = np.frombuffer(run("expand", halves.tobytes()), "<u4")
    want = halves.view("<f2").astype("<f4").view("<u4")
    nan = np.isnan(halves.view("<f2"))
    assert np.array_equal(got[~nan], want[~nan])
    assert np.isnan(got[nan].view("<f4")).all()


def test_every_finite_half_survives_the_round_trip(run: Run) -> None:
    halves = np.arange(65536, dtype="<u2")
    halves = halves[np.isfinite(halves.view("<f2"))]
    values = halves.view("<f2").astype("<f4")
    assert np.array_equal(np.frombuffer(run("nearest", values.tobytes()), "<u2"), halves)
    for random in (0, 1, 65535):
        assert np.array_equal(stochastic(run, values, np.full(len(values), random)), halves)


def edge_values() -> Array:
    """Floats around every binary16: the value, the middle to the next one, and the neighbours of both."""
    halves = np.arange(0x7C00, dtype="<u2").view("<f2").astype(np.float64)
    middles = (halves[1:] + halves[:-1]) / 2
    points = np.concatenate([halves, middles]).astype(np.float32)
    around = [points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(0))]
    wild = np.random.default_rng(5).integers(0, 0x7F800000, 200_000, dtype=np.uint32).view(np.float32)
    small = np.ldexp(np.random.default_rng(6).uniform(0.5, 1, 100_000), np.arange(100_000) % 60 - 45).astype(np.float32)
    values = np.concatenate([*around, wild, small])
    return np.concatenate([values, -values])


def test_nearest_is_ieee_with_saturation(run: Run) -> None:
    values = edge_values()
    got = np.frombuffer(run("nearest", values.astype("<f4").tobytes()), "<u2")
    with np.errstate(over="ignore"):
        want = np.clip(values, -65504, 65504).astype("<f2").view("<u2")
    assert np.array_equal(got, want)


def stochastic(run: Run, values: Array, random: Array) -> Array:
    records = np.empty(len(values), [("value", "<f4"), ("random", "<u4")])
    records["value"], records["random"] = values, random
    return np.frombuffer(run("stochastic", records.tobytes()), "<u2")


def stochastic_model(values: Array, random: Array) -> Array:
    """Exact rational arithmetic: truncate, then up where floor(fraction * 65536) + random reaches 65536."""
    magnitude = np.minimum(np.abs(values.astype(np.float64)), 65504.0)
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, -14)
    units = np.ldexp(magnitude, 10 - exponent)
    whole = np.floor(units)
    whole += np.floor((units - whole) * 65536) + random >= 65536
    rounded = np.minimum(np.ldexp(whole, exponent - 10), 65504.0)
    return np.copysign(rounded, values).astype("<f2").view("<u2")


def test_stochastic_matches_exact_arithmetic(run: Run) -> None:
    values = edge_values()
    random = np.random.default_rng(7).integers(0, 65536, len(values))
    for r in (random, np.zeros_like(random), np.full_like(random, 32768), np.full_like(random, 65535)):
        assert np.array_equal(stochastic(run, values, r), stochastic_model(values, r))


def test_stochastic_goes_up_as_often_as_the_fraction_says(run: Run) -> None:
    value = np.float32(1 + 0.3 * 2**-10)
    ups = stochastic(run, np.full(65536, value), np.arange(65536)) == 0x3C01
    fraction = (float(value) - 1) * 1024
    assert int(ups.sum()) == int(fraction * 65536)


# ---- exp, log, sqrt ----


def test_exp_is_within_two_ulps_and_never_subnormal(run: Run) -> None:
    x = np.concatenate([np.linspace(-90, 88.72, 2_000_001), np.linspace(-1, 1, 500_001)]).astype(np.float32)
    y, exact = floats(run, "exp", x), np.exp(x.astype(np.float64))
    normal = exact >= 2.0**-126 * (1 + 1e-6)
    assert in_ulps(y[normal], exact[normal]).max() < 1.5
    assert (y[exact < 2.0**-126 * (1 - 1e-6)] == 0).all()
    assert ((y == 0) | (y >= np.float32(2.0**-126))).all()


def test_exp_at_its_edges(run: Run) -> None:
    x = np.array([0.0, -0.0, -87.3365, -87.34, -1e30, -np.inf, 88.72283, 88.73, 1e30, np.inf], np.float32)
    y = floats(run, "exp", x)
    assert list(y[:2]) == [1.0, 1.0]
    assert 0 < y[2] < 2.0**-125
    assert list(y[3:6]) == [0.0, 0.0, 0.0]
    assert np.isfinite(y[6]) and in_ulps(y[6:7], np.exp(x[6:7].astype(np.float64))).max() < 1.5
    assert np.isinf(y[7:]).all()


def test_log_is_within_two_ulps(run: Run) -> None:
    bits = np.random.default_rng(8).integers(1, 0x7F800000, 1_000_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([bits, np.linspace(0.5, 2, 1_000_001), np.linspace(1, 700, 700_001)]).astype(np.float32)
    y, exact = floats(run, "log", x), np.log(x.astype(np.float64))
    assert in_ulps(y[x != 1], exact[x != 1]).max() < 1.5
    assert (y[x == 1] == 0).all()


def test_sqrt_is_correctly_rounded(run: Run) -> None:
    bits = np.random.default_rng(9).integers(0, 0x7F800000, 1_000_000, dtype=np.uint32).view(np.float32)
    squares = np.arange(5000, dtype=np.float32) ** 2
    x = np.concatenate([bits, squares, np.array([0, 2**-149, 2**-126, 3.4028235e38], np.float32)])
    assert np.array_equal(floats(run, "sqrt", x), np.sqrt(x))


# ---- random bits and checksum ----


def mix(x: Array) -> Array:
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def test_nearest_integer_is_half_away_from_zero(run: Run) -> None:
    """Halves and their neighbours in every binade, and random floats, against exact rational arithmetic."""
    halves = np.concatenate([np.arange(2000), 2 ** np.arange(24) - 1, 2 ** np.arange(24)]) + np.float32(0.5)
    bits = halves.astype(np.float32).view(np.uint32)
    words = np.concatenate([bits + np.uint32(d) for d in (0, 1, 2**32 - 1)])
    words = np.concatenate([words, np.random.default_rng(11).integers(0, 0x4E800000, 50_000, dtype=np.uint32)])
    values = np.concatenate([words, words | np.uint32(1 << 31)]).view(np.float32)
    want = [int(abs(Fraction(float(v))) + Fraction(1, 2)) * (-1 if v < 0 else 1) for v in values]
    assert np.array_equal(np.frombuffer(run("round", values.tobytes()), "<i4"), want)


@pytest.mark.slow
def test_nearest_integer_of_every_float(tmp_path: Path) -> None:
    """2.6 billion values, so without sanitizers."""
    driver = build(tmp_path / "driver", "-std=c99", "-ffp-contract=off")
    wrong = subprocess.run([driver, "round_every"], capture_output=True, check=True, timeout=280).stdout
    assert wrong == bytes(4)


def test_mix_and_rand_follow_the_formula(run: Run) -> None:
    words = np.random.default_rng(10).integers(0, 2**32, (50_000, 4), dtype=np.uint32)
    words[:, 1] %= 4
    assert np.array_equal(np.frombuffer(run("mix", words.tobytes()), "<u4"), mix(words.ravel()))
    seed, stream, step, index = words.T
    want = mix(index * np.uint32(0x9E3779B9) + mix(step ^ mix(seed ^ stream * np.uint32(0x85EBCA6B))))
    assert np.array_equal(np.frombuffer(run("random", words.tobytes()), "<u4"), want)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 100_003])
def test_crc32_is_zlibs(run: Run, size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert int.from_bytes(run("crc32", data), "little") == zlib.crc32(data)


# ---- the boot self-test ----


def test_self_test_passes_here(run: Run) -> None:
    assert run("self_test") == b"\1"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets the SSE control word")
@pytest.mark.parametrize("mode", ["flush", "denormals_are_zero", "round_down", "round_up", "round_to_zero"])
def test_self_test_refuses_a_wrong_environment(run: Run, mode: str) -> None:
    assert run(f"self_test_{mode}") == b"\0"


def has_fma() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and " fma " in info.read_text()


@pytest.mark.skipif(not has_fma(), reason="needs a processor with FMA")
def test_contraction_is_refused_by_the_header_and_seen_by_the_self_test(tmp_path: Path) -> None:
    fused = ("-std=gnu99", "-mfma", "-ffp-contract=fast")
    guarded = build(tmp_path / "guarded", *fused)
    bare = build(tmp_path / "bare", *fused, "-DLMCU_STRICT_H", "-DLMCU_INLINE=static inline")
    assert subprocess.run([guarded, "self_test"], capture_output=True, check=True).stdout == b"\1"
    assert subprocess.run([bare, "self_test"], capture_output=True, check=True).stdout == b"\0"


@pytest.mark.parametrize("flags", [["-ffast-math"], ["-m32", "-mfpmath=387"]])
def test_wrong_float_flags_do_not_compile(flags: list[str], tmp_path: Path) -> None:
    header = resources.path("firmware") / "runtime" / "lmcu_strict.h"
    command = ["gcc", "-std=c99", *flags, "-fsyntax-only", "-x", "c", str(header)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "lmcu:" in result.stderr

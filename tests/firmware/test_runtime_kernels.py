# SPDX-License-Identifier: Apache-2.0
"""Kernels against plain NumPy that follows docs/numerics.md, byte by byte: adapters forward, and every backward."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_mcu import resources
from lora_mcu.codegen import quantmath, rounding

HERE = Path(__file__).parent
RUNTIME = ("dense", "conv2d", "depthwise", "average_pool", "max_pool", "mean", "add", "pad", "lora", "matvec", "patch")
F = np.float32
Array = np.ndarray[Any, np.dtype[Any]]
I32, PTR, FLOAT = ctypes.c_int32, ctypes.c_void_p, ctypes.c_float
OFFSET = 7  # of A in the factors: nothing may rely on alignment or on a layer being the first


class Clamp(ctypes.Structure):
    _fields_ = [(n, I32) for n in ("act_min", "act_max", "min_is_bound", "max_is_bound")]


class Lora(ctypes.Structure):
    _fields_ = [
        ("rank", I32),
        ("a_offset", I32),
        ("b_offset", I32),
        ("in_bias", I32),
        ("gamma", FLOAT),
        ("input_scale", FLOAT),
        ("c", PTR),
    ]


class Dense(ctypes.Structure):
    _fields_ = [(n, I32) for n in ("batch", "k", "m", "input_zero_point", "weight_zero_point", "output_zero_point")]
    _fields_ += [("clamp", Clamp), ("multiplier", PTR), ("shift", PTR), ("per_channel", I32)]
    _fields_ += [("weights", PTR), ("bias", PTR), ("weight_scale", PTR)]


class Conv(ctypes.Structure):
    _fields_ = [(n, I32) for n in (
        "in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h",
        "dilation_w", "pad_top", "pad_left", "input_zero_point", "output_zero_point")]  # fmt: skip
    _fields_ += [("clamp", Clamp), ("fraction", PTR), ("right", PTR), ("weights", PTR), ("bias", PTR)]
    _fields_ += [("weight_scale", PTR)]


class Depthwise(ctypes.Structure):
    _fields_ = [("conv", Conv), ("multiplier", I32)]


class Pool(ctypes.Structure):
    _fields_ = [(n, I32) for n in ("in_h", "in_w", "channels", "out_h", "out_w", "kernel_h", "kernel_w", "stride_h",
                                   "stride_w", "pad_top", "pad_left")]  # fmt: skip
    _fields_ += [("clamp", Clamp)]


class Mean(ctypes.Structure):
    _fields_ = [(n, I32) for n in ("outer", "count", "inner", "zx", "zy", "multiplier", "shift")] + [("inverse", FLOAT)]


class Add(ctypes.Structure):
    _fields_ = [("shape", I32 * 12)] + [(f"f{i}", I32) for i in range(10)] + [("clamp", Clamp)]


class Pad(ctypes.Structure):
    _fields_ = [("dims", I32 * 4), ("before", I32 * 4), ("after", I32 * 4), ("value", I32)]


@dataclass
class Kernels:
    lib: ctypes.CDLL
    factors: Array
    gradients: Array

    def __call__(self, name: str, params: ctypes.Structure, *arguments: Any) -> None:
        """Calls lmcu_<name>(&params, ...): arrays as pointers, structures by reference, None as NULL."""

        def convert(a: Any) -> Any:
            if isinstance(a, ctypes.Structure):
                return ctypes.byref(a)
            return None if a is None else a.ctypes.data_as(PTR)

        getattr(self.lib, f"lmcu_{name}")(ctypes.byref(params), *map(convert, arguments))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    runtime = resources.path("firmware") / "runtime"
    out = tmp_path_factory.mktemp("kernels") / "kernels.so"
    flags = ["-std=c99", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
             "-fsanitize=undefined", "-fno-sanitize-recover=all", f"-I{runtime}"]  # fmt: skip
    sources = [str(runtime / f"{name}.c") for name in RUNTIME] + [str(HERE / "blank_model.c")]
    subprocess.run(["gcc", *flags, *sources, "-o", str(out)], check=True, timeout=120)
    lib = ctypes.CDLL(str(out))
    factors = np.frombuffer((ctypes.c_uint16 * 8192).in_dll(lib, "blank_factors"), "<f2")
    gradients = np.frombuffer((ctypes.c_float * 8192).in_dll(lib, "blank_gradients"), "<f4")
    return Kernels(lib, factors, gradients)


# ---- the reference: one term at a time, vectorized across results ----


def add_up(terms: Array) -> Array:
    """Sum over axis 0 with one float32 accumulator from +0, indices ascending."""
    total = np.zeros(terms.shape[1:], F)
    for term in terms:
        total = (total + term).astype(F)
    return total


def masked(g: Array, y: Array, clamp: Clamp) -> Array:
    high = (y >= clamp.act_max) & ((clamp.max_is_bound != 0) | (g < 0))
    low = (y <= clamp.act_min) & ((clamp.min_is_bound != 0) | (g > 0))
    return np.where(high | low, F(0), g).astype(F)


def multiply(x: int, multiplier: int, shift: int) -> int:
    """gemmlowp's two roundings with Python integers."""
    product = x * 2 ** max(shift, 0) * multiplier
    high = (product + 2**30) // 2**31
    right = max(-shift, 0)
    half = 2**right // 2
    return (abs(high) + half) // 2**right * (1 if high >= 0 else -1)


@dataclass
class Layer:
    """A random layer as a matrix: its patches [P, K], and where each patch value stands in x (-1: padding)."""

    params: ctypes.Structure
    x: Array
    patches: Array
    places: Array
    weights: Array
    weight_zero_point: int
    bias: Array
    scales: Array
    ratios: list[float]
    keep: list[Array]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.patches.shape[0], self.weights.shape[0], self.weights.shape[1]


def random_clamp(rng: np.random.Generator, zero_point: int) -> Clamp:
    kind = rng.integers(3)
    low = zero_point if kind else -128
    high = min(127, zero_point + 90) if kind == 2 else 127
    return Clamp(low, high, int(kind > 0), int(kind == 2))


def dense_layer(rng: np.random.Generator) -> Layer:
    batch, k, m = (int(rng.integers(1, n)) for n in (4, 90, 30))
    zx, zy, zw = int(rng.integers(-128, 128)), int(rng.integers(-60, 60)), int(rng.choice([0, 0, 5, -3]))
    x, w = rng.integers(-128, 128, (batch, k)).astype(np.int8), rng.integers(-127, 128, (m, k)).astype(np.int8)
    bias, scales = rng.integers(-3000, 3000, m).astype(np.int32), rng.uniform(1e-3, 0.05, m).astype(F)
    ratios = [0.04 * float(s) / 0.7 for s in scales]
    wide = rng.choice([0.0, 0.3, 1.0])  # the share of outputs in the wide form
    pairs = [rounding.multiplier(r) if rng.random() < wide else rounding.pair(r) for r in ratios]
    keep = [np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.uint8)]
    pointers: list[int | None] = [a.ctypes.data for a in (*keep, w, bias, scales)]
    pointers[1] = None if wide == 0 and rng.random() < 0.5 else pointers[1]
    params = Dense(batch, k, m, zx, zw, zy, random_clamp(rng, zy), *pointers[:2], 1, *pointers[2:])
    places = np.arange(batch * k).reshape(batch, k)
    return Layer(params, x, x.astype(np.int64) - zx, places, w, zw, bias, scales, ratios, keep)


def windows(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(input, kernel, stride, dilation, padding) sizes of a random window operator; the output is at least 1 x 1."""
    kernel = tuple(int(v) for v in rng.integers(1, 5, 2))
    dilation = (2, 1) if rng.random() < 0.2 else (1, 1)
    size = tuple(int(v) + d * (k - 1) for v, d, k in zip(rng.integers(1, 6, 2), dilation, kernel, strict=True))
    stride = tuple(int(v) for v in rng.integers(1, 4, 2))
    padding = tuple(int(rng.integers(0, k)) for k in kernel)
    return size, kernel, stride, dilation, padding


def output_size(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...],
                padding: tuple[int, ...]) -> tuple[int, int]:  # fmt: skip
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    h, w = ((n + 2 * p - e) // s + 1 for n, p, e, s in zip(size, padding, extents, stride, strict=True))
    return h, w


def taps(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...],
         padding: tuple[int, ...]) -> Array:  # fmt: skip
    """[out_h, out_w, kernel_h, kernel_w]: the pixel's row-major index, -1 in the padding."""
    out = output_size(size, kernel, stride, dilation, padding)
    grids = []
    for n, k, s, d, p, o in zip(size, kernel, stride, dilation, padding, out, strict=True):
        at = np.arange(o)[:, None] * s - p + np.arange(k)[None] * d
        grids.append(np.where((at >= 0) & (at < n), at, -1))
    rows, columns = grids[0][:, None, :, None], grids[1][None, :, None, :]
    return np.where((rows >= 0) & (columns >= 0), rows * size[1] + columns, -1)


def conv_params(rng: np.random.Generator, geometry: tuple[tuple[int, ...], ...], channels: tuple[int, int], w: Array,
                bias: Array, scales: Array) -> tuple[Conv, list[float], list[Array]]:  # fmt: skip
    size, kernel, stride, dilation, padding = geometry
    out = output_size(size, kernel, stride, dilation, padding)
    zx, zy = int(rng.integers(-128, 128)), int(rng.integers(-60, 60))
    ratios = [0.04 * float(s) / 0.7 for s in scales]
    keep = [*quantmath.double_rounding(ratios), w, bias, scales]
    sizes = (*size, channels[0], *out, channels[1], *kernel, *stride, *dilation, *padding, zx, zy)
    return Conv(*sizes, random_clamp(rng, zy), *[a.ctypes.data for a in keep]), ratios, keep


def conv_layer(rng: np.random.Generator) -> Layer:
    geometry = windows(rng)
    size, kernel = geometry[:2]
    c, m = int(rng.integers(1, 8)), int(rng.integers(1, 14))
    k = kernel[0] * kernel[1] * c
    x, w = rng.integers(-128, 128, (*size, c)).astype(np.int8), rng.integers(-127, 128, (m, k)).astype(np.int8)
    bias, scales = rng.integers(-3000, 3000, m).astype(np.int32), rng.uniform(1e-3, 0.05, m).astype(F)
    params, ratios, keep = conv_params(rng, geometry, (c, m), w, bias, scales)
    pixels = taps(*geometry).reshape(-1, kernel[0] * kernel[1])
    places = np.where(pixels[:, :, None] >= 0, pixels[:, :, None] * c + np.arange(c), -1).reshape(len(pixels), k)
    values = x.ravel().astype(np.int64)[places] - params.input_zero_point
    return Layer(params, x, np.where(places >= 0, values, 0), places, w, 0, bias, scales, ratios, keep)


def requantized(layer: Layer, acc: int, o: int) -> int:
    if isinstance(layer.params, Dense):
        multiplier, shift = rounding.multiplier(layer.ratios[o])
        magnitude = (min(abs(acc), 2**31 - 1) * multiplier + 2 ** (shift - 1)) >> shift
        return magnitude if acc >= 0 else -magnitude
    multiplier, shift = quantmath.quantize_multiplier(layer.ratios[o])
    limit = (2**31 - 1) >> max(shift, 0)
    return multiply(max(-limit, min(limit, acc)), multiplier, shift)


@dataclass
class Factors:
    lora: Lora
    a: Array
    b: Array
    c: Array
    gamma: Any
    scale: Any


def random_factors(rng: np.random.Generator, layer: Layer, kernels: Kernels, zero_b: bool) -> Factors:
    rank, (_, m, k) = int(rng.choice([1, 2, 3, 4, 4, 4, 5, 8, 9])), layer.shape
    a, b = rng.normal(0, 0.1, (rank, k)).astype("<f2"), rng.normal(0, 0.1, (m, rank)).astype("<f2")
    b *= 0 if zero_b else 1
    kernels.factors[OFFSET : OFFSET + a.size] = a.ravel()
    kernels.factors[OFFSET + a.size : OFFSET + a.size + b.size] = b.ravel()
    gamma, scale = F(rng.uniform(0.3, 4)), F(rng.uniform(1e-3, 0.1))
    c = (gamma / layer.scales).astype(F)
    in_bias = int(layer.weight_zero_point == 0 and rng.random() < 0.8)
    lora = Lora(rank, OFFSET, OFFSET + a.size, in_bias, gamma, scale, c.ctypes.data)
    return Factors(lora, a.astype(F), b.astype(F), c, gamma, scale)


def projected(patch: Array, f: Factors) -> Array:
    return add_up((f.a * patch.astype(F)).T)


def delta(patch: Array, f: Factors) -> Array:
    """The adapter's part of the accumulator [M]."""
    line = np.clip(f.c * add_up((f.b * projected(patch, f)).T), F(-(2**30)), F(2**30)).astype(F)
    whole = np.trunc(line)
    rest = line - whole
    return whole.astype(np.int64) + (rest >= 0.5) - (rest <= -0.5)


def expected_output(layer: Layer, f: Factors | None) -> Array:
    w = layer.weights.astype(np.int64) - layer.weight_zero_point
    y = np.zeros(layer.shape[:2], np.int64)
    for p, patch in enumerate(layer.patches):
        acc = w @ patch + layer.bias + (0 if f is None else delta(patch, f))
        y[p] = [requantized(layer, int(v), o) for o, v in enumerate(acc)]
    clamp: Clamp = layer.params.clamp
    return np.clip(y + layer.params.output_zero_point, clamp.act_min, clamp.act_max)


@dataclass
class Expected:
    da: Array
    db: Array
    dx: Array


def expected_gradients(layer: Layer, f: Factors | None, g: Array) -> Expected:
    w = (layer.weights.astype(np.int32) - layer.weight_zero_point).astype(F)
    dx = np.zeros(layer.x.size, F)
    da, db = (np.zeros((0, 0), F),) * 2 if f is None else (np.zeros_like(f.a), np.zeros_like(f.b))
    for patch, place, gp in zip(layer.patches, layer.places, g, strict=True):
        val = add_up((layer.scales * gp)[:, None] * w)
        if f is not None:
            u = f.scale * projected(patch, f)
            h = f.gamma * add_up(f.b * gp[:, None])
            db = db + (f.gamma * gp)[:, None] * u
            da = da + (h * f.scale)[:, None] * patch.astype(F)
            val = val + add_up(f.a * h[:, None])
        inside = place >= 0
        dx[place[inside]] += val[inside]
    return Expected(da, db, dx)


def scratch_floats(layer: Layer, rank: int, positions: int) -> int:
    """Of a kernel with patches of so many positions, without val, as lmcu_ops.h states it."""
    _, m, k = layer.shape
    whole = -(-k // 4) * 4
    if isinstance(layer.params, Dense):
        return whole // 2
    gathers = layer.params.in_c % 4 != 0 and layer.params.kernel_h * layer.params.kernel_w > 1
    return (2 * positions + gathers) * whole // 4 + rank * (k + m)


@pytest.mark.parametrize("kind", ["dense", "conv2d"])
@pytest.mark.parametrize("case", range(40))
def test_dense_and_convolution_with_and_without_adapter(kernels: Kernels, kind: str, case: int) -> None:
    rng = np.random.default_rng([case, len(kind)])
    layer = dense_layer(rng) if kind == "dense" else conv_layer(rng)
    positions, m, k = layer.shape
    f = None if case % 4 == 3 else random_factors(rng, layer, kernels, zero_b=case % 4 == 2)
    rank = 0 if f is None else f.lora.rank
    lora = None if f is None else f.lora
    biases = 2 * m if kind == "conv2d" and rank else 0
    forward = np.append(np.zeros(scratch_floats(layer, rank, 2 if kind == "conv2d" else 1) + biases, F), F(12345.0))
    scratch = np.append(np.zeros(scratch_floats(layer, rank, 1) + k, F), F(12345.0))
    y = np.full((positions, m), 99, np.int8)
    kernels(f"{kind}_forward", layer.params, lora, layer.x, y, forward)
    assert np.array_equal(y, expected_output(layer, f))

    g = rng.normal(0, 1, (positions, m)).astype(F)
    g[rng.random(g.shape) < 0.3] = 0
    g[rng.integers(positions)] = 0
    dy, dx = g.copy(), np.zeros(layer.x.size, F)
    kernels.gradients[:] = 0
    kernels(f"{kind}_backward", layer.params, lora, layer.x, y, dy, dx, scratch)
    g = masked(g, y, layer.params.clamp)
    want = expected_gradients(layer, f, g)
    assert np.array_equal(dy, g)
    assert np.array_equal(dx, want.dx)
    used = OFFSET + want.da.size + want.db.size
    got = kernels.gradients[OFFSET:used]
    assert np.array_equal(got, np.concatenate([want.da.ravel(), want.db.ravel()]))
    assert not kernels.gradients[:OFFSET].any() and not kernels.gradients[used:].any()
    assert scratch[-1] == forward[-1] == 12345.0
    if f is not None:
        before = got.copy()
        kernels.gradients[:] = 0
        kernels(f"{kind}_backward", layer.params, lora, layer.x, y, g.copy(), None, scratch[: len(scratch) - k])
        assert np.array_equal(kernels.gradients[OFFSET:used], before)


def test_zero_adapter_is_the_base(kernels: Kernels) -> None:
    rng = np.random.default_rng(77)
    layer = conv_layer(rng)
    f = random_factors(rng, layer, kernels, zero_b=True)
    scratch = np.zeros(8192, F)
    outputs = []
    for lora in (None, f.lora):
        y = np.zeros(layer.shape[:2], np.int8)
        kernels("conv2d_forward", layer.params, lora, layer.x, y, scratch)
        outputs.append(y.tobytes())
    assert outputs[0] == outputs[1]


def test_an_adapter_rounds_halves_away_from_zero(kernels: Kernels) -> None:
    x = np.arange(-100, 101).astype(np.int8)[:, None]
    weights, c = np.zeros((1, 1), np.int8), np.array([2.0], F)
    multiplier, shift = np.array([1 << 40], np.uint64), np.array([40], np.uint8)
    kernels.factors[:2] = [1.0, 0.25]
    params = Dense(201, 1, 1, 0, 0, 0, Clamp(-128, 127, 0, 0), multiplier.ctypes.data, shift.ctypes.data, 0)
    params.weights = weights.ctypes.data
    y = np.zeros((201, 1), np.int8)
    kernels("dense_forward", params, Lora(1, 0, 1, 0, 1.0, 1.0, c.ctypes.data), x, y, np.zeros(4, F))
    half = x[:, 0].astype(np.int64)
    assert np.array_equal(y[:, 0], np.sign(half) * ((np.abs(half) + 1) // 2))


@pytest.mark.parametrize("value", [65504.0, -65504.0])
def test_an_exploded_adapter_saturates_without_overflow(kernels: Kernels, value: float) -> None:
    layer = dense_layer(np.random.default_rng(78))
    f = random_factors(np.random.default_rng(79), layer, kernels, zero_b=False)
    kernels.factors[:] = np.where(np.arange(8192) >= f.lora.b_offset, value, 65504.0)
    f.a[:], f.b[:] = 65504.0, value
    y = np.zeros(layer.shape[:2], np.int8)
    kernels("dense_forward", layer.params, f.lora, layer.x, y, np.zeros(4096, F))
    assert np.array_equal(y, expected_output(layer, f))


@pytest.mark.parametrize("case", range(20))
def test_depthwise(kernels: Kernels, case: int) -> None:
    rng = np.random.default_rng([case, 3])
    geometry = windows(rng)
    size, kernel = geometry[:2]
    multiplier, c = int(rng.choice([1, 1, 2, 3])), int(rng.integers(1, 80))
    m = c * multiplier
    x, w = rng.integers(-128, 128, (*size, c)).astype(np.int8), rng.integers(-127, 128, (*kernel, m)).astype(np.int8)
    bias, scales = rng.integers(-3000, 3000, m).astype(np.int32), rng.uniform(1e-3, 0.05, m).astype(F)
    conv, ratios, _keep = conv_params(rng, geometry, (c, m), w, bias, scales)
    params, pixels = Depthwise(conv, multiplier), taps(*geometry)
    out, real = pixels.shape[:2], x.reshape(-1, c).astype(np.int64) - conv.input_zero_point
    y = np.zeros((*out, m), np.int8)
    kernels("depthwise_forward", params, x, y)

    at = pixels.reshape(-1, kernel[0] * kernel[1])
    flat = w.reshape(-1, m)
    patch = np.where(at[:, :, None] >= 0, np.repeat(real[at], multiplier, axis=2), 0)
    acc = (patch * flat).sum(1) + bias
    pairs = [quantmath.quantize_multiplier(r) for r in ratios]
    want = [[multiply(int(v), *pair) for v, pair in zip(row, pairs, strict=True)] for row in acc]
    clamp: Clamp = conv.clamp
    assert np.array_equal(
        y.reshape(-1, m), np.clip(np.array(want) + conv.output_zero_point, clamp.act_min, clamp.act_max)
    )

    dy, dx = rng.normal(0, 1, y.shape).astype(F), np.zeros((x.size // c, c), F)
    g = masked(dy, y, clamp).reshape(-1, m)
    expected = np.zeros_like(dx)
    for pixel, gp in zip(at, g, strict=True):
        for tap, weight in zip(pixel, flat, strict=True):
            if tap >= 0:
                terms = ((scales * gp) * weight.astype(F)).reshape(c, multiplier)
                expected[tap] += add_up(terms.T)
    kernels("depthwise_backward", params, y, dy, dx)
    assert np.array_equal(dx, expected)


@pytest.mark.parametrize("kind", ["average_pool", "max_pool"])
@pytest.mark.parametrize("case", range(15))
def test_pools(kernels: Kernels, kind: str, case: int) -> None:
    rng = np.random.default_rng([case, len(kind)])
    size, kernel, stride, _, padding = windows(rng)
    pixels, c = taps(size, kernel, stride, (1, 1), padding), int(rng.integers(1, 9))
    clamp = random_clamp(rng, int(rng.integers(-100, 0)))
    params = Pool(*size, c, *pixels.shape[:2], *kernel, *stride, *padding, clamp)
    x = rng.integers(-128, 128, (size[0] * size[1], c)).astype(np.int8)
    at = pixels.reshape(-1, kernel[0] * kernel[1])
    y = np.zeros((len(at), c), np.int8)
    kernels(f"{kind}_forward", params, x, y)
    dy, dx, expected = rng.normal(0, 1, y.shape).astype(F), np.zeros(x.shape, F), np.zeros(x.shape, F)
    g = masked(dy, y, clamp)
    for i, pixel in enumerate(at):
        inside = pixel[pixel >= 0]
        n = len(inside)
        values = x[inside].astype(np.int64)
        total = values.sum(0)
        mean = (np.abs(total) + n // 2) // n * np.sign(total)
        best = mean if kind == "average_pool" else values.max(0)
        assert np.array_equal(y[i], np.clip(best, clamp.act_min, clamp.act_max))
        if kind == "average_pool":
            expected[inside] += g[i] * (F(1) / F(n))
        else:
            expected[inside[values.argmax(0)], np.arange(c)] += g[i]
    arguments = (y, dy, dx) if kind == "average_pool" else (x, y, dy, dx)
    kernels(f"{kind}_backward", params, *arguments)
    assert np.array_equal(dx, expected)


def test_mean_backward(kernels: Kernels) -> None:
    rng = np.random.default_rng(4)
    y = np.array([[127, -128, 5]] * 2, np.int8)
    dy, dx = rng.normal(0, 1, (2, 3)).astype(F), np.zeros((2, 7, 3), F)
    inverse = F(1) / F(7)
    want = np.repeat((masked(dy, y, Clamp(-128, 127, 0, 0)) * inverse)[:, None], 7, axis=1)
    kernels("mean_backward", Mean(2, 7, 3, 0, 0, 0, 0, inverse), y, dy, dx)
    assert np.array_equal(dx, want)


@pytest.mark.parametrize("b_count", [1, 6])
@pytest.mark.parametrize("same", [False, True])
def test_add_backward(kernels: Kernels, b_count: int, same: bool) -> None:
    rng = np.random.default_rng(6)
    clamp = Clamp(-20, 127, 1, 0)
    y = np.array([-20, 127, 3, 127, 4, -20], np.int8)
    dy, da, db = rng.normal(0, 1, 6).astype(F), rng.normal(0, 1, 6).astype(F), np.ones(b_count, F)
    g = masked(dy, y, clamp)
    shape = (I32 * 12)(1, 1, 1, 6, 0, 0, 0, 1, 0, 0, 0, int(b_count == 6))
    params = Add(shape, *[0] * 10, clamp)
    if same and b_count == 6:
        want_a = (da + g) + g
        kernels("add_backward", params, y, dy, da, da)
        assert np.array_equal(da, want_a)
        return
    want_a, want_b = da + g, db + g if b_count == 6 else np.array([add_up(np.concatenate([[F(1)], g]).astype(F))])
    kernels("add_backward", params, y, dy, da, db)
    assert np.array_equal(da, want_a)
    assert np.array_equal(db, want_b)
    kernels("add_backward", params, y, dy, None, None)


def test_pad(kernels: Kernels) -> None:
    rng = np.random.default_rng(8)
    before, after = (1, 0, 2, 1), (0, 3, 1, 0)
    x = rng.integers(-128, 128, (2, 3, 2, 4)).astype(np.int8)
    params = Pad((I32 * 4)(*x.shape), (I32 * 4)(*before), (I32 * 4)(*after), -7)
    y = np.pad(x, list(zip(before, after, strict=True)), constant_values=-7)
    got = np.zeros_like(y)
    kernels("pad_forward", params, x, got)
    assert np.array_equal(got, y)
    dy, dx = rng.normal(0, 1, y.shape).astype(F), np.ones(x.shape, F)
    kernels("pad_backward", params, dy, dx)
    assert np.array_equal(dx, 1 + dy[1:, 0:3, 2:4, 1:])

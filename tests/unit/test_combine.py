# SPDX-License-Identifier: Apache-2.0
"""Combining and comparing adapters, against float64 written out here, and the command line over it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors

import lora_mcu
from lora_mcu.adapters import Adapter
from lora_mcu.adapters.combining import dare, difference, ties, truncate
from lora_mcu.cli import main
from lora_mcu.info import LayerInfo, ModelInfo, TensorInfo
from lora_mcu.random_bits import rand

INFO = ModelInfo(
    name="m", board="native", numerics="f32", loss="cross_entropy", model_sha256="ab" * 32, layout_sha256="cd" * 32,
    input=TensorInfo((4,), "int8", 0.1, 0), output=TensorInfo((3,), "int8", 0.1, 0), logit_count=3, rank=2, alpha=6.0,
    rslora=False, layers=(LayerInfo("z_conv", 7, 12, (2, 3, 2)), LayerInfo("dense", 5, 9, None)), store_capacity=10,
)  # fmt: skip
GAMMA = 3.0


def adapter(seed: int) -> Adapter:
    values = np.random.default_rng(seed).uniform(-1, 1, INFO.parameters)
    return Adapter.from_factors(INFO, values.astype("<f2").tobytes())


ONE, TWO, THREE = adapter(1), adapter(2), adapter(3)


def product(x: Adapter, name: str) -> np.ndarray:
    a, b = x.layers[name]
    return GAMMA * np.einsum("mr,rk->mk", b.astype(np.float64), a.astype(np.float64))


def far(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


# ---- formulas ----


def test_svd_is_the_best_of_its_rank() -> None:
    """Eckart and Young: what is lost are exactly the singular values beyond the rank."""
    made = lora_mcu.combine([ONE, TWO, THREE], "svd", weights=[0.5, 0.3, 0.4])
    for name in ONE.layers:
        exact = 0.5 * product(ONE, name) + 0.3 * product(TWO, name) + 0.4 * product(THREE, name)
        s = np.linalg.svd(exact, compute_uv=False)
        lost = float(np.sqrt(np.sum(s[2:] ** 2)) / np.linalg.norm(exact))
        assert 0.1 < lost < 0.9
        assert far(product(made.adapter, name), exact) == pytest.approx(lost, rel=1e-4)
        assert made.distance[name] == pytest.approx(lost, rel=1e-4)
    assert (made.adapter.rank, made.adapter.alpha, made.adapter.layout_sha256) == (2, 6.0, INFO.layout_sha256)
    assert len(made.adapter.to_factors(INFO)) == 2 * INFO.parameters


def test_svd_of_one_adapter_alone_is_that_adapter() -> None:
    made = lora_mcu.combine([ONE, TWO], "svd", weights=[1, 0])
    for name in ONE.layers:
        assert far(product(made.adapter, name), product(ONE, name)) < 1e-3
        assert made.adapter.layers[name][0].tobytes() != ONE.layers[name][0].tobytes(), "other factors, same product"


def test_the_mean_of_factors_is_not_the_mean_of_products() -> None:
    made = lora_mcu.combine([ONE, TWO], "linear", weights=[0.75, 0.5])
    for name in ONE.layers:
        (a1, b1), (a2, b2) = ([f.astype(np.float64) for f in x.layers[name]] for x in (ONE, TWO))
        assert made.adapter.layers[name][0].tolist() == ((0.75 * a1 + 0.5 * a2) / 1.25).astype(np.float16).tolist()
        assert made.adapter.layers[name][1].tolist() == (0.75 * b1 + 0.5 * b2).astype(np.float16).tolist()
        assert (made.distance[name] or 0) > 0.3


def test_linear_is_exact_where_a_is_equal() -> None:
    frozen = replace(TWO, layers={name: (ONE.layers[name][0], b) for name, (_, b) in TWO.layers.items()})
    made = lora_mcu.combine([ONE, frozen], "linear", weights=[0.75, 0.5])
    for name in ONE.layers:
        assert far(product(made.adapter, name), 0.75 * product(ONE, name) + 0.5 * product(frozen, name)) < 1e-3


def brute_ties(changes: list[np.ndarray], w: list[float], density: float) -> np.ndarray:
    """Value by value, as the paper tells it."""
    shape, kept = changes[0].shape, []
    for one in changes:
        count = int(np.ceil(density * one.size))
        threshold = sorted((abs(v) for v in one.ravel()), reverse=True)[count - 1]
        kept.append(np.array([v if abs(v) >= threshold else 0.0 for v in one.ravel()]))
    out = []
    for values in zip(*kept, strict=True):
        elected = np.sign(sum(wi * v for wi, v in zip(w, values, strict=True)))
        agree = [(wi, v) for wi, v in zip(w, values, strict=True) if v != 0 and np.sign(v) == elected]
        total = sum(wi for wi, _ in agree)
        out.append(sum(w) * sum(wi * v for wi, v in agree) / total if agree else 0.0)
    return np.array(out).reshape(shape)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_ties_trims_elects_and_averages(density: float) -> None:
    for name in ONE.layers:
        changes, w = [product(x, name) for x in (ONE, TWO, THREE)], [0.2, 0.3, 0.6]
        wanted = brute_ties(changes, w, density)
        assert np.allclose(ties(changes, np.array(w), density), wanted, rtol=1e-12, atol=1e-15)
        a, b = truncate(wanted, 2, GAMMA)
        made = lora_mcu.combine([ONE, TWO, THREE], "ties", weights=w, density=density).adapter
        assert far(product(made, name), GAMMA * b @ a) < 1e-3


def test_ties_ignores_who_disagrees() -> None:
    """A case by hand: signs + + -, the third outvoted."""
    changes = [np.array([[4.0, 1.0]]), np.array([[2.0, -6.0]]), np.array([[-1.0, -2.0]])]
    assert ties(changes, np.full(3, 1 / 3), 1.0).tolist() == [[3.0, -4.0]]
    assert ties(changes, np.ones(3), 0.5).tolist() == [[12.0, -12.0]]


def test_dare_drops_and_rescales() -> None:
    changes = [product(x, "z_conv") for x in (ONE, TWO)]
    made = dare(changes, 0.25, seed=9, offset=100)
    for number, (one, drop) in enumerate(zip(changes, made, strict=True)):
        for i, (v, d) in enumerate(zip(one.ravel(), drop.ravel(), strict=True)):
            stays = int(rand(9, 2, 0, 100 + number * one.size + i)[0]) < 2**30
            assert d == (v / 0.25 if stays else 0.0)
    assert 0 < np.count_nonzero(made) < 168
    mean = np.mean([dare(changes, 0.25, seed)[0] for seed in range(2000)], axis=0)
    assert far(mean, changes[0]) < 0.1, "the expectation is the change itself"


def test_dare_repeats_by_its_seed_and_keeps_all_at_density_1() -> None:
    first, again, other = (lora_mcu.combine([ONE, TWO], "dare", seed=seed).adapter for seed in (5, 5, 6))
    assert first == again != other
    whole = lora_mcu.combine([ONE, TWO], "dare", density=1.0)
    assert whole.adapter == lora_mcu.combine([ONE, TWO], "svd").adapter


def test_truncation_of_a_layer_thinner_than_the_rank() -> None:
    target = np.arange(6, dtype=np.float64).reshape(1, 6)
    a, b = truncate(target, 3, GAMMA)
    assert a.shape == (3, 6) and b.shape == (1, 3)
    assert np.allclose(GAMMA * b @ a, target) and not a[1:].any() and not b[:, 1:].any()


def test_fresh_adapters_combine_to_nothing() -> None:
    zero = replace(ONE, layers={name: (a, np.zeros_like(b)) for name, (a, b) in ONE.layers.items()})
    for method in ("linear", "svd", "ties", "dare"):
        made = lora_mcu.combine([zero, zero], method)
        assert made.distance == {"z_conv": None, "dense": None}
        assert not any(product(made.adapter, name).any() for name in ONE.layers)


def test_difference_by_hand() -> None:
    rows = {row.name: row for row in difference(ONE, TWO)}
    for name, row in rows.items():
        first, second = product(ONE, name), product(TWO, name)
        assert row.norm_first == pytest.approx(np.linalg.norm(first)) and not row.equal
        assert row.norm_second == pytest.approx(np.linalg.norm(second))
        assert row.norm_difference == pytest.approx(np.linalg.norm(second - first))
        assert row.cosine == pytest.approx((first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second))
    assert all(r.equal and r.norm_difference == 0 and r.cosine == pytest.approx(1) for r in difference(ONE, ONE))


# ---- refusals ----


def test_adapters_that_do_not_belong_together() -> None:
    dense = {"dense": TWO.layers["dense"]}
    wide = replace(TWO, rank=4, layers={n: (np.tile(a, (2, 1)), np.tile(b, 2)) for n, (a, b) in TWO.layers.items()})
    for other, says in (
        (replace(TWO, model_sha256="ef" * 32), "adapter 2 belongs to another model"),
        (replace(TWO, alpha=2.0), "adapter 2 has alpha 2.0, the first 6.0"),
        (replace(TWO, rslora=True), "rslora"),
        (wide, "adapter 2 has rank 4, the first 2"),
        (replace(TWO, layers=dense), "layer z_conv"),
        (replace(TWO, kernels={**TWO.kernels, "z_conv": (3, 2, 2)}), "layer z_conv: adapter 2 has M, K, kernel"),
        (replace(TWO, layout_sha256="ef" * 32), "layout"),
    ):
        for method in ("linear", "svd", "ties", "dare"):
            with pytest.raises(lora_mcu.AdapterError, match=says):
                lora_mcu.combine([ONE, other], method)
    with pytest.raises(lora_mcu.AdapterError, match="the second adapter"):
        difference(ONE, replace(TWO, alpha=2.0))
    with pytest.raises(lora_mcu.AdapterError, match="65504"):
        lora_mcu.combine([ONE, TWO], "linear", weights=[1e6, 1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "mean"}, "method 'mean'"),
        ({"weights": [1]}, "1 weights"),
        ({"weights": [1, float("nan")]}, "finite"),
        ({"weights": [1, -1]}, "add up to 0"),
        ({"method": "ties", "weights": [2, -1]}, "above 0"),
        ({"method": "ties", "density": 0.0}, r"density 0 is outside \(0, 1\]"),
        ({"method": "dare", "density": 1.5}, "density"),
        ({"method": "svd", "density": 0.5}, "ties and dare"),
        ({"method": "dare", "seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(lora_mcu.DataError, match=says):
        lora_mcu.combine([ONE, TWO], **arguments)  # type: ignore[arg-type]


def test_one_adapter_is_not_combined() -> None:
    with pytest.raises(lora_mcu.DataError, match="at least two"):
        lora_mcu.combine([ONE])


# ---- the command line ----


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code, and standard output, or the error's line."""
    monkeypatch.setattr(sys, "argv", ["lora-mcu", "adapter", *map(str, arguments)])
    try:
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == (code != 0), captured.err
    return code, captured.err if code else captured.out


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    ONE.save("a")
    TWO.save("b")
    replace(TWO, alpha=2.0).save("strange")
    (tmp_path / "a" / "training.json").write_text('{"board": "native", "samples": 60, "epochs": [{}, {}]}')
    code, out = call(monkeypatch, capsys, "info", "a")
    assert code == 0 and "rank 2, alpha 6: 66 fp16 parameters" in out and "2x3x2" in out
    assert "trained on native: 60 samples, 2 epochs" in out
    found = json.loads(call(monkeypatch, capsys, "info", "b", "--json")[1])
    assert found["model_sha256"] == "ab" * 32 and found["parameters"] == 66 and found["training"] is None
    assert [x["norm"] for x in found["layers"]] == [pytest.approx(np.linalg.norm(product(TWO, x["name"])))
                                                    for x in found["layers"]]  # fmt: skip
    rows = json.loads(call(monkeypatch, capsys, "diff", "a", "b", "--json")[1])
    assert [row["equal"] for row in rows] == [False, False]
    assert "1.0000" in call(monkeypatch, capsys, "diff", "a", "a")[1]
    command = ("combine", "a", "b", "--method", "ties", "--weights", "0.7,0.3", "--density", "0.5", "-o", "c")
    code, out = call(monkeypatch, capsys, *command)
    assert code == 0 and "c: 2 adapters combined by ties" in out
    assert Adapter.load("c") == lora_mcu.combine([ONE, TWO], "ties", weights=[0.7, 0.3], density=0.5).adapter
    with safetensors.safe_open(tmp_path / "c" / "adapter_model.safetensors", "np") as file:
        keys = [f"base_model.model.{n}.lora_{f}.weight" for n in ("dense", "z_conv") for f in "AB"]
        assert sorted(file.keys()) == keys
        assert [file.get_tensor(k).shape for k in keys] == [(2, 9), (5, 2), (2, 2, 2, 3), (7, 2, 1, 1)]
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    for arguments, says in (
        (command, "--force"),
        (("combine", "a", "strange", "-o", "d"), "alpha 2.0"),
        (("combine", "a", "b", "--weights", "x,1", "-o", "d"), "weights"),
        (("combine", "a", "-o", "d"), "at least two"),
        (("combine", "a", "nowhere", "-o", "d"), "nowhere"),
        (("diff", "a", "strange"), "alpha"),
        (("info", "nowhere"), "nowhere"),
    ):
        code, line = call(monkeypatch, capsys, *arguments)
        assert code == 1 and line.startswith("error: ") and says in line, line
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
    (tmp_path / "a" / "training.json").write_text("[1]")
    code, line = call(monkeypatch, capsys, "info", "a")
    assert code == 1 and "training.json" in line

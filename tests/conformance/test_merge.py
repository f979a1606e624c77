# SPDX-License-Identifier: Apache-2.0
"""A merged model is an ordinary .tflite: LiteRT and this compiler run it alike, and it is close to base + adapter."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.oracle import Oracle, differing
from conformance.tflite_builder import Builder

import lora_mcu
from lora_mcu import importer
from lora_mcu.adapters import Adapter
from lora_mcu.adapters.merging import Merged
from lora_mcu.cli import main
from lora_mcu.info import ModelInfo

LOSS = {"sequence": "mse"}
MADE = ("convolutions", "residual", "sequence")


def layout_of(model: Path, loss: str = "auto", rank: int = 3, adapt: str = "all") -> ModelInfo:
    return lora_mcu.compile(model, board="native", adapt=adapt, rank=rank, loss=loss).info


def random_adapter(info: ModelInfo, size: float, seed: int = 0) -> Adapter:
    """Factors uniform in +-size."""
    values = np.random.default_rng(seed).uniform(-size, size, info.parameters)
    return Adapter.from_factors(info, values.astype("<f2").tobytes())


def without_b(adapter: Adapter) -> Adapter:
    return replace(adapter, layers={name: (a, np.zeros_like(b)) for name, (a, b) in adapter.layers.items()})


def inputs(info: ModelInfo, count: int = 60) -> Any:
    rng = np.random.default_rng(4)
    if info.input.dtype == "float32":
        return rng.normal(size=(count, *info.input.shape)).astype(np.float32)
    limits = np.iinfo(info.input.dtype)
    return rng.integers(limits.min, limits.max + 1, (count, *info.input.shape)).astype(info.input.dtype)


def real_weights(graph: Any, op: Any) -> tuple[Any, Any]:
    """Weights [M, K] and bias [M] in real units, and the scales of the weights."""
    w, x = graph.tensors[op.weights], graph.tensors[op.inputs[0]]
    scale = np.broadcast_to(w.scale, w.shape[0]).astype(np.float64)
    bias = graph.tensors[op.bias].data.ravel() * scale * float(x.s) if op.bias is not None else np.zeros(len(scale))
    return (w.data.reshape(len(scale), -1) * scale[:, None], bias), scale


@pytest.fixture(scope="module")
def person() -> dict[str, Any]:
    """One person of the demo's data: every fifth window to train on, the other half to test."""
    with np.load(Path(__file__).resolve().parents[2] / "examples" / "har" / "har.npz") as har:
        mine = har["subject"] == 5
        train, test = np.flatnonzero(mine & (har["part"] == 0))[::5], np.flatnonzero(mine & (har["part"] == 1))
        return {"train": (har["x"][train], har["y"][train]), "x": har["x"][test], "y": har["y"][test]}


@pytest.fixture(scope="module")
def trained(har_model: Path, person: dict[str, Any]) -> Adapter:
    twin = lora_mcu.compile(har_model, board="native", adapt="all").twin()
    twin.configure(lr=0.02)
    twin.store(*person["train"])
    twin.run_epochs(40)
    return twin.adapter()


def test_the_demos_adapter_merges_at_no_cost(
    har_model: Path, trained: Adapter, person: dict[str, Any], tmp_path: Path
) -> None:
    merged = lora_mcu.merge(har_model, trained)
    check = merged.compare(person["x"], person["y"])
    assert check.measure == "accuracy" and check.samples == len(person["x"]) and check.inputs == "given"
    assert check.base is not None and check.adapter is not None and check.merged is not None
    assert check.base < 0.4 and check.adapter > 0.85
    assert abs(check.merged - check.adapter) <= 0.03
    assert 0 < check.max_logit_change <= 4 * check.logit_step
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 40 for layer in merged.layers)
    assert all(layer.change_sqnr_db is not None and layer.change_sqnr_db > 10 for layer in merged.layers)
    merged.save(tmp_path / "m.tflite")
    outputs = Oracle(tmp_path / "m.tflite").infer(person["x"])
    assert float(np.mean(outputs.argmax(axis=1) == person["y"])) == pytest.approx(check.merged, abs=0.01)
    twin = lora_mcu.compile(tmp_path / "m.tflite", board="netduinoplus2", adapt="all").twin()
    assert differing(twin.infer(person["x"]), outputs) == 0
    assert differing(outputs, Oracle(har_model).infer(person["x"])) > 0


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("per_channel", [False, True])
def test_b_of_zero_leaves_the_outputs_alone(made_models: dict[str, Path], name: str, per_channel: bool) -> None:
    model, loss = made_models[name], LOSS.get(name, "auto")
    info = layout_of(model, loss)
    merged = lora_mcu.merge(model, without_b(random_adapter(info, 1)), per_channel=per_channel, loss=loss)
    x = inputs(info)
    assert differing(Oracle(merged.content).infer(x), Oracle(model).infer(x)) == 0
    check = merged.compare()
    assert check.max_logit_change == 0 and check.measure is None and check.inputs == "random"
    assert [layer.sqnr_db for layer in merged.layers] == [None] * len(info.layers)


@pytest.mark.parametrize("name", MADE)
def test_weights_are_the_sum_to_half_a_step(made_models: dict[str, Path], name: str) -> None:
    """Against float64 written here: weights and biases of every layer, and nothing else, changed as they should."""
    model, loss = made_models[name], LOSS.get(name, "auto")
    info = layout_of(model, loss)
    adapter = random_adapter(info, 0.2)
    merged = lora_mcu.merge(model, adapter, loss=loss)
    before, after = importer.load(model), importer.loads(merged.content)
    names = before.layer_names()
    assert names == after.layer_names() and len(names) == len(info.layers)
    for one, two in zip(before.adaptable(), after.adaptable(), strict=True):
        a, b = (x.astype(np.float64) for x in adapter.layers[names[one.index]])
        (w, bias), _ = real_weights(before, one)
        (w_new, bias_new), scale = real_weights(after, two)
        wanted = w + adapter.alpha / adapter.rank * (b @ a)
        assert np.all(np.abs(w_new - wanted) <= 0.5001 * scale[:, None])
        assert np.abs(w_new - w).max() > 0.01
        step = scale * float(before.tensors[one.inputs[0]].s)
        assert np.all(np.abs(bias_new - bias) <= 0.5001 * step)
        fresh = after.tensors[two.weights]
        assert len(fresh.scale) == len(before.tensors[one.weights].scale)
        if len(fresh.scale) > 1:
            assert np.abs(fresh.data.reshape(w.shape).astype(int)).max(axis=1).tolist() == [127] * len(w)
    untouched = {i for op in before.ops if op not in before.adaptable() for i in op.inputs}
    for i in untouched:
        data = before.tensors[i].data
        assert data is None or data.tobytes() == after.tensors[i].data.tobytes()


def test_one_scale_stays_one_unless_asked(made_models: dict[str, Path], tmp_path: Path) -> None:
    model = made_models["residual"]
    info = layout_of(model)
    adapter = random_adapter(info, 0.2)
    found: dict[bool, Merged] = {flag: lora_mcu.merge(model, adapter, per_channel=flag) for flag in (False, True)}
    dense = [layer.name for layer in info.layers if layer.kernel is None]
    for flag, merged in found.items():
        scales = {layer.name: layer.scales for layer in merged.layers}
        assert [scales[name] for name in dense] == ([12, 4] if flag else [1, 1])
        merged.save(tmp_path / f"{flag}.tflite")
        x = inputs(info)
        twin = lora_mcu.compile(tmp_path / f"{flag}.tflite", board="native", adapt="none").twin()
        assert differing(twin.infer(x), Oracle(merged.content).infer(x)) == 0
    one, many = ({x.name: x.sqnr_db or 0 for x in found[flag].layers} for flag in (False, True))
    assert all(many[name] > one[name] for name in dense)


def shared_model() -> bytes:
    """Two dense layers [8, 8] of the same weights and bias tensors, then a third whose bias has the same buffer."""
    rng, made = np.random.default_rng(3), Builder()
    x = made.tensor((1, 8), scale=0.05)
    w = made.tensor((8, 8), scale=0.02, data=rng.integers(-127, 128, (8, 8)))
    b = made.tensor((8,), "int32", scale=0.001, data=rng.integers(-900, 900, 8))
    w3 = made.tensor((8, 8), scale=0.03, data=rng.integers(-127, 128, (8, 8)))
    b3 = made.tensor((8,), "int32", scale=0.001, data=np.zeros(8))
    ys = [made.tensor((1, 8), scale=0.05) for _ in range(3)]
    made._graph.tensors[b3].buffer = made._graph.tensors[b].buffer
    for before, after, weights, bias in ((x, ys[0], w, b), (ys[0], ys[1], w, b), (ys[1], ys[2], w3, b3)):
        made.op("FULLY_CONNECTED", [before, weights, bias], [after], "FullyConnectedOptions")
    return made.build([x], [ys[2]])


def test_what_others_share_stays(tmp_path: Path) -> None:
    model = tmp_path / "shared.tflite"
    model.write_bytes(shared_model())
    names = list(importer.load(model).layer_names().values())
    adapter = random_adapter(layout_of(model, "cross_entropy", adapt=names[0]), 0.5)
    merged = lora_mcu.merge(model, adapter, loss="cross_entropy")
    before, after = importer.load(model), importer.loads(merged.content)
    for one, two in zip(before.adaptable()[1:], after.adaptable()[1:], strict=True):
        for i, j in zip(one.inputs[1:], two.inputs[1:], strict=True):
            assert before.tensors[i].data.tobytes() == after.tensors[j].data.tobytes()  # type: ignore[union-attr]
            assert before.tensors[i].scale.tolist() == after.tensors[j].scale.tolist()
    (w, _), _ = real_weights(before, before.adaptable()[0])
    (w_new, _), scale = real_weights(after, after.adaptable()[0])
    a, b = (x.astype(np.float64) for x in adapter.layers[names[0]])
    assert np.all(np.abs(w_new - w - adapter.gamma * (b @ a)) <= 0.5001 * scale[:, None])
    x = np.random.default_rng(0).integers(-128, 128, (50, 8)).astype(np.int8)
    merged.save(tmp_path / "m.tflite")
    twin = lora_mcu.compile(tmp_path / "m.tflite", board="native", adapt="all").twin()
    assert differing(twin.infer(x), Oracle(merged.content).infer(x)) == 0


def test_a_model_with_several_outputs(tmp_path: Path) -> None:
    """One is trained and named; the other stays in the merged file."""
    rng, made = np.random.default_rng(5), Builder()
    x = made.tensor((1, 8), scale=0.05)
    ys = [made.tensor((1, 4), scale=0.05) for _ in range(2)]
    for y in ys:
        w = made.tensor((4, 8), scale=0.02, data=rng.integers(-127, 128, (4, 8)))
        made.op("FULLY_CONNECTED", [x, w], [y], "FullyConnectedOptions")
    model = tmp_path / "two.tflite"
    model.write_bytes(made.build([x], ys))
    info = lora_mcu.compile(model, board="native", adapt="all", rank=2, output="t2").info
    adapter = random_adapter(info, 0.5)
    with pytest.raises(lora_mcu.ModelError, match="2 outputs"):
        lora_mcu.merge(model, adapter)
    merged = lora_mcu.merge(model, adapter, output="t2")
    check = merged.compare()
    assert 0 < check.max_logit_change <= 4 * check.logit_step
    for name, same in (("t1", True), ("t2", False)):
        before, after = (importer.loads(c, output=name) for c in (merged.base, merged.content))
        weights = [g.tensors[g.adaptable()[0].inputs[1]].data for g in (before, after)]
        assert np.array_equal(*weights) == same


def test_equal_arguments_give_equal_bytes_and_the_base_is_not_touched(har_model: Path, trained: Adapter) -> None:
    content = har_model.read_bytes()
    one, two = (lora_mcu.merge(har_model, trained) for _ in range(2))
    assert one.content == two.content and one.layers == two.layers
    assert one.content != lora_mcu.merge(har_model, without_b(trained)).content
    assert har_model.read_bytes() == content and one.base == content and one.sha256 != trained.model_sha256


def test_a_regression_is_measured_by_its_squared_error(made_models: dict[str, Path]) -> None:
    info = layout_of(made_models["sequence"], "mse")
    adapter, x = random_adapter(info, 0.1), inputs(info, 20)
    y = np.zeros((20, *info.output.shape), np.float32)
    check = lora_mcu.merge(made_models["sequence"], adapter, loss="mse").compare(x, y)
    expected = float(np.mean(Oracle(made_models["sequence"]).infer(x).astype(np.float64) ** 2))
    assert check.measure == "mean squared error" and check.base == pytest.approx(expected, rel=1e-6)
    assert check.adapter != check.base and check.merged == pytest.approx(check.adapter, rel=0.2)


# ---- refusals ----


def test_adapters_of_something_else_are_refused(
    har_model: Path, made_models: dict[str, Path], trained: Adapter
) -> None:
    with pytest.raises(lora_mcu.AdapterError, match="another model .*convolutions.tflite"):
        lora_mcu.merge(made_models["convolutions"], trained)
    (name, factors), *others = trained.layers.items()
    strange = replace(trained, layers={"elsewhere": factors, **dict(others)},
                      kernels={"elsewhere": trained.kernels[name], **trained.kernels})  # fmt: skip
    with pytest.raises(lora_mcu.AdapterError, match="no layer elsewhere"):
        lora_mcu.merge(har_model, strange)
    with pytest.raises(lora_mcu.AdapterError, match="layout"):
        lora_mcu.merge(har_model, replace(trained, layout_sha256="0" * 64))
    short = {**trained.layers, name: (factors[0], factors[1][1:])}
    with pytest.raises(lora_mcu.AdapterError, match=f"layer {name}"):
        lora_mcu.merge(har_model, replace(trained, layers=short))


def test_wrong_data_is_refused(har_model: Path, trained: Adapter, person: dict[str, Any]) -> None:
    merged = lora_mcu.merge(har_model, trained)
    for x, y, says in (
        (person["x"][:, :50], None, "shape"),
        (person["x"][:0], None, "none"),
        (person["x"], person["y"] + 6, "label"),
        (person["x"], person["y"][:3], "one label a sample"),
        (None, person["y"], "without samples"),
    ):
        with pytest.raises(lora_mcu.DataError, match=says):
            merged.compare(x, y)


def test_without_litert_it_says_what_to_install(
    har_model: Path, trained: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(lora_mcu.ToolError, match=r"lora-mcu\[oracle\]"):
        lora_mcu.merge(har_model, trained)


def test_a_file_is_replaced_only_by_force(har_model: Path, trained: Adapter, tmp_path: Path) -> None:
    merged, path = lora_mcu.merge(har_model, trained), tmp_path / "m.tflite"
    path.write_bytes(b"mine")
    with pytest.raises(lora_mcu.ProjectError, match="exists"):
        merged.save(path)
    assert path.read_bytes() == b"mine"
    merged.save(path, force=True)
    assert path.read_bytes() == merged.content and [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
    with pytest.raises(lora_mcu.ProjectError, match="cannot be written"):
        merged.save(tmp_path / "nowhere" / "m.tflite")


# ---- the command line ----


def test_command(
    har_model: Path, trained: Adapter, person: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    trained.save("a")
    np.savez("data.npz", x=person["x"], y=person["y"])

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lora-mcu", "adapter", "merge", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    code, out, err = call(har_model, "a", "-o", "m.tflite", "--check", "data.npz")
    assert code == 0, err
    assert "max |d logit|" in out and "accuracy: base 27.7 %" in out and "wrote m.tflite" in out
    content = Path("m.tflite").read_bytes()
    assert content == lora_mcu.merge(har_model, trained).content
    for arguments, says in (
        ((har_model, "a", "-o", "m.tflite"), "--force"),
        ((har_model, "nowhere", "-o", "n.tflite"), "nowhere"),
        (("m.tflite", "a", "-o", "n.tflite"), "another model"),
        ((har_model, "a", "-o", "n.tflite", "--check", "a"), "a"),
    ):
        code, out, err = call(*arguments)
        assert code == 1 and out == "" and err.startswith("error: ") and says in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "data.npz", "m.tflite"]
    code, out, _ = call(har_model, "a", "-o", "m.tflite", "--force", "--json")
    found = json.loads(out)
    assert (
        code == 0
        and found["sha256"] == hashlib.sha256(content).hexdigest()
        and Path("m.tflite").read_bytes() == content
    )
    assert found["check"]["inputs"] == "random" and found["check"]["samples"] == 64 and len(found["layers"]) == 4

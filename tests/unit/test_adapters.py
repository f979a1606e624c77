# SPDX-License-Identifier: Apache-2.0
"""Adapter files: PEFT's layout to the byte, whole or not at all, and one line for everything that is broken."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_mcu.adapters import Adapter
from lora_mcu.adapters.files import MAX_CONFIG, MAX_WEIGHTS
from lora_mcu.errors import AdapterError
from lora_mcu.info import LayerInfo, ModelInfo, TensorInfo

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
INFO = ModelInfo(
    name="m",
    board="native",
    numerics="f32",
    loss="cross_entropy",
    model_sha256="ab" * 32,
    layout_sha256="cd" * 32,
    input=TensorInfo((4,), "int8", 0.1, 0),
    output=TensorInfo((3,), "int8", 0.1, 0),
    logit_count=3,
    rank=2,
    alpha=4.0,
    rslora=False,
    layers=(LayerInfo("z_conv", 5, 12, (2, 3, 2)), LayerInfo("dense", 3, 4, None)),
    store_capacity=10,
)
FACTORS = np.arange(1, INFO.parameters + 1, dtype="<f2").tobytes()
ADAPTER = Adapter.from_factors(INFO, FACTORS)


def test_factors_come_in_operator_order_a_then_b() -> None:
    (conv_a, conv_b), (dense_a, dense_b) = ADAPTER.layers["z_conv"], ADAPTER.layers["dense"]
    assert list(ADAPTER.layers) == ["z_conv", "dense"]
    assert [x.shape for x in (conv_a, conv_b, dense_a, dense_b)] == [(2, 12), (5, 2), (2, 4), (3, 2)]
    assert [x.flat[0] for x in (conv_a, conv_b, dense_a, dense_b)] == [1, 25, 35, 43]
    assert ADAPTER.to_factors(INFO) == FACTORS


def test_the_file_is_pefts(tmp_path: Path) -> None:
    ADAPTER.save(tmp_path / "a")
    with safetensors.safe_open(tmp_path / "a" / WEIGHTS, "np") as file:
        keys = [f"base_model.model.{n}.lora_{f}.weight" for n in ("dense", "z_conv") for f in "AB"]
        assert sorted(file.keys()) == keys
        assert file.metadata() == {
            "format_version": "1", "base_model_sha256": "ab" * 32, "layout_sha256": "cd" * 32
        }  # fmt: skip
        tensors = {key: file.get_tensor(key) for key in keys}
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float16)}
    assert [t.shape for t in tensors.values()] == [(2, 4), (3, 2), (2, 2, 2, 3), (5, 2, 1, 1)]
    in_memory = ADAPTER.layers["z_conv"][0].reshape(2, 2, 3, 2)  # r, kh, kw, C
    in_file = tensors["base_model.model.z_conv.lora_A.weight"]  # r, C, kh, kw
    for r, c, h, w in np.ndindex(in_file.shape):
        assert in_file[r, c, h, w] == in_memory[r, h, w, c]
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["use_rslora"]) == ("LORA", 2, 4, False)
    assert config["target_modules"] == ["dense", "z_conv"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [CONFIG, WEIGHTS]


def test_load_gives_back_what_was_saved(tmp_path: Path) -> None:
    ADAPTER.save(tmp_path / "a")
    loaded = Adapter.load(tmp_path / "a")
    assert loaded == ADAPTER
    assert loaded.to_factors(INFO) == FACTORS


def test_equal_factors_give_equal_bytes(tmp_path: Path) -> None:
    """The package writes its metadata in an order that differs from call to call: many calls, one result."""
    written = set()
    for n in range(12):
        ADAPTER.save(tmp_path / str(n))
        written.add(((tmp_path / str(n) / WEIGHTS).read_bytes(), (tmp_path / str(n) / CONFIG).read_bytes()))
    assert len(written) == 1
    raw = written.pop()[0]
    assert (int.from_bytes(raw[:8], "little") + 8) % 8 == 0, "tensors begin aligned"
    changed = bytearray(FACTORS)
    changed[6] ^= 1
    Adapter.from_factors(INFO, bytes(changed)).save(tmp_path / "other")
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != raw


def test_equality_is_of_bytes() -> None:
    assert Adapter.from_factors(INFO, FACTORS) == ADAPTER
    assert Adapter.from_factors(INFO, b"\0\x80" + FACTORS[2:]) != Adapter.from_factors(INFO, b"\0\0" + FACTORS[2:])
    assert dataclasses.replace(ADAPTER, alpha=2.0) != ADAPTER
    assert ADAPTER != "an adapter"


# ---- saving ----


def test_an_adapter_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    ADAPTER.save(tmp_path / "a")
    other = Adapter.from_factors(INFO, FACTORS[2:] + FACTORS[:2])
    with pytest.raises(AdapterError, match="holds an adapter already"):
        other.save(tmp_path / "a")
    assert Adapter.load(tmp_path / "a") == ADAPTER
    (tmp_path / "a" / "training.json").write_text("{}")
    other.save(tmp_path / "a", force=True)
    assert Adapter.load(tmp_path / "a") == other
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"], "no draft is left behind"
    assert not (tmp_path / "a" / "training.json").exists(), "the record belonged to the old adapter"


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for force in (False, True):
        with pytest.raises(AdapterError, match=r"holds other files \(thesis.tex\)"):
            ADAPTER.save(tmp_path / "a", force=force)
        with pytest.raises(AdapterError, match="is not a folder"):
            ADAPTER.save(tmp_path / "file", force=force)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "file", "thesis.tex"]


def test_a_new_folder_and_an_empty_one_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ADAPTER.save(tmp_path / "empty")
    ADAPTER.save(str(tmp_path / "new" / "deep"))  # type: ignore[arg-type]
    assert Adapter.load(tmp_path / "empty") == Adapter.load(tmp_path / "new" / "deep") == ADAPTER


@pytest.mark.parametrize("fails_at", ["fsync", "rename"])
def test_a_failed_save_leaves_the_old_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    ADAPTER.save(tmp_path / "a")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if fails_at == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        rename = Path.rename

        def fails_for_the_new_one(self: Path, to: Path) -> None:
            full() if to.name == "a" and not self.name.endswith(".old") else rename(self, to)

        monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(AdapterError, match="cannot be written: No space left on device"):
        Adapter.from_factors(INFO, FACTORS[2:] + FACTORS[:2]).save(tmp_path / "a", force=True)
    monkeypatch.undo()
    assert Adapter.load(tmp_path / "a") == ADAPTER
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# ---- the wrong model ----


@pytest.mark.parametrize(
    "change, text",
    [
        ({"model_sha256": "00" * 32}, "belongs to another model"),
        ({"rank": 4}, "has rank 2, the compiled model 4"),
        ({"alpha": 8.0}, "has alpha 4.0, the compiled model 8.0"),
        ({"rslora": True}, "has rslora False, the compiled model True"),
        ({"layers": INFO.layers[:1]}, "the adapter adapts layer dense, the compiled model does not"),
        (
            {"layers": (*INFO.layers, LayerInfo("more", 1, 1, None))},
            "the compiled model adapts layer more, the adapter",
        ),
        ({"layers": (INFO.layers[0], LayerInfo("dense", 3, 5, None))}, "layer dense: the adapter is for M=3 K=4"),
        ({"layers": (LayerInfo("z_conv", 5, 12, (3, 2, 2)), INFO.layers[1])}, "layer z_conv: the adapter is for"),
        ({"layout_sha256": "00" * 32}, "layout cdcdcdcdcdcd is not the model's 000000000000"),
    ],
)
def test_an_adapter_for_something_else_is_refused_by_name(change: dict[str, Any], text: str) -> None:
    with pytest.raises(AdapterError, match=text) as caught:
        ADAPTER.to_factors(dataclasses.replace(INFO, **change))
    assert "\n" not in str(caught.value)


def test_factors_of_another_size_or_not_finite_are_refused() -> None:
    with pytest.raises(AdapterError, match="bytes of factors"):
        Adapter.from_factors(INFO, FACTORS[:-2])
    for bits in (0x7C00, 0xFC00, 0x7E00, 0x7C01):
        with pytest.raises(AdapterError, match="layer z_conv: a factor is not finite"):
            Adapter.from_factors(INFO, FACTORS[:4] + struct.pack("<H", bits) + FACTORS[6:])


def test_contradicting_shapes_are_refused() -> None:
    a, b = ADAPTER.layers["dense"]
    for factors, kernel in (
        ((a[:1], b), None),
        ((a, b[:, :1]), None),
        ((a, b), (1, 1, 3)),
        ((a.astype(np.float32), b), None),
    ):
        with pytest.raises(AdapterError, match="layer dense"):
            dataclasses.replace(ADAPTER, layers={"dense": factors}, kernels={"dense": kernel})


# ---- broken files ----


def saved(folder: Path) -> Path:
    ADAPTER.save(folder / "a")
    return folder / "a"


def refused(folder: Path, text: str) -> None:
    with pytest.raises(AdapterError, match=text) as caught:
        Adapter.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("peft_type", "LOHA", 'peft_type must be "LORA"'),
        ("r", 0, "r must be a whole number from 1 to 64"),
        ("r", 65, "r must be"),
        ("r", True, "r must be"),
        ("r", 2.0, "r must be"),
        ("r", 3, "of rank 3"),
        ("lora_alpha", float("nan"), "lora_alpha must be a finite number above 0"),
        ("lora_alpha", 10**400, "lora_alpha must be"),
        ("lora_alpha", -1, "lora_alpha must be"),
        ("use_rslora", 1, "use_rslora must be true or false"),
        ("target_modules", "dense", "target_modules must be a list"),
        ("target_modules", [], "target_modules must be a list"),
        ("target_modules", ["dense", "dense"], "target_modules must be a list"),
        ("target_modules", ["dense"], "not in target_modules"),
        ("target_modules", ["dense", "z_conv", "x"], "x.lora_A.weight is missing"),
        ("rank_pattern", {"dense": 8}, "rank_pattern is not empty"),
    ],
)
def test_a_wrong_field_of_the_config_is_named(tmp_path: Path, key: str, value: Any, text: str) -> None:
    folder = saved(tmp_path)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, key: value}))
    refused(folder, text)
    if key not in ("use_rslora", "rank_pattern"):
        (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if k != key}))
        refused(folder, f"field {key} is missing")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100000, b"null"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = saved(tmp_path)
    (folder / CONFIG).write_bytes(content)
    refused(folder, "adapter_config.json: not ")


def rewritten(folder: Path, change: Any) -> Path:
    """Apply ``change`` to the header of the weights."""
    raw = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    return folder


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda h: h.pop("__metadata__"), "__metadata__ must hold exactly"),
        (lambda h: h["__metadata__"].update(date="today"), "__metadata__ must hold exactly"),
        (lambda h: h["__metadata__"].update(format_version="2"), "format_version is '2'; this lora_mcu reads '1'"),
        (lambda h: h["__metadata__"].update(layout_sha256="xyz"), "layout_sha256 is not 64 hexadecimal digits"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(dtype="F32"), "is not F16"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(dtype="BF16"), "is not F16"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(shape=[4, 2]), "not \\[r, K\\] and \\[M, r\\]"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(shape=[8]), "neither a dense nor a convolution"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(shape=[2**62, 2]), "broken safetensors file"),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(data_offsets=[0, 1 << 40]), "broken safetensors"),
        (lambda h: h.pop("base_model.model.dense.lora_B.weight"), "broken safetensors file"),
        (  # two tensors in one place
            lambda h: h["base_model.model.dense.lora_B.weight"].update(shape=[2, 4], data_offsets=[0, 16]),
            "broken safetensors file",
        ),
        (lambda h: h["base_model.model.dense.lora_A.weight"].update(data_offsets=[-16, 0]), "broken safetensors file"),
        (lambda h: h.update({"../../etc/passwd": h.pop("base_model.model.dense.lora_A.weight")}), "etc/passwd"),
        (
            lambda h: h.update({"base_model.model.../x.lora_A.weight": h.pop("base_model.model.dense.lora_A.weight")}),
            "not in target_modules|is missing",
        ),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, change: Any, text: str) -> None:
    refused(rewritten(saved(tmp_path), change), text)


@pytest.mark.parametrize("size", [2**64 - 1, 2**63, 1 << 40, 100_000_001, 0, 1])
def test_a_header_of_a_forged_size_is_refused(tmp_path: Path, size: int) -> None:
    folder = saved(tmp_path)
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + raw[8:])
    refused(folder, "broken safetensors file|header")


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0x7C01])
def test_a_factor_that_is_not_finite_is_refused_in_a_file_too(tmp_path: Path, bits: int) -> None:
    folder = saved(tmp_path)
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[:-2] + struct.pack("<H", bits))
    refused(folder, "a factor is not finite")


def test_a_header_of_many_tensors_or_a_deep_one_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for header in (b"[" * 900_000, b'{"a":' * 100_000, b"{" + b'"k":1,' * 170_000 + b'"z":1}', b" " * (2 << 20)):
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        refused(folder, "broken safetensors file|header|not valid JSON|larger")


def test_files_that_are_missing_too_large_or_no_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "adapter_config.json cannot be read: No such file")
    folder = saved(tmp_path)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(MAX_WEIGHTS + 1)
    refused(folder, "larger than 67108864 bytes")
    (folder / WEIGHTS).unlink()
    refused(folder, "adapter_model.safetensors cannot be read")
    os.mkfifo(folder / WEIGHTS)
    refused(folder, "is not a file")
    (folder / CONFIG).write_bytes(b" " * (MAX_CONFIG + 1))
    refused(folder, "larger than 1048576 bytes")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_in_one_line_or_loads(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "a"
    ADAPTER.save(folder, force=True)
    path = folder / data.draw(st.sampled_from([WEIGHTS, CONFIG]))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[at] = data.draw(st.integers(0, 255))
        else:
            del raw[at:]
            raw += b"x" * (not raw)
    path.write_bytes(bytes(raw))
    try:
        loaded = Adapter.load(folder)
    except AdapterError as error:
        assert "\n" not in str(error)
    else:
        assert loaded.layers["dense"][0].shape == (2, 4)

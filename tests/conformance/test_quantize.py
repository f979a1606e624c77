# SPDX-License-Identifier: Apache-2.0
"""`lora-mcu quantize`: float models of each kind become int8 files that compile; what cannot be quantized is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conformance.oracle import Oracle, differing
from conformance.tflite_builder import RELU, SAME, Builder, dense_model

import lora_mcu
from lora_mcu.cli.main import main
from lora_mcu.errors import ModelError
from lora_mcu.importer import loads
from lora_mcu.quantizing import quantize

RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 8, 6, 2)).astype(np.float32)


def float_file(signature: bool = True) -> bytes:
    """8 x 6 x 2 -> convolution -> MEAN -> dense 5 -> SOFTMAX, all float32."""
    b, f = Builder(), {"dtype": "float32"}
    x, c = b.tensor((1, 8, 6, 2), **f), b.tensor((1, 8, 6, 4), **f)
    w, bias = b.tensor((4, 3, 3, 2), data=RNG.normal(size=(4, 3, 3, 2)), **f), b.tensor((4,), data=np.ones(4), **f)
    b.op("CONV_2D", [x, w, bias], [c], "Conv2DOptions", padding=SAME, strideH=1, strideW=1, dilationHFactor=1,
         dilationWFactor=1, fusedActivationFunction=RELU["RELU"])  # fmt: skip
    m, z, y = b.tensor((1, 4), **f), b.tensor((1, 5), **f), b.tensor((1, 5), **f)
    b.op("MEAN", [c, b.tensor((2,), "int32", data=[1, 2])], [m], "ReducerOptions", keepDims=False)
    dense = b.tensor((5, 4), data=RNG.normal(size=(5, 4)), **f)
    b.op("FULLY_CONNECTED", [m, dense, b.tensor((5,), data=np.zeros(5), **f)], [z], "FullyConnectedOptions")
    b.op("SOFTMAX", [z], [y], "SoftmaxOptions", beta=1.0)
    if signature:
        entry, end, whole = schema.TensorMapT(), schema.TensorMapT(), schema.SignatureDefT()
        entry.name, entry.tensorIndex, end.name, end.tensorIndex = b"x", x, b"y", y
        whole.inputs, whole.outputs, whole.signatureKey, whole.subgraphIndex = [entry], [end], b"serving_default", 0
        b._model.signatureDefs = [whole]
    return b.build([x], [y])


def check_int8(content: bytes, tmp_path: Path) -> None:
    """Both edges int8, 3 operators with weights or fewer, the twin's base equal to LiteRT's."""
    graph = loads(content)
    assert {graph.tensors[i].dtype for i in (graph.input, graph.output)} == {"int8"} and graph.adaptable()
    (tmp_path / "q.tflite").write_bytes(content)
    twin = lora_mcu.compile(tmp_path / "q.tflite", board="native", adapt="last:1").twin()
    x = RNG.integers(-128, 128, (20, 8, 6, 2)).astype(np.int8)
    assert differing(twin.infer(x), Oracle(content).infer(x)) == 0


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["lora-mcu", "quantize", *map(str, arguments)])
    try:
        return main()
    except SystemExit as stop:
        return int(stop.code or 0)


def test_a_float_file_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    (tmp_path / "f.tflite").write_bytes(float_file())
    command = (tmp_path / "f.tflite", "--data", tmp_path / "x.npz", "-o", tmp_path / "out.tflite")
    assert run(monkeypatch, *command) == 0
    assert "int8 input and output, 2 adaptable layers" in capsys.readouterr().out
    check_int8((tmp_path / "out.tflite").read_bytes(), tmp_path)
    assert run(monkeypatch, *command) == 1 and "--force replaces it" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--force", "--json", "--samples", 30) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert said["calibrated_on"] == 30 and said["adaptable"] == 2 and said["sqnr_db"] > 10 and not printed.err
    np.savez(tmp_path / "x.npz", x=X[:, 1:])
    assert run(monkeypatch, *command, "--force") == 1
    assert capsys.readouterr().err == "error: f.tflite: x has samples of shape [7, 6, 2], the model takes [8, 6, 2]\n"


def test_a_keras_file_and_a_saved_model(tmp_path: Path) -> None:
    import tensorflow as tf

    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 6, 2)), layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(6.0),
         layers.DepthwiseConv2D(3, strides=2), layers.Flatten(), layers.Dense(5, activation="softmax")]
    )  # fmt: skip
    model.save(tmp_path / "m.keras")
    tf.saved_model.save(tf.train.Checkpoint(), str(tmp_path / "empty"))
    model.export(tmp_path / "saved", verbose=False)
    counts: list[int] = []
    for name in ("m.keras", "saved"):
        result = quantize(tmp_path / name, X, counts.append)
        assert result.same_class is not None and result.same_class > 0.8 and result.sqnr_db > 20
        check_int8(result.content, tmp_path)
    assert counts[:40] == list(range(1, 41))
    with pytest.raises(ModelError, match="empty: the SavedModel has no signature"):
        quantize(tmp_path / "empty", X)
    two = tf.keras.Model(entries := [tf.keras.Input((3,)), tf.keras.Input((3,))], layers.Add()(entries))
    two.save(tmp_path / "two.keras")
    with pytest.raises(ModelError, match="it has 2 inputs"):
        quantize(tmp_path / "two.keras", X)


def dynamic_range() -> bytes:
    b, f = Builder(), {"dtype": "float32"}
    x, w, y = b.tensor((1, 4), **f), b.tensor((3, 4), scale=0.1, data=np.ones((3, 4))), b.tensor((1, 3), **f)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    return b.build([x], [y])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.tflite", dense_model(), "compute in int8 already: `lora-mcu compile` takes it as it is"),
        ("m.tflite", dynamic_range(), "no float model: its weights are rounded already"),
        ("m.tflite", float_file(signature=False), "no signature: convert the model again"),
        ("m.tflite", float_file()[:900], "truncated or damaged"),
        ("m.tflite", b"", "not a .tflite file"),
        ("m.onnx", b"", "give a float .tflite, a .keras or .h5 file"),
    ],
)
def test_what_cannot_be_quantized_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        quantize(tmp_path / name, X)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: ")


def test_folders_and_samples_that_do_not_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        quantize(tmp_path / "none.keras", X)
    with pytest.raises(ModelError, match=r"holds no saved_model.pb"):
        quantize(tmp_path, X)
    bad: Any = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(lora_mcu.DataError, match="not finite"):
        quantize(tmp_path, bad)

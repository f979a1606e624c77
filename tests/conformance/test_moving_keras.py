# SPDX-License-Identifier: Apache-2.0
"""Keras models with skip connections, up-sampling, splits and two heads: exact, and their gradients equal NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.models import _calibration, convert
from conformance.oracle import Oracle, differing
from conformance.samples import random_samples, structured_samples
from conformance.training_data import labelled, random_adapter

import lora_mcu
from lora_mcu.importer.flatbuffer import read
from lora_mcu.reference import Reference

SHAPE = (8, 12, 4)


def _backbone(k: Any) -> tuple[Any, Any]:
    """Down, up by a transposed convolution and by nearest neighbours, joined."""
    import tensorflow as tf

    entry = k.Input(SHAPE)
    wide = k.layers.Conv2D(6, 3, padding="same", activation="relu")(entry)
    low = k.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(wide)
    up = k.layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu")(low)
    near = k.layers.Lambda(lambda t: tf.image.resize(t, SHAPE[:2], "nearest"))(low)
    return entry, k.layers.Concatenate()([wide, up, near])


def skip_model() -> bytes:
    import tensorflow as tf

    k = tf.keras
    k.utils.set_random_seed(11)
    entry, x = _backbone(k)
    x = k.layers.Lambda(lambda t: tf.pad(t, [[0, 0], [1, 1], [2, 0], [0, 0]], "REFLECT"))(x)
    parts = k.layers.Lambda(lambda t: tf.split(t, [7, 2, 10], axis=3))(x)
    x = k.layers.Concatenate(axis=3)([parts[2], parts[0], parts[1]])
    x = k.layers.Conv2D(6, 3, strides=2)(x)
    x = k.layers.Lambda(lambda t: tf.stack(tf.unstack(t, axis=1)[::-1], axis=2))(x)
    x = k.layers.Permute((3, 1, 2))(x)
    x = k.layers.Lambda(lambda t: tf.nn.space_to_depth(t[:, :, ::-1, :2], 2))(x)
    x = k.layers.Lambda(lambda t: tf.reduce_max(t, axis=2))(x)
    x = k.layers.Flatten()(x)
    return convert(k.Model(entry, k.layers.Dense(5, activation="softmax")(x)), _calibration(SHAPE, 11))


def two_heads() -> bytes:
    import tensorflow as tf

    k = tf.keras
    k.utils.set_random_seed(12)
    entry, x = _backbone(k)
    pooled = k.layers.GlobalAveragePooling2D()(x)
    classes = k.layers.Dense(4, activation="softmax", name="classes")(pooled)
    larger = k.layers.UpSampling2D(2, interpolation="bilinear")(x)
    image = k.layers.Conv2D(1, 3, strides=2, padding="same", name="image")(larger)
    return convert(k.Model(entry, [classes, image]), _calibration(SHAPE, 12))


def _exact(path: Path, oracle: Oracle, **options: Any) -> lora_mcu.Program:
    program = lora_mcu.compile(path, board="native", adapt="all", **options)
    twin, reference = program.twin(), Reference(program)
    x = np.concatenate([structured_samples(program.info.input), random_samples(program.info.input, 60, 3)])
    want = np.stack([oracle.infer(s[None])[0].reshape(program.info.output.shape) for s in x])
    assert differing(twin.infer(x), want) == 0
    assert len(np.unique(want)) >= 8
    for learner in (twin, reference):
        learner.load(random_adapter(program.info, 4))
    samples, labels = labelled(program.info, 3, 5)
    assert differing(twin.infer(samples), reference.infer(samples)) == 0
    for sample, label in zip(samples, labels, strict=True):
        got, expected = twin.gradients(sample, label), reference.gradients(sample, label)
        assert all(differing(got[key], expected[key]) == 0 for key in expected)
    assert all(g.any() for g in got.values())
    return program


def test_skip_connections(tmp_path: Path) -> None:
    content = skip_model()
    (tmp_path / "skip.tflite").write_bytes(content)
    program = _exact(tmp_path / "skip.tflite", Oracle(content))
    kinds = {op.KIND for op in program.graph.ops}
    assert {
        "TRANSPOSE_CONV",
        "RESIZE_NEAREST_NEIGHBOR",
        "CONCATENATION",
        "MIRROR_PAD",
        "SPLIT",
        "UNPACK",
        "PACK",
    } <= kinds
    assert {"TRANSPOSE", "STRIDED_SLICE", "SPACE_TO_DEPTH", "REDUCE_MAX"} <= kinds
    assert {"SHAPE", "PACK"} <= {op.kind for op in read(content).ops} and "SHAPE" not in kinds


def test_one_of_two_heads(tmp_path: Path) -> None:
    content, path = two_heads(), tmp_path / "heads.tflite"
    path.write_bytes(content)
    with pytest.raises(lora_mcu.ModelError, match="2 outputs; name the one to train") as refusal:
        lora_mcu.compile(path, board="native")
    raw = read(content)
    for number, i in enumerate(raw.outputs):
        name = raw.tensors[i].name
        assert repr(name) in str(refusal.value)
        program = _exact(path, Oracle(content, output=number), output=name, loss="auto" if number == 0 else "mse")
        assert ("RESIZE_BILINEAR" in {op.KIND for op in program.graph.ops}) == (number == 1)
        assert program.graph.tensors[program.graph.output].name == name
        assert len(program.info.layers) < len(read(content).ops)

# SPDX-License-Identifier: Apache-2.0
"""Train a small vision transformer on the digits and quantize it to int8. Writes digits_vit.tflite beside this file.

Needs TensorFlow and scikit-learn (pip install 'lora-mcu[examples]'). Seeded.

    python examples/transformer/make_vit.py [--output FILE] [--epochs N]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import digits
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

HERE = Path(__file__).resolve().parent
SEED = 11
PATCH, TOKENS = 2, 16
WIDTH, HEADS, HIDDEN, BLOCKS = 32, 2, 64, 2
BATCH, EPOCHS, PEAK_RATE = 50, 120, 3e-3
LABEL_SMOOTHING = 0.1  # a base that is sure of its errors makes the first steps on the device too large


class Positions(tf.keras.layers.Layer):
    """Adds a learned vector to each token: an embedding of the positions 0, 1, 2, ..."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=tuple(shape[1:]), initializer="random_normal")

    def call(self, x: Any) -> Any:
        return x + self.table


def block(x: Any, width: int, heads: int, hidden: int, name: str) -> Any:
    """Attention and feed-forward, each behind its own layer normalization and beside a residual connection."""
    layers = tf.keras.layers
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = layers.Dense(hidden, activation="gelu", name=f"{name}_expand")(y)
    y = layers.Dense(width, name=f"{name}_contract")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def build(width: int = WIDTH, heads: int = HEADS, hidden: int = HIDDEN, blocks: int = BLOCKS) -> Any:
    """The float model: 2 x 2 patches, positions, blocks, the mean over the tokens, one dense layer."""
    layers = tf.keras.layers
    entry = tf.keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(width, PATCH, strides=PATCH, name="patches")(entry)
    x = layers.Reshape((TOKENS, width), name="tokens")(x)
    x = Positions(name="positions")(x)
    for i in range(blocks):
        x = block(x, width, heads, hidden, f"block{i}")
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return tf.keras.Model(entry, layers.Dense(10, activation="softmax", name="classes")(x), name="digits")


def train(model: Any, base: digits.Digits, epochs: int = EPOCHS) -> None:
    """Fit the float model; images are moved by up to one pixel and noisy."""
    steps = len(base.y) // BATCH
    rate = tf.keras.optimizers.schedules.CosineDecay(PEAK_RATE, epochs * steps)
    loss = tf.keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING)
    model.compile(tf.keras.optimizers.AdamW(rate, weight_decay=0.01), loss, jit_compile=True)

    def vary(image: Any, label: Any) -> Any:
        image = tf.image.random_crop(tf.pad(image, [[1, 1], [1, 1], [0, 0]]), (8, 8, 1))
        return tf.clip_by_value(image + tf.random.normal(tf.shape(image), stddev=0.03), 0.0, 1.0), label

    data = tf.data.Dataset.from_tensor_slices((base.x, tf.one_hot(base.y, 10))).shuffle(len(base.y), seed=SEED)
    model.fit(data.map(vary).batch(BATCH, drop_remainder=True), epochs=epochs, verbose=0)


def convert(model: Any, calibration: digits.Floats) -> bytes:
    """The model as full int8 .tflite with its batch fixed at 1, so that no shape is computed."""
    signature = [tf.TensorSpec([1, 8, 8, 1], tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make digits_vit.tflite.")
    parser.add_argument("--output", type=Path, default=HERE / "digits_vit.tflite")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    tf.keras.utils.set_random_seed(SEED)
    base, _, test = digits.load()
    model = build()
    train(model, base, arguments.epochs)
    right = model.predict(test.x, verbose=0).argmax(1) == test.y
    content = convert(model, base.x[:300])
    arguments.output.write_bytes(content)
    print(f"{model.count_params():,} parameters, float accuracy {right.mean():.1%}; {arguments.output.name}: "
          f"{len(content):,} bytes")  # fmt: skip


if __name__ == "__main__":
    main()

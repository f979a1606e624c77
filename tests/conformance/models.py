# SPDX-License-Identifier: Apache-2.0
"""Small seeded Keras models, converted at test time, that together use every supported operator.

Random weights do: what is compared is arithmetic. Calibrated on random data, so that activations use their range.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Maker = Callable[[], bytes]


def _calibration(shape: tuple[int, ...], seed: int, count: int = 60) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 1, *shape)).astype(np.float32)


def _wide() -> Any:
    """Weights large enough that classes come out far apart."""
    import tensorflow as tf

    return tf.keras.initializers.RandomNormal(stddev=2.0)


def convert(
    model: Any, calibration: Floats, edge: str = "int8", per_tensor_dense: bool = False, fixed_batch: bool = False
) -> bytes:
    """Full-integer .tflite of a Keras model; ``calibration`` [N, 1, *sample]; ``edge`` is the dtype at both ends.

    Without ``fixed_batch`` the batch stays dynamic, which leaves SHAPE, STRIDED_SLICE and PACK in front of a reshape.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    batch = 1 if fixed_batch else None
    spec = tf.TensorSpec([batch, *calibration.shape[2:]], tf.float32)
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = getattr(tf, edge)
    converter.inference_output_type = getattr(tf, edge)
    converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor_dense
    return bytes(converter.convert())


def convolutions() -> bytes:
    """k x k and 1 x 1, SAME and VALID, strides, RELU and RELU6, both pools, Flatten of a dynamic batch."""
    import tensorflow as tf

    k = tf.keras
    k.utils.set_random_seed(1)
    model = k.Sequential(
        [
            k.Input((15, 13, 3)),
            k.layers.Conv2D(10, (3, 5), strides=2, padding="same", activation="relu"),
            k.layers.Conv2D(7, 1, activation=tf.nn.relu6),
            k.layers.Conv2D(9, 3, padding="same", bias_initializer="glorot_uniform"),
            k.layers.MaxPooling2D(2, padding="same"),
            k.layers.Conv2D(6, 2, padding="valid", activation="relu"),
            k.layers.AveragePooling2D(2, strides=1, padding="same"),
            k.layers.Flatten(),
            k.layers.Dense(11, activation="relu", bias_initializer="glorot_uniform"),
            k.layers.Dense(5, use_bias=False, kernel_initializer=_wide(), activation="softmax"),
        ]
    )
    return convert(model, _calibration((15, 13, 3), 1))


def residual() -> bytes:
    """Depthwise (multiplier 1 and 2), padding, ADD of two activations, MEAN, per-tensor dense, uint8 edges."""
    import tensorflow as tf

    k = tf.keras
    k.utils.set_random_seed(2)
    x = entry = k.Input((12, 9, 4))
    x = k.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu")(x)
    y = k.layers.Conv2D(8, 1, bias_initializer="glorot_uniform")(x)
    x = k.layers.Activation("relu")(k.layers.Add()([x, y]))
    x = k.layers.ZeroPadding2D(((0, 1), (1, 2)))(x)
    x = k.layers.DepthwiseConv2D(3, strides=2, padding="valid", activation=tf.nn.relu6)(x)
    y = k.layers.Conv2D(8, 3, padding="same")(x)
    x = k.layers.Add()([x, y])
    x = k.layers.GlobalAveragePooling2D()(x)
    x = k.layers.Dense(12, activation="relu", kernel_initializer=_wide(), bias_initializer="glorot_uniform")(x)
    x = k.layers.Dense(4, kernel_initializer=_wide())(x)
    model = k.Model(entry, k.layers.Softmax()(x))
    return convert(model, _calibration((12, 9, 4), 2), edge="uint8", per_tensor_dense=True)


def sequence() -> bytes:
    """Rank-3 dense layers, a constant added, a dilated convolution, float32 edges; regresses a small vector."""
    import tensorflow as tf

    k = tf.keras
    k.utils.set_random_seed(3)
    entry = k.Input((6, 10))
    x = k.layers.Dense(16, activation="relu")(entry)
    x = k.layers.Dense(10)(x)
    x = x + tf.constant(np.random.default_rng(3).normal(size=(1, 6, 10)).astype(np.float32))
    x = k.layers.Dense(8, activation="relu")(x)
    x = k.layers.Reshape((6, 8, 1))(x)
    x = k.layers.Conv2D(3, 3, dilation_rate=2, padding="same")(x)
    x = k.layers.Flatten()(x)
    model = k.Model(entry, k.layers.Dense(3)(x))
    return convert(model, _calibration((6, 10), 3), edge="float32", fixed_batch=True)


MADE: dict[str, Maker] = {"convolutions": convolutions, "residual": residual, "sequence": sequence}
LOSS = {"sequence": "mse"}  # the others end in a softmax


def make_all(folder: Path) -> dict[str, Path]:
    """Convert every model into ``folder`` once; {name: file}."""
    paths = {}
    for name, maker in MADE.items():
        paths[name] = folder / f"{name}.tflite"
        if not paths[name].exists():
            paths[name].write_bytes(maker())
    return paths

# SPDX-License-Identifier: Apache-2.0
"""Train the demo's base model on 24 people, quantize it to int8, and pack the six held-out people's windows.

Writes har.tflite and har.npz beside this file. Needs TensorFlow. Everything is seeded: the same machine and
versions give the same bytes again.

    python examples/har/make_model.py [--pickle HAPT.pkl.gz]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import prepare
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

HERE = Path(__file__).resolve().parent
SEED = 7
EPOCHS = 20
BATCH = 64
CHANNELS = 6
CLASSES = len(prepare.LABEL_NAMES)

# Signals are clipped to +-2 (g and rad/s; the sensor itself ends at 2 g, 0.5 % of the gyroscope's samples are beyond).
# One int8 scale serves all six channels, and a wider one would blur the tilt that tells sitting from standing.
CLIP = 2.0

# (kernel, stride, channels) of each convolution, all VALID with a fused ReLU:
# [128, 1, 6] -> [16, 1, 32] -> [7, 1, 48] -> [3, 1, 64]. The first one strides by 8 because its output is the largest
# float gradient on the device, and every position costs.
CONVOLUTIONS: tuple[tuple[int, int, int], ...] = ((8, 8, 32), (3, 2, 48), (3, 2, 64))

# Small weights, soft labels and noisy inputs: not for the base's own accuracy but for what comes after. A base that is
# confidently wrong about a turned device starts with a huge loss, and plain SGD at a useful rate then diverges.
WEIGHT_DECAY = 1e-3
LABEL_SMOOTHING = 0.1
INPUT_NOISE = 0.03
DROPOUT = 0.3
PEAK_RATE = 2e-3

Floats = npt.NDArray[np.float32]


def clip(x: Floats) -> Floats:
    """The signals as the model is meant to see them."""
    return np.clip(x, -CLIP, CLIP).astype(np.float32)


def build() -> tf.keras.Model:
    """The float model: convolutions over time, the mean over time, one dense layer."""
    decay = tf.keras.regularizers.L2(WEIGHT_DECAY)
    inputs = tf.keras.Input((prepare.WINDOW, CHANNELS), name="window")
    y = tf.keras.layers.Reshape((prepare.WINDOW, 1, CHANNELS))(inputs)
    y = tf.keras.layers.GaussianNoise(INPUT_NOISE)(y)
    for i, (kernel, stride, channels) in enumerate(CONVOLUTIONS, 1):
        y = tf.keras.layers.Conv2D(
            channels, (kernel, 1), (stride, 1), activation="relu", kernel_regularizer=decay, name=f"conv{i}"
        )(y)
    y = tf.keras.layers.GlobalAveragePooling2D(name="mean")(y)
    y = tf.keras.layers.Dropout(DROPOUT)(y)
    outputs = tf.keras.layers.Dense(CLASSES, activation="softmax", kernel_regularizer=decay, name="classes")(y)
    return tf.keras.Model(inputs, outputs, name="har")


def train(x: Floats, y: npt.NDArray[np.int64]) -> tf.keras.Model:
    """A model fitted to all windows of the 24 people."""
    tf.keras.utils.set_random_seed(SEED)
    model = build()
    rate = tf.keras.optimizers.schedules.CosineDecay(PEAK_RATE, EPOCHS * -(-len(y) // BATCH))
    loss = tf.keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING)
    model.compile(tf.keras.optimizers.Adam(rate), loss, jit_compile=True)
    one_hot = np.eye(CLASSES, dtype=np.float32)[y]
    model.fit(clip(x), one_hot, batch_size=BATCH, epochs=EPOCHS, verbose=0, shuffle=True)
    return model


def convert(model: tf.keras.Model, calibration: Floats) -> bytes:
    """The model as full int8 .tflite, weights per output channel, batch fixed at 1 (so that no shape is computed)."""

    @tf.function(input_signature=[tf.TensorSpec([1, prepare.WINDOW, CHANNELS], tf.float32, name="window")])
    def one_window(window: tf.Tensor) -> tf.Tensor:
        return model(window, training=False)

    # frozen first: with variables left in, the calibrator meets READ_VARIABLE and gives up
    frozen = convert_variables_to_constants_v2(one_window.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([window[None]] for window in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def calibration_windows(x: Floats, count: int = 500) -> Floats:
    """Some windows of the 24 people, evenly spread over them and over the activities."""
    return clip(x[np.linspace(0, len(x) - 1, count).astype(int)])


def quantize(x: Floats, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """float -> int8 as the device's host tool does it: round half away from zero, then clip."""
    scaled = clip(x).astype(np.float64) / scale
    rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + zero_point
    return np.clip(rounded, -128, 127).astype(np.int8)


def open_model(content: bytes) -> Any:
    """The LiteRT interpreter with reference kernels, which is what the firmware reproduces."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=reference, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def classify(interpreter: Any, x: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """The most likely class of every int8 window."""
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = np.empty(len(x), dtype=np.int64)
    for i, window in enumerate(x):
        interpreter.set_tensor(into, window[None])
        interpreter.invoke()
        found[i] = interpreter.get_tensor(out)[0].argmax()
    return found


def mean_accuracy(found: npt.NDArray[np.int64], windows: prepare.Windows) -> float:
    """The accuracy on the test part, mean over the held-out people."""
    test = windows.part == prepare.TEST
    right = found == windows.y
    return float(np.mean([right[test & (windows.subject == person)].mean() for person in prepare.HELD_OUT]))


def base_sample(held: prepare.Windows, per_class: int = 10) -> npt.NDArray[np.int64]:
    """Indices of the first test windows of each held-out person and activity: what is kept without rotation, too."""
    chosen = []
    for person in prepare.HELD_OUT:
        for activity in range(CLASSES):
            fits = (held.subject == person) & (held.y == activity) & (held.part == prepare.TEST)
            chosen.extend(np.flatnonzero(fits)[:per_class].tolist())
    return np.asarray(sorted(chosen), dtype=np.int64)


def pack(held: prepare.Windows, scale: float, zero_point: int) -> dict[str, npt.NDArray[Any]]:
    """What goes into har.npz; no object arrays, so that it loads without pickle."""
    sample = base_sample(held)
    return {
        "x": quantize(prepare.rotate(held.x), scale, zero_point),
        "y": held.y,
        "subject": held.subject,
        "part": held.part,
        "people": np.asarray(prepare.HELD_OUT, dtype=np.int64),
        "label_names": np.asarray(prepare.LABEL_NAMES),
        "base_x": quantize(held.x[sample], scale, zero_point),
        "base_y": held.y[sample],
        "base_subject": held.subject[sample],
        "input_scale": np.float32(scale),
        "input_zero_point": np.int32(zero_point),
        "rotation": prepare.rotation_matrix(),
        "rotation_steps": np.asarray([f"{degrees:g} degrees about {axis}" for axis, degrees in prepare.ROTATION_STEPS]),
        "attribution": np.asarray("UCI HAPT (Reyes-Ortiz et al.), CC BY 4.0, changed: see ATTRIBUTION.md"),
    }


def macs() -> int:
    """Multiply-accumulates of one inference."""
    total, time, channels = 0, prepare.WINDOW, CHANNELS
    for kernel, stride, outputs in CONVOLUTIONS:
        time = (time - kernel) // stride + 1
        total += time * outputs * kernel * channels
        channels = outputs
    return total + channels * CLASSES


def main() -> None:
    parser = argparse.ArgumentParser(description="Make har.tflite and har.npz.")
    parser.add_argument("--pickle", type=Path, help="HAPT.pkl.gz of the package, if it is already here")
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    base, held = prepare.split_people(prepare.cut_windows(prepare.load_recordings(arguments.pickle)))
    model = train(base.x, base.y)
    content = convert(model, calibration_windows(base.x))
    interpreter = open_model(content)
    scale, zero_point = interpreter.get_input_details()[0]["quantization"]
    packed = pack(held, scale, zero_point)
    (HERE / "har.tflite").write_bytes(content)
    np.savez_compressed(HERE / "har.npz", **packed)
    figures = {
        "parameters": model.count_params(),
        "macs": macs(),
        "tflite_bytes": len(content),
        "npz_bytes": (HERE / "har.npz").stat().st_size,
        "int8_accuracy_same_mounting": mean_accuracy(classify(interpreter, quantize(held.x, scale, zero_point)), held),
        "int8_accuracy_other_mounting": mean_accuracy(classify(interpreter, packed["x"]), held),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

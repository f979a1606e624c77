# SPDX-License-Identifier: Apache-2.0
"""Spoken digits, leave-one-speaker-out: LoRA on the twin beside LoRA in floats on the host. Needs TensorFlow.

    LORA_MCU_DATA=folder python tests/conformance/fsdd.py [--speakers 0 1 ...] [--seeds 2] [--numerics i16]

For each speaker a small depthwise-separable CNN is trained on the other five (cached outside the repository), quantized
to int8, and adapted with 10 takes a digit of the speaker: takes 0..9 train, takes 10..19 choose each method's learning
rate (mean over speakers and seeds), takes 20..49 are looked at once, at the end. Plain SGD, batch 8, 12 epochs, about
150 steps, rank 4, alpha 8 on every convolution and the dense layer, for both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.models import convert

from lora_mcu.passes.blocks import NUMERICS

Floats = NDArray[np.float32]
RANK, ALPHA, BATCH, EPOCHS = 4, 8.0, 8, 12
RATES = (0.003, 0.01, 0.02, 0.03, 0.05)
CHANNELS, BLOCKS = 24, 3
TRAIN, CHOOSE, TEST = range(10), range(10, 20), range(20, 50)


@dataclass(frozen=True)
class Part:
    x: Floats  # [N, 49, 10, 1], normalized
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Speaker:
    """One held-out speaker: the base of the other five, and this speaker's takes."""

    number: int
    tflite: Path
    weights: list[Floats]  # of the float model: convolutions [kh, kw, C, M], depthwise, dense, biases, in order
    train: Part
    choose: Part
    test: Part


@dataclass
class Outcome:
    """Accuracy [rate][speaker][seed] on the part that chooses and on the test part."""

    choose: dict[float, list[list[float]]] = field(default_factory=dict)
    test: dict[float, list[list[float]]] = field(default_factory=dict)

    def best(self) -> tuple[float, float]:
        """(rate that did best where rates are chosen, its mean accuracy on the test part)."""
        rate = max(self.choose, key=lambda r: float(np.mean(self.choose[r])))
        return rate, float(np.mean(self.test[rate]))


# ---- data and base ----


def cache_folder() -> Path:
    """Where trained bases are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lora_mcu" / "fsdd"


def network(normalized: bool) -> Any:
    """Convolution 10 x 4, three depthwise-separable blocks, mean, dense: 49 x 10 x 1 -> 10.

    ``normalized`` puts a batch normalization behind each convolution (to train); :func:`fold` takes it away.
    """
    import tensorflow as tf

    layers = tf.keras.layers

    def block(layer: Any) -> list[Any]:
        return [layer, *([layers.BatchNormalization()] if normalized else []), layers.ReLU()]

    stack = [tf.keras.Input((49, 10, 1)), *block(layers.Conv2D(CHANNELS, (10, 4), strides=2, padding="same"))]
    for _ in range(BLOCKS):
        stack += [*block(layers.DepthwiseConv2D(3, padding="same")), *block(layers.Conv2D(CHANNELS, 1))]
    stack += [layers.GlobalAveragePooling2D(), layers.Dropout(0.2 if normalized else 0.0), layers.Dense(10)]
    return tf.keras.Sequential(stack)


def fold(model: Any) -> Any:
    """The same function without batch normalization: its factor goes into the weights, its offset into the bias."""
    values = [layer.get_weights() for layer in model.layers if layer.get_weights()]
    folded: list[Floats] = []
    for i, found in enumerate(values):
        if len(found) == 4:
            continue
        w, b = found
        if i + 1 < len(values):
            gamma, beta, mean, variance = values[i + 1]
            factor = gamma / np.sqrt(variance + 1e-3)  # Keras' epsilon
            w = w * (factor.reshape(-1, 1) if w.shape[3] == 1 else factor)
            b = (b - mean) * factor + beta
        folded += [w, b]
    plain = network(normalized=False)
    plain.set_weights(folded)
    return plain


def prepare(number: int, data: Path) -> Speaker:
    """Load the takes and train (or find) the base for one held-out speaker."""
    with np.load(data / "fsdd_mfcc49x10.npz", allow_pickle=False) as file:
        x, y = file["x"].astype(np.float32), file["y"].astype(np.int64)
        subject, take = file["subject"], file["take"]
    others = subject != number
    mean, std = x[others].mean(axis=(0, 1)), x[others].std(axis=(0, 1))
    x = ((x - mean) / std)[..., None]

    def part(takes: range) -> Part:
        mine = (subject == number) & np.isin(take, list(takes))
        return Part(x[mine], y[mine])

    folder = cache_folder()
    tflite, stored = folder / f"speaker{number}.tflite", folder / f"speaker{number}.npz"
    if not (tflite.exists() and stored.exists()):
        _train_base(x[others], y[others], tflite, stored)
    with np.load(stored, allow_pickle=False) as file:
        weights = [file[f"w{i}"] for i in range(len(file.files))]
    return Speaker(number, tflite, weights, part(TRAIN), part(CHOOSE), part(TEST))


def _train_base(x: Floats, y: NDArray[np.int64], tflite: Path, stored: Path) -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(5)
    model = network(normalized=True)
    schedule = tf.keras.optimizers.schedules.CosineDecay(4e-3, 20 * (len(x) // 64 + 1))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule), loss=loss)
    model.fit(x, y, batch_size=64, epochs=20, verbose=0)
    trained, model = model, fold(model)
    gap = np.abs(trained(x[:50], training=False).numpy() - model(x[:50]).numpy()).max()
    assert gap < 1e-2, f"folding changed the outputs by {gap}"
    content = convert(model, x[:: len(x) // 200, None], fixed_batch=True)
    tflite.parent.mkdir(parents=True, exist_ok=True)
    np.savez(stored, **{f"w{i}": w for i, w in enumerate(model.get_weights())})
    with tempfile.NamedTemporaryFile(dir=tflite.parent, delete=False) as draft:
        draft.write(content)
    Path(draft.name).replace(tflite)


# ---- LoRA in floats ----


def _float_logits(weights: list[Any], factors: list[tuple[Any, Any]], x: Any) -> Any:
    """The network with W + gamma B A in every convolution and the dense layer."""
    import tensorflow as tf

    queue, pairs = list(weights), list(factors)

    def adapted(w: Any) -> Any:
        a, b = pairs.pop(0)  # [r, K], [M, r]
        return w + tf.reshape(ALPHA / RANK * tf.transpose(tf.matmul(b, a)), w.shape)

    w, bias = queue.pop(0), queue.pop(0)
    x = tf.nn.relu(tf.nn.conv2d(x, adapted(w), 2, "SAME") + bias)
    for _ in range(BLOCKS):
        w, bias = queue.pop(0), queue.pop(0)
        x = tf.nn.relu(tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME") + bias)
        w, bias = queue.pop(0), queue.pop(0)
        x = tf.nn.relu(tf.nn.conv2d(x, adapted(w), 1, "VALID") + bias)
    w, bias = queue.pop(0), queue.pop(0)
    return tf.matmul(tf.reduce_mean(x, axis=(1, 2)), adapted(w)) + bias


def float_lora(speaker: Speaker, seeds: range) -> dict[float, list[tuple[float, float]]]:
    """{rate: [(accuracy that chooses, accuracy on the test part) for each seed]}."""
    import tensorflow as tf

    weights = [tf.constant(w) for w in speaker.weights]
    # Keras' list: kernel and bias of each layer; depthwise kernels are [3, 3, C, 1]
    adapted = [w for w in speaker.weights if w.ndim == 2 or (w.ndim == 4 and w.shape[3] != 1)]

    @tf.function
    def step(factors: list[tuple[Any, Any]], x: Any, y: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(factors)
            logits = _float_logits(weights, factors, x)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        gradients = tape.gradient(loss, factors)
        return tf.nest.map_structure(lambda p, g: p - rate * g, factors, gradients)

    def accuracy(factors: list[tuple[Any, Any]], part: Part) -> float:
        return float((_float_logits(weights, factors, part.x).numpy().argmax(axis=1) == part.y).mean())

    found: dict[float, list[tuple[float, float]]] = {rate: [] for rate in RATES}
    for rate in RATES:
        for seed in seeds:
            rng = np.random.default_rng(seed)
            factors: Any = []
            for w in adapted:
                k = int(np.prod(w.shape[:-1]))
                a = rng.uniform(-1, 1, (RANK, k)).astype(np.float32) / np.float32(np.sqrt(k))
                factors.append((tf.constant(a), tf.zeros((w.shape[-1], RANK))))
            for _ in range(EPOCHS):
                order = rng.permutation(len(speaker.train.y))
                for i in range(0, len(order), BATCH):
                    now = order[i : i + BATCH]
                    factors = step(factors, speaker.train.x[now], speaker.train.y[now], tf.constant(rate, tf.float32))
            found[rate].append((accuracy(factors, speaker.choose), accuracy(factors, speaker.test)))
    return found


# ---- LoRA on the twin ----


def twin_lora(speaker: Speaker, seeds: range, numerics: str) -> tuple[float, dict[float, list[tuple[float, float]]]]:
    """Accuracy of the int8 base on the test part, and as float_lora; an initial A for each seed."""
    import lora_mcu

    found: dict[float, list[tuple[float, float]]] = {rate: [] for rate in RATES}
    before = 0.0
    for seed in seeds:
        program = lora_mcu.compile(
            speaker.tflite, board="netduinoplus2", adapt="all", rank=RANK, alpha=ALPHA, seed=seed,
            loss="cross_entropy", numerics=numerics,
        )  # fmt: skip
        twin = program.twin()
        before = twin.evaluate(speaker.test.x, speaker.test.y).accuracy
        twin.store(speaker.train.x, speaker.train.y)
        for rate in RATES:
            twin.reset()
            twin.configure(lr=rate, batch_size=BATCH, seed=seed)
            twin.run_epochs(EPOCHS)
            accuracies = [twin.evaluate(part.x, part.y).accuracy for part in (speaker.choose, speaker.test)]
            found[rate].append((accuracies[0], accuracies[1]))
    return before, found


# ---- both ----


@dataclass(frozen=True)
class Result:
    before: float
    float_rate: float
    float_accuracy: float
    twin_rate: float
    twin_accuracy: float


def compare(
    numbers: list[int], seeds: range, data: Path, say: Any = lambda text: None, numerics: str = "i16"
) -> Result:
    """Means over the speakers; each method at its best rate."""
    before: list[float] = []
    outcomes = {"float": Outcome(), "twin": Outcome()}
    for number in numbers:
        speaker = prepare(number, data)
        base, on_twin = twin_lora(speaker, seeds, numerics)
        before.append(base)
        for method, found in (("float", float_lora(speaker, seeds)), ("twin", on_twin)):
            for rate, pairs in found.items():
                outcomes[method].choose.setdefault(rate, []).append([p[0] for p in pairs])
                outcomes[method].test.setdefault(rate, []).append([p[1] for p in pairs])
                shown = " ".join(f"{100 * p[0]:.1f}/{100 * p[1]:.1f}" for p in pairs)
                say(f"speaker {number} {method:5} lr {rate:<6} choose/test {shown}")
    return Result(float(np.mean(before)), *outcomes["float"].best(), *outcomes["twin"].best())


def main() -> None:
    parser = argparse.ArgumentParser(description="LoRA on the twin beside float LoRA, leave-one-speaker-out")
    parser.add_argument("--speakers", type=int, nargs="+", default=list(range(6)))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--numerics", choices=NUMERICS, default="i16")
    options = parser.parse_args()
    data = os.environ.get("LORA_MCU_DATA")
    if not data:
        sys.exit("set LORA_MCU_DATA to the folder of fsdd_mfcc49x10.npz")
    r = compare(options.speakers, range(options.seeds), Path(data), print, options.numerics)
    print(f"mean of {len(options.speakers)} speakers on takes 20..49: int8 base {100 * r.before:.1f} %,")
    print(f"float LoRA {100 * r.float_accuracy:.1f} % (lr {r.float_rate}),")
    print(f"LoRA on the twin, numerics {options.numerics}, {100 * r.twin_accuracy:.1f} % (lr {r.twin_rate})")


if __name__ == "__main__":
    main()

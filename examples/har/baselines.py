# SPDX-License-Identifier: Apache-2.0
"""Float baselines on the six held-out people, recorded in baselines.json. Needs TensorFlow.

All start from the same model, har.tflite with its weights dequantized, and see the same windows in the same order:

- last_layer: all float weights and biases of the dense layer at the end
- lora_float: LoRA r = 4, alpha = 8 on every convolution and the dense layer
- lora_fake_quant: the same with int8 activations (straight-through) and fp16 factors: what the device does, in floats
- full: every weight and bias

Plain SGD, batch 8, 10 windows a class of one person. Each method gets its own best learning rate, for 150 and for 600
steps, chosen by the accuracy on the REST OF THE ADAPTATION PART (mean over people and seeds), never on the test part.

    python examples/har/baselines.py                          # all of it, about two minutes
    python examples/har/baselines.py --person 5 --seed 0      # one person again, beside what is recorded; seconds
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import floatnet
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import windows

HERE = Path(__file__).resolve().parent
RECORD = HERE / "baselines.json"
COMMAND = "python examples/har/baselines.py"
SEEDS = (0, 1, 2)
STEPS = (150, 600)
METHODS = {
    "last_layer": floatnet.Setting("last"),
    "lora_float": floatnet.Setting("lora"),
    "lora_fake_quant": floatnet.Setting("lora", fake_quant=True),
    "full": floatnet.Setting("full"),
}
RATES = {
    "last_layer": (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.6, 1.0),
    "lora_float": (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1),
    "lora_fake_quant": (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1),
    "full": (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
}
CURVE_EVERY = 10

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One training run: whose windows, which draw of them, how fast."""

    person: int
    seed: int
    rate: float


@dataclass
class Outcome:
    """What a batch of runs gave."""

    accuracy: dict[int, Doubles] = field(default_factory=dict)  # steps -> [runs]
    loss: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))  # [steps, runs]


@cache
def data() -> windows.Har:
    return windows.load()


@cache
def net() -> floatnet.Net:
    return floatnet.read_net(HERE / "har.tflite")


@cache
def compiled(method: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(trainer, predictor): compiled once for each shape of batch of runs."""
    setting = METHODS[method]
    return floatnet.make_trainer(net(), setting), floatnet.make_predictor(net(), setting)


def windows_of(indices: list[windows.Indices], size: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The windows and labels of every run, padded to one size; a padded label is -1 and never right."""
    x = np.zeros((len(indices), size, *data().x.shape[1:]), dtype=np.float32)
    y = np.full((len(indices), size), -1, dtype=np.int64)
    for i, chosen in enumerate(indices):
        x[i, : len(chosen)] = data().real(chosen)
        y[i, : len(chosen)] = data().y[chosen]
    return x, y


def largest_part() -> int:
    """A size that holds any person's adaptation or test part, so that one compiled predictor serves all."""
    return max(int(np.sum((data().subject == p) & (data().part == k))) for p in data().people for k in (0, 1))


def measure(method: str, params: floatnet.Params, judged: list[windows.Indices]) -> Doubles:
    """The accuracy of every run on its windows."""
    x, y = windows_of(judged, largest_part())
    found = compiled(method)[1](params, tf.constant(x)).numpy()
    accuracy: Doubles = (found == y).sum(axis=1) / (y >= 0).sum(axis=1)
    return accuracy


def start(method: str, runs: list[Run]) -> floatnet.Params:
    """The parameters before the first step."""
    made = floatnet.initial(net(), METHODS[method], [run.seed for run in runs])
    return {name: tf.constant(value) for name, value in made.items()}


def train(method: str, runs: list[Run], judge_on: str) -> Outcome:
    """Train all runs at once; after 150 and 600 steps measure them on "rest" (to choose rates) or "test"."""
    splits = [windows.split_person(data(), run.person, run.seed) for run in runs]
    judged = [getattr(split, judge_on) for split in splits]
    x, y = windows_of([split.train for split in splits], len(splits[0].train))
    batch = METHODS[method].batch
    order = np.stack([floatnet.batches(run.seed, x.shape[1], STEPS[-1], batch) for run in runs], axis=1)
    rate = tf.constant([run.rate for run in runs], tf.float32)
    x, y, params, outcome, done, curves = tf.constant(x), tf.constant(y), start(method, runs), Outcome(), 0, []
    for steps in STEPS:
        counter = tf.constant(runs[0].seed * STEPS[-1] + done)
        params, curve = compiled(method)[0](params, x, y, tf.constant(order[done:steps]), rate, counter)
        curves.append(curve.numpy())
        outcome.accuracy[steps] = measure(method, params, judged)
        done = steps
    outcome.loss = np.concatenate(curves)
    return outcome


# --- choosing rates, then looking at the test part once --------------------------------------------------------------


def sweep(method: str) -> dict[int, dict[float, float]]:
    """steps -> rate -> accuracy on the rest of the adaptation part, mean over people and seeds."""
    rates = RATES[method]
    runs = [Run(person, seed, rate) for rate in rates for person in data().people for seed in SEEDS]
    accuracy = train(method, runs, "rest").accuracy
    return {
        steps: dict(zip(rates, accuracy[steps].reshape(len(rates), -1).mean(axis=1).tolist(), strict=True))
        for steps in STEPS
    }


def best_rate(by_rate: dict[float, float]) -> float:
    """The rate with the highest accuracy; of equals the smallest."""
    return max(sorted(by_rate), key=lambda rate: by_rate[rate])


def run_person(method: str, person: int, seed: int, rates: dict[int, float]) -> tuple[dict[int, float], Floats]:
    """(steps -> test accuracy at that rate, the loss curve of the longest run).

    One run at a time, so that computing one person again does exactly what was recorded.
    """
    accuracy, curve = {}, np.empty(0, np.float32)
    for rate in sorted(set(rates.values())):
        outcome = train(method, [Run(person, seed, rate)], "test")
        accuracy.update({steps: float(outcome.accuracy[steps][0]) for steps in STEPS if rates[steps] == rate})
        if rates[STEPS[-1]] == rate:
            curve = outcome.loss[:, 0]
    return accuracy, curve


def record_method(method: str) -> dict[str, Any]:
    """Sweep, choose, test: everything that baselines.json says about one method."""
    swept = sweep(method)
    rates = {steps: best_rate(swept[steps]) for steps in STEPS}
    results = {(p, s): run_person(method, p, s, rates) for p in data().people for s in SEEDS}
    out: dict[str, Any] = {"setting": asdict(METHODS[method])}
    for steps in STEPS:
        per_person = {str(p): [round(results[p, s][0][steps], 4) for s in SEEDS] for p in data().people}
        out[str(steps)] = {
            "lr": rates[steps],
            "adaptation_accuracy_by_lr": {f"{rate:g}": round(value, 4) for rate, value in swept[steps].items()},
            "test_accuracy_per_person": per_person,
            "test_accuracy_mean": round(float(np.mean(list(per_person.values()))), 4),
        }
    curves = np.mean([curve for _, curve in results.values()], axis=0).reshape(-1, CURVE_EVERY).mean(axis=1)
    out["loss_curve_600"] = {"every": CURVE_EVERY, "loss": [round(float(v), 4) for v in curves]}
    return out


def record_before(method: str) -> dict[str, Any]:
    """The test accuracy before the first step, in that method's arithmetic."""
    runs = [Run(person, 0, 0.0) for person in data().people]
    tests = [windows.split_person(data(), run.person, run.seed).test for run in runs]
    found = measure(method, start(method, runs), tests)
    per_person = {str(run.person): round(float(value), 4) for run, value in zip(runs, found, strict=True)}
    return {"test_accuracy_per_person": per_person, "test_accuracy_mean": round(float(found.mean()), 4)}


def sha256(name: str) -> str:
    return hashlib.sha256((HERE / name).read_bytes()).hexdigest()


def record() -> dict[str, Any]:
    """All of baselines.json."""
    out: dict[str, Any] = {
        "command": COMMAND,
        "made_with": {"tensorflow": tf.__version__, "numpy": np.__version__},
        "model_sha256": sha256("har.tflite"),
        "data_sha256": sha256("har.npz"),
        "windows_per_class": windows.PER_CLASS,
        "seeds": list(SEEDS),
        "rates_chosen_on": (
            "the adaptation windows that were not trained on (half their samples are in neighbours that were); "
            "the test part, which shares no sample with the adaptation part, was never used to choose"
        ),
        "before": {"float": record_before("lora_float"), "fake_quant": record_before("lora_fake_quant")},
        "methods": {},
    }
    for method in METHODS:
        print(f"{method} ...", flush=True)
        out["methods"][method] = record_method(method)
        for steps in STEPS:
            found = out["methods"][method][str(steps)]
            print(f"  {steps} steps: lr {found['lr']:g}, test {found['test_accuracy_mean']:.4f}", flush=True)
    out["recommended_lr"] = out["methods"]["lora_fake_quant"][str(STEPS[-1])]["lr"]
    return out


def recompute(person: int, seed: int, methods: tuple[str, ...] = tuple(METHODS)) -> dict[str, dict[int, float]]:
    """method -> steps -> test accuracy of one person and one seed at the recorded rates."""
    recorded = json.loads(RECORD.read_text())["methods"]
    out = {}
    for method in methods:
        rates = {steps: recorded[method][str(steps)]["lr"] for steps in STEPS}
        out[method] = run_person(method, person, seed, rates)[0]
    return out


def compare(person: int, seed: int) -> None:
    """Print one person's figures, recorded and computed again."""
    recorded = json.loads(RECORD.read_text())["methods"]
    for method, by_steps in recompute(person, seed).items():
        for steps, found in by_steps.items():
            then = recorded[method][str(steps)]["test_accuracy_per_person"][str(person)][SEEDS.index(seed)]
            print(f"{method:16s} {steps} steps: recorded {then:.4f}, now {found:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the float baselines, or compute one person again.")
    parser.add_argument("--person", type=int, choices=data().people, help="only this person; writes nothing")
    parser.add_argument("--seed", type=int, choices=SEEDS, default=0)
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    if arguments.person is not None:
        compare(arguments.person, arguments.seed)
        return
    RECORD.write_text(json.dumps(record(), indent=1) + "\n")


if __name__ == "__main__":
    main()

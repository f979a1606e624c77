# SPDX-License-Identifier: Apache-2.0
"""An adapter merged into its base: an ordinary int8 .tflite, and what the new rounding of the weights costs."""

from __future__ import annotations

import hashlib
import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_mcu.adapters.adapter import Adapter
from lora_mcu.adapters.combining import change
from lora_mcu.errors import AdapterError, DataError, ModelError, ProjectError
from lora_mcu.importer import rewrite
from lora_mcu.info import ModelInfo
from lora_mcu.ir import Conv2D, Dense, Graph
from lora_mcu.session.data import encode_labelled, encode_labels, encode_samples, is_sequences

if TYPE_CHECKING:
    from lora_mcu.twin import Twin

Floats = NDArray[np.float64]
RANDOM_INPUTS = 64
_BIAS_LIMIT = 2.0**30  # of a bias, in steps: half of int32 stays for the products


@dataclass(frozen=True)
class MergedLayer:
    """``sqnr_db``: power of the wanted weights over that of their rounding error; ``change_sqnr_db``: of the change
    gamma B A over the same error. Both are None where nothing was rounded or nothing changed. ``scales``: 1 or M.
    """

    name: str
    scales: int
    sqnr_db: float | None
    change_sqnr_db: float | None


@dataclass(frozen=True)
class MergeCheck:
    """Base + adapter against the merged model, both on the twin, on ``samples`` of ``inputs`` (given | random).

    ``max_logit_change`` is in real units, ``logit_step`` the logits' scale. ``measure`` is accuracy or mean squared
    error of the labelled data that was given, of the base, the base with the adapter and the merged model, else None.
    """

    inputs: str
    samples: int
    max_logit_change: float
    logit_step: float
    measure: str | None = None
    base: float | None = None
    adapter: float | None = None
    merged: float | None = None


@dataclass(frozen=True)
class Merged:
    """A merged model: ``content`` is the .tflite file, ``base`` the one it was made from."""

    base: bytes = field(repr=False)
    content: bytes = field(repr=False)
    adapter: Adapter = field(repr=False)
    info: ModelInfo = field(repr=False)  # of the base, compiled for the adapter
    output: str | None
    layers: tuple[MergedLayer, ...]

    @property
    def sha256(self) -> str:
        """Of the merged file: its adapters are others than the base's."""
        return hashlib.sha256(self.content).hexdigest()

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the file, whole or not at all; an existing one only with ``force``. Raises ProjectError."""
        path = Path(path)
        if path.exists() and not force:
            raise ProjectError(f"{path} exists: choose another name, or --force replaces it")
        half = path.with_name(f".{path.name}.half")
        try:
            half.write_bytes(self.content)
            half.replace(path)
        except OSError as error:
            raise ProjectError(f"{path} cannot be written: {error.strerror}") from None
        finally:
            half.unlink(missing_ok=True)

    def compare(self, x: ArrayLike | None = None, y: ArrayLike | None = None) -> MergeCheck:
        """Run base + adapter and the merged model on ``x [N, *sample]`` (64 random inputs without it), labels ``y``.

        Builds two twins, so it needs gcc. Raises DataError where samples or labels do not fit the model, ToolError.
        """
        return _compare(self, x, y)


def merge(
    model: str | Path, adapter: Adapter, *, per_channel: bool = False, loss: str = "auto", output: str | None = None
) -> Merged:
    """Merge an adapter into the .tflite file that it was trained on: W' = W + gamma B A, quantized afresh.

    Each changed channel gets the scale max|W'| / 127 (a dense layer with one scale keeps one, unless ``per_channel``)
    and its bias is requantized to s_x * s_w'. Channels that the adapter does not change keep their numbers, so that an
    adapter with B = 0 merges into a model with the base's outputs. Scales of activations stay as they are. ``loss`` and
    ``output`` are what the adapter was compiled with. Equal arguments give equal bytes.

    Needs the `oracle` extra, whose package writes the file. Raises AdapterError when the adapter was not made for this
    model, ModelError, ToolError.
    """
    from lora_mcu import importer
    from lora_mcu.passes import normalize

    graph = normalize.normalize(importer.load(model, output))
    info = _fits(model, graph, adapter, {"loss": loss, "output": output})
    content = Path(model).read_bytes()
    edits: dict[tuple[int, int], rewrite.Constant] = {}
    layers = []
    for op, name in zip(graph.adaptable(), graph.layer_names().values(), strict=True):
        if name in adapter.layers:
            assert isinstance(op, Conv2D | Dense)
            layer, changed = _merge_layer(graph, op, name, change(adapter, name), per_channel)
            layers.append(layer)
            edits |= changed
    merged = rewrite.replace_constants(content, edits)
    importer.loads(merged, Path(model).stem, output)  # what was written can be read
    return Merged(content, merged, adapter, info, output, tuple(layers))


def _fits(model: str | Path, graph: Graph, adapter: Adapter, options: dict[str, Any]) -> ModelInfo:
    """What compiling the base for this adapter gives. Raises AdapterError naming what differs."""
    from lora_mcu.program import compile

    name = Path(model).name
    if adapter.model_sha256 != graph.sha256:
        raise AdapterError(
            f"the adapter belongs to another model (sha256 {adapter.model_sha256[:12]}); {name} has"
            f" {graph.sha256[:12]}: merge it into the file that was compiled when it was trained"
        )
    for layer in adapter.layers:
        if layer not in graph.layer_names().values():
            raise AdapterError(
                f"{name} has no layer {layer}, the adapter has: `lora-mcu inspect {name}` lists its layers"
            )
    info = compile(model, board="native", **options, **_layout(adapter)).info
    adapter.to_factors(info)
    return info


def _layout(adapter: Adapter) -> dict[str, Any]:
    return {"adapt": ",".join(adapter.layers), "rank": adapter.rank, "alpha": adapter.alpha, "rslora": adapter.rslora}


def _merge_layer(
    graph: Graph, op: Conv2D | Dense, name: str, delta: Floats, per_channel: bool
) -> tuple[MergedLayer, dict[tuple[int, int], rewrite.Constant]]:
    weights, x = graph.tensors[op.weights], graph.tensors[op.inputs[0]]
    assert weights.data is not None
    old = np.broadcast_to(weights.scale, len(delta)).astype(np.float32)
    steps = weights.data.reshape(delta.shape).astype(np.float64)
    wanted = steps * old[:, None].astype(np.float64) + delta
    bias = graph.tensors[op.bias] if op.bias is not None else None
    b_old = np.zeros(len(delta)) if bias is None or bias.data is None else bias.data.ravel().astype(np.float64)
    one_scale = isinstance(op, Dense) and len(weights.scale) == 1 and not per_channel
    scale = _scales(wanted, delta, b_old * old, old, one_scale)
    q = np.clip(_round(wanted / scale[:, None].astype(np.float64)), -128, 127)  # -128: of a channel that stays
    error = float(np.sum((q * scale[:, None].astype(np.float64) - wanted) ** 2))
    few = scale[:1] if one_scale else scale
    layer = MergedLayer(name, len(few), _decibels(np.sum(wanted**2), error), _decibels(np.sum(delta**2), error))
    edits = {(op.index, 1): rewrite.Constant(q.astype(np.int8).reshape(weights.shape), few)}
    if bias is not None:
        b = _round(b_old * (old.astype(np.float64) / scale.astype(np.float64))).astype(np.int32)
        edits[op.index, 2] = rewrite.Constant(b.reshape(bias.shape), (few * x.s).astype(np.float32))
    return layer, edits


def _scales(wanted: Floats, delta: Floats, bias: Floats, old: NDArray[np.float32], one: bool) -> NDArray[np.float32]:
    """New scales [M] of the weights: ``bias`` is in units of the input's scale; unchanged channels keep theirs."""
    need = np.maximum(np.abs(wanted).max(axis=1) / 127, np.abs(bias) / _BIAS_LIMIT)
    changed = delta.any(axis=1)
    if one:
        need, changed = np.full_like(need, need.max()), np.full_like(changed, changed.any())
    usable = np.maximum(need, np.finfo(np.float32).tiny)
    return np.where(changed & (need > 0), usable.astype(np.float32), old).astype(np.float32)


def _round(value: Floats) -> Floats:
    """Half away from zero, as converters do."""
    return np.asarray(np.copysign(np.floor(np.abs(value) + 0.5), value))


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def _compare(made: Merged, x: ArrayLike | None, y: ArrayLike | None) -> MergeCheck:
    from lora_mcu import importer
    from lora_mcu.passes import normalize, tail

    info = made.info
    if y is not None and x is None:
        raise DataError("labels were given without samples: give both, or x alone")
    graph = normalize.normalize(importer.loads(made.base, output=made.output))
    samples = _random_inputs(graph, info) if x is None else np.asarray(x)
    if not (encode_samples(info, samples) if x is None else encode_labelled(info, samples)):
        raise DataError("the samples are none: give at least one")
    labels = None if y is None else _labels(info, y, len(samples))
    base, merged = _twins(made, tail.split(graph, info.loss).logits)
    runs = [_logits(base, samples)]
    base.load(replace(made.adapter, model_sha256=base.info.model_sha256))
    runs += [_logits(base, samples), _logits(merged, samples)]
    seen = MergeCheck("random" if x is None else "given", len(samples), float(np.abs(runs[2] - runs[1]).max()),
                      float(base.info.output.scale or 1.0))  # fmt: skip
    if labels is None:
        return seen
    measure = "accuracy" if info.loss == "cross_entropy" else "mean squared error"
    values = [_measure(info, logits, labels) for logits in runs]
    return replace(seen, measure=measure, base=values[0], adapter=values[1], merged=values[2])


def _twins(made: Merged, logits: int) -> tuple[Twin, Twin]:
    """Base (ready for the adapter) and merged model, both ending in the logits."""
    from lora_mcu.program import compile

    with tempfile.TemporaryDirectory(prefix="lora_mcu-merge-") as folder:
        base, merged = Path(folder) / "base.tflite", Path(folder) / "merged.tflite"
        base.write_bytes(rewrite.end_at(made.base, logits))
        merged.write_bytes(rewrite.end_at(made.content, logits))
        one = compile(base, board="native", loss=made.info.loss, **_layout(made.adapter))
        two = compile(merged, board="native", loss=made.info.loss, adapt="none")
        return one.twin(), two.twin()


def _random_inputs(graph: Graph, info: ModelInfo) -> NDArray[Any]:
    """Uniform over the int8 (or uint8) range of the input, as what quantizes it gives."""
    rng, shape = np.random.default_rng(0), (RANDOM_INPUTS, *info.input.shape)
    if info.index_rows:
        return rng.integers(0, info.index_rows, shape).astype(info.input.dtype)
    if info.input.dtype != "float32":
        limits = np.iinfo(info.input.dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(info.input.dtype)
    first = next(graph.tensors[op.output] for op in graph.ops if graph.input in op.inputs)
    if first.dtype != "int8" or len(first.scale) != 1:
        raise ModelError(f"{first.name!r} behind the float input has no one scale: give samples for the check")
    return ((rng.integers(-128, 128, shape) - first.z) * first.s).astype(np.float32)


def _logits(twin: Twin, x: NDArray[Any]) -> Floats:
    """[N, logits] in real units, of a sequence those of its last frame; the model ends in its int8 logits."""
    out, q = twin.info.output, twin.infer(x)
    if is_sequences(twin.info, x):
        q = q[:, -1]
    q = q.reshape(len(x), -1).astype(np.float64)
    return (q - out.zero_point) * float(out.scale or 1.0)


def _labels(info: ModelInfo, y: ArrayLike, count: int) -> NDArray[Any]:
    """[N, 1] classes or [N, logits] targets in real units."""
    encoded = encode_labels(info, y)
    if len(encoded) != count:
        raise DataError(f"x holds {count} samples but labels holds {len(encoded)}: give one label a sample")
    dtype = "<u4" if info.loss == "cross_entropy" else "<f4"
    return np.frombuffer(b"".join(encoded), dtype).reshape(count, -1)


def _measure(info: ModelInfo, logits: Floats, labels: NDArray[Any]) -> float:
    """Share of samples whose first largest logit is the label, or the mean squared error in real units."""
    if info.loss == "cross_entropy" and info.logit_count == 1:
        return float(np.mean((logits[:, 0] > 0) == (labels[:, 0] == 1)))
    if info.loss == "cross_entropy":
        return float(np.mean(logits.argmax(axis=1) == labels[:, 0]))
    return float(np.mean((logits - labels) ** 2))

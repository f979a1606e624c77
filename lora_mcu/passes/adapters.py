# SPDX-License-Identifier: Apache-2.0
"""Which layers get factors: ``all | none | last:N | name,name``, a name or a pattern of names (``auto``: auto.py)."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from dataclasses import dataclass

import numpy as np

from lora_mcu.errors import ModelError
from lora_mcu.ir import Conv2D, Dense, Graph

MAX_RANK = 64  # LMCU_MAX_RANK


@dataclass(frozen=True)
class AdaptedLayer:
    """One adapted layer. A is [rank, k], B is [m, rank]; offsets count elements of the factor array."""

    name: str
    op: Conv2D | Dense
    m: int
    k: int
    kernel: tuple[int, int, int] | None
    a_offset: int
    b_offset: int

    @property
    def is_light(self) -> bool:
        """Dense or pointwise: A has as many columns as the layer has input channels."""
        return self.kernel is None or self.kernel[:2] == (1, 1)


@dataclass(frozen=True)
class Adaptation:
    """The adapter's layout: layers in operator order, A then B."""

    rank: int
    alpha: float
    rslora: bool
    layers: tuple[AdaptedLayer, ...]

    @property
    def gamma(self) -> float:
        """alpha / r (arXiv 2106.09685), or alpha / sqrt(r) with rslora (arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def parameters(self) -> int:
        return sum(self.rank * (layer.m + layer.k) for layer in self.layers)

    def of(self, op: object) -> AdaptedLayer | None:
        return next((layer for layer in self.layers if layer.op is op), None)


def select(graph: Graph, live: list[object], adapt: str) -> list[str]:
    """The names of the layers that ``adapt`` means, in operator order; ``auto`` means those it may choose from.

    ``live`` are the operators that training runs. Raises ModelError when a name or number is unknown.
    """
    ops = {id(op) for op in live}
    names = [name for op, name in zip(graph.adaptable(), graph.layer_names().values(), strict=True) if id(op) in ops]
    if adapt == "none":
        return []
    if not names:
        raise ModelError("no layer can be adapted: there is no FULLY_CONNECTED or CONV_2D with constant int8 weights")
    if adapt in ("all", "auto"):
        return names
    if match := re.fullmatch(r"last:(\d+)", adapt):
        count = int(match[1])
        if not 1 <= count <= len(names):
            raise ModelError(
                f"adapt {adapt!r}: the model has {len(names)} adaptable layers; use last:1 to last:{len(names)}"
            )
        return names[-count:]
    wanted: set[str] = set()
    for part in (part.strip() for part in adapt.split(",")):
        found = matching(part, names)
        if not found:
            near = difflib.get_close_matches(part, names, 3, 0.4) or names
            raise ModelError(
                f"adapt: no layer {part!r}; near: {', '.join(near[:5])} (`lora-mcu inspect` lists them all)"
            )
        wanted.update(found)
    return [name for name in names if name in wanted]


def matching(pattern: str, names: list[str]) -> list[str]:
    """The names that ``pattern`` means, in any case: a whole name; else a glob (``*value*``); else the beginning of a
    part between underscores (``v`` takes ``attention_value_1``, not ``conv2d``); else anything inside a name."""
    if pattern in names or not pattern:
        return [pattern] if pattern else []
    lowered = {name: name.lower() for name in names}
    text = pattern.lower()
    if any(c in text for c in "*?["):
        return [name for name in names if fnmatch.fnmatchcase(lowered[name], text)]
    begins = [name for name in names if f"_{text}" in f"_{lowered[name]}"]
    return begins or [name for name in names if text in lowered[name]]


def layout(graph: Graph, names: list[str], rank: int, alpha: float, rslora: bool) -> Adaptation:
    """Place the factors of the named layers. Raises ModelError for a rank or alpha out of range."""
    if not 1 <= rank <= MAX_RANK:
        raise ModelError(f"rank {rank} is outside 1..{MAX_RANK}")
    if not (math.isfinite(alpha) and 0 < alpha <= 65504 and np.float32(alpha) > 0):
        raise ModelError(f"alpha {alpha} must be a positive number up to 65504")
    layers, offset = [], 0
    for op, name in zip(graph.adaptable(), graph.layer_names().values(), strict=True):
        if name not in names:
            continue
        assert isinstance(op, Conv2D | Dense)
        shape = graph.tensors[op.weights].shape
        m, k = shape[0], math.prod(shape[1:])
        kernel = (shape[1], shape[2], shape[3]) if isinstance(op, Conv2D) else None
        layers.append(AdaptedLayer(name, op, m, k, kernel, offset, offset + rank * k))
        offset += rank * (k + m)
    return Adaptation(rank, float(alpha), rslora, tuple(layers))

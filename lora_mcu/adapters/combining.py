# SPDX-License-Identifier: Apache-2.0
"""Several adapters of one model made into one, and how two of them differ. All arithmetic is float64.

D_i = gamma B_i A_i is the change that adapter i makes to a layer's weights, w_i its weight, D = sum_i w_i D_i the exact
combination. It has rank up to the sum of the ranks, the result has the rank r that the device was compiled for:

- ``linear``: A = sum w_i A_i / sum w_i, B = sum w_i B_i. Cheap, and exact only where all A_i are equal, because
  mean(B_i A_i) != mean(B) mean(A) (arXiv 2410.09432).
- ``svd``: D truncated to its r largest singular values, the best approximation of rank r in the Frobenius norm
  (Eckart and Young 1936).
- ``ties`` (arXiv 2306.01708), on the D_i of each layer: trim each to the ``density`` largest of its magnitudes, elect a
  value's sign by sum_i w_i D_i, average those that agree with it: (sum_i w_i) * sum_agree w_i D_i / sum_agree w_i. Then
  truncated as svd.
- ``dare`` (arXiv 2311.03099), on the D_i of each layer: drop each value with probability p = 1 - ``density``, rescale
  the others by 1 / (1 - p), sum with w_i. Then truncated as svd.

The truncated change U S V^T is shared out as B = U sqrt(S / gamma), A = sqrt(S / gamma) V^T, rounded to fp16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_mcu.adapters.adapter import Adapter, Half
from lora_mcu.errors import AdapterError, DataError
from lora_mcu.random_bits import rand

Floats = NDArray[np.float64]
METHODS = ("linear", "svd", "ties", "dare")
DENSITY = {"ties": 0.2, "dare": 0.5}  # defaults: the TIES paper's 20 %


@dataclass(frozen=True)
class Combined:
    """The adapter, and by layer the distance |gamma B A - D| / |D| (Frobenius) to the exact combination D.

    ties and dare leave D on purpose, so theirs is not an error alone. None where D is zero.
    """

    adapter: Adapter
    distance: dict[str, float | None]


def combine(
    adapters: Sequence[Adapter], method: str = "svd", *, weights: Sequence[float] | None = None,
    density: float | None = None, seed: int = 0,
) -> Combined:  # fmt: skip
    """Combine adapters of one model and layout; see the module for the formulas.

    ``weights`` default to 1 / n each and are not normalized; their sum must not be 0, and ties takes only positive
    ones. ``density`` in (0, 1] is for ties (0.2) and dare (0.5), ``seed`` for dare. Raises AdapterError naming what
    differs where the adapters do not belong together or the result is beyond fp16, DataError for a setting.
    """
    if len(adapters) < 2:
        raise DataError(f"{len(adapters)} adapter was given: combining takes at least two")
    if method not in METHODS:
        raise DataError(f"method {method!r} is unknown; use {', '.join(METHODS)}")
    w = _weights(len(adapters), method, weights)
    share = _density(method, density)
    if not 0 <= seed < 2**32:
        raise DataError(f"seed {seed} is outside 0..{2**32 - 1}")
    for number, other in enumerate(adapters[1:], 2):
        check_alike(adapters[0], other, f"adapter {number}")
    first = adapters[0]
    layers: dict[str, tuple[Half, Half]] = {}
    distance: dict[str, float | None] = {}
    offset = 0
    for name in sorted(first.layers):
        changes = [change(adapter, name) for adapter in adapters]
        exact = np.tensordot(w, changes, 1)
        if method == "linear":
            a, b = _linear(adapters, name, w)
        else:
            if method == "ties":
                target = ties(changes, w, share)
            elif method == "dare":
                target = np.tensordot(w, dare(changes, share, seed, offset), 1)
            else:
                target = exact
            a, b = truncate(target, first.rank, first.gamma)
        layers[name] = _half(name, a), _half(name, b)
        made = first.gamma * layers[name][1].astype(np.float64) @ layers[name][0].astype(np.float64)
        size = float(np.linalg.norm(exact))
        distance[name] = float(np.linalg.norm(made - exact)) / size if size else None
        offset += len(changes) * exact.size
    return Combined(replace(first, layers=layers), distance)


def change(adapter: Adapter, name: str) -> Floats:
    """gamma B A of a layer, float64 [M, K], gamma as the device has it; summed in the order of r (firmware merge.c)."""
    a, b = (factor.astype(np.float64) for factor in adapter.layers[name])
    total = np.zeros((b.shape[0], a.shape[1]))
    for column, row in zip(b.T, a, strict=True):
        total += np.multiply.outer(column, row)
    return float(np.float32(adapter.gamma)) * total


def check_alike(one: Adapter, two: Adapter, who: str) -> None:
    """Raise AdapterError unless both are of one model, rank, alpha and layout; ``who`` names the second."""
    if one.model_sha256 != two.model_sha256:
        raise AdapterError(
            f"{who} belongs to another model ({two.model_sha256[:12]}) than the first ({one.model_sha256[:12]}): "
            "only adapters of one base go together"
        )
    for what in ("rank", "alpha", "rslora"):
        if getattr(one, what) != getattr(two, what):
            raise AdapterError(
                f"{who} has {what} {getattr(two, what)}, the first {getattr(one, what)}: train both with the same"
            )
    for name in sorted(one.layers.keys() ^ two.layers.keys()):
        raise AdapterError(f"only one of the first and {who} adapts layer {name}: compile both with the same --adapt")
    for name in sorted(one.layers):
        shapes = [(x.layers[name][1].shape[0], x.layers[name][0].shape[1], x.kernels[name]) for x in (one, two)]
        if shapes[0] != shapes[1]:
            raise AdapterError(f"layer {name}: {who} has M, K, kernel {shapes[1]}, the first {shapes[0]}")
    if one.layout_sha256 != two.layout_sha256:
        raise AdapterError(
            f"{who} has layout {two.layout_sha256[:12]}, the first {one.layout_sha256[:12]}:"
            " train both with one lora_mcu"
        )


def ties(changes: Sequence[Floats], weights: Floats, density: float) -> Floats:
    """Trim, elect, average (arXiv 2306.01708, section 3) of one layer's changes [M, K]."""
    kept = np.stack([_trim(one, density) for one in changes])
    weighted = kept * weights[:, None, None]
    elected = np.sign(weighted.sum(axis=0))
    agree = (np.sign(kept) == elected) & (kept != 0)
    total = (weights[:, None, None] * agree).sum(axis=0)
    mean = np.divide((weighted * agree).sum(axis=0), total, out=np.zeros_like(kept[0]), where=total > 0)
    return np.asarray(weights.sum() * mean)


def _trim(one: Floats, density: float) -> Floats:
    """Zero all but the ceil(density * size) largest magnitudes; of equal ones the first stay."""
    order = np.argsort(-np.abs(one), axis=None, kind="stable")
    kept = np.zeros(one.size)
    top = order[: math.ceil(density * one.size)]
    kept[top] = one.ravel()[top]
    return kept.reshape(one.shape)


def dare(changes: Sequence[Floats], density: float, seed: int, offset: int = 0) -> list[Floats]:
    """Drop and rescale (arXiv 2311.03099, section 3): values stay with probability ``density`` and are divided by it.

    Random bits: rand(2, 0, offset + index over all changes) of docs/numerics.md; a value stays if they are below
    density * 2^32.
    """
    found = []
    for one in changes:
        bits = rand(seed, 2, 0, (np.arange(one.size, dtype=np.uint64) + offset).astype(np.uint32))
        stays = bits.astype(np.float64) < density * 2.0**32
        found.append(np.where(stays.reshape(one.shape), one / density, 0.0))
        offset += one.size
    return found


def truncate(target: Floats, rank: int, gamma: float) -> tuple[Floats, Floats]:
    """A [rank, K] and B [M, rank] with gamma B A = ``target`` truncated to its ``rank`` largest singular values.

    Each column of U has its largest magnitude positive, so that signs do not depend on the library.
    """
    u, s, vt = np.linalg.svd(target, full_matrices=False)
    count = min(rank, len(s))
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    root = np.sqrt(s[:count] / gamma)
    a, b = np.zeros((rank, target.shape[1])), np.zeros((target.shape[0], rank))
    a[:count] = (root * signs[:count])[:, None] * vt[:count]
    b[:, :count] = u[:, :count] * (root * signs[:count])
    return a, b


def _linear(adapters: Sequence[Adapter], name: str, w: Floats) -> tuple[Floats, Floats]:
    a = np.tensordot(w, [x.layers[name][0].astype(np.float64) for x in adapters], 1) / w.sum()
    return a, np.tensordot(w, [x.layers[name][1].astype(np.float64) for x in adapters], 1)


def _half(name: str, factor: Floats) -> Half:
    if np.abs(factor).max(initial=0.0) > 65504:
        raise AdapterError(f"layer {name}: a combined factor is beyond fp16 (65504): choose smaller weights")
    return factor.astype(np.float16)


def _weights(count: int, method: str, weights: Sequence[float] | None) -> Floats:
    w = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (count,):
        raise DataError(f"{w.size} weights were given for {count} adapters: give one each")
    if not np.isfinite(w).all() or w.sum() == 0:
        raise DataError(f"weights {', '.join(f'{v:g}' for v in w)} must be finite and not add up to 0")
    if method == "ties" and (w <= 0).any():
        raise DataError("ties takes weights above 0: a sign is elected by weight")
    return w


def _density(method: str, density: float | None) -> float:
    if method not in DENSITY:
        if density is not None:
            raise DataError(f"density is for ties and dare; {method} keeps every value")
        return 1.0
    share = DENSITY[method] if density is None else density
    if not 0 < share <= 1:
        raise DataError(f"density {share:g} is outside (0, 1]: it is the share of values that stay")
    return share


@dataclass(frozen=True)
class LayerDifference:
    """A layer's changes D = gamma B A in two adapters: norms, |D_2 - D_1|, their cosine (None where one is zero)."""

    name: str
    equal: bool  # the factors, bit for bit
    norm_first: float
    norm_second: float
    norm_difference: float
    cosine: float | None


def difference(one: Adapter, two: Adapter) -> list[LayerDifference]:
    """Compare two adapters layer by layer (Frobenius norms of the change of weights). AdapterError if not alike."""
    check_alike(one, two, "the second adapter")
    rows = []
    for name in sorted(one.layers):
        first, second = change(one, name), change(two, name)
        norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
        cosine = float(np.sum(first * second)) / (norms[0] * norms[1]) if all(norms) else None
        equal = all(a.tobytes() == b.tobytes() for a, b in zip(one.layers[name], two.layers[name], strict=True))
        rows.append(LayerDifference(name, equal, *norms, float(np.linalg.norm(second - first)), cosine))
    return rows

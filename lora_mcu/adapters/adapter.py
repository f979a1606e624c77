# SPDX-License-Identifier: Apache-2.0
"""The low-rank factors of a model, independent of where they were trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import AdapterError
from lora_mcu.info import ModelInfo

Half = NDArray[np.float16]
Kernel = tuple[int, int, int]  # (kh, kw, c): the order of K in memory


@dataclass(frozen=True, eq=False)
class Adapter:
    """Factors by layer name: A float16 ``[rank, K]`` and B float16 ``[M, rank]``; W' = W + gamma B A.

    gamma is ``alpha / rank``, or ``alpha / sqrt(rank)`` with ``rslora``. K of a convolution runs (kh, kw, c);
    ``kernels`` holds these three numbers, or None for a dense layer. Raises AdapterError for shapes that contradict
    each other and for factors that are not finite.
    """

    layers: dict[str, tuple[Half, Half]]
    kernels: dict[str, Kernel | None]
    rank: int
    alpha: float
    rslora: bool
    model_sha256: str
    layout_sha256: str

    def __post_init__(self) -> None:
        for name, (a, b) in self.layers.items():
            kernel = self.kernels[name]
            if a.dtype != np.float16 or b.dtype != np.float16:
                raise AdapterError(f"layer {name}: factors are {a.dtype} and {b.dtype}; they must be float16")
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != self.rank or b.shape[1] != self.rank:
                raise AdapterError(
                    f"layer {name}: A {a.shape} and B {b.shape} are not [r, K] and [M, r] of rank {self.rank}"
                )
            if kernel is not None and a.shape[1] != int(np.prod(kernel)):
                raise AdapterError(
                    f"layer {name}: A has {a.shape[1]} columns; its kernel {kernel} makes {int(np.prod(kernel))}"
                )
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise AdapterError(f"layer {name}: a factor is not finite; train again with a smaller lr")

    def __eq__(self, other: object) -> bool:
        """Equal means the same bytes in the same layers of the same model."""
        if not isinstance(other, Adapter):
            return NotImplemented
        return self._identity() == other._identity()

    __hash__ = None  # type: ignore[assignment]

    def _identity(self) -> tuple[object, ...]:
        factors = {name: (a.shape, b.shape, a.tobytes(), b.tobytes()) for name, (a, b) in self.layers.items()}
        return factors, self.kernels, self.rank, self.alpha, self.rslora, self.model_sha256, self.layout_sha256

    @property
    def gamma(self) -> float:
        """alpha / r (arXiv 2106.09685), or alpha / sqrt(r) with rslora (arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @classmethod
    def from_factors(cls, info: ModelInfo, factors: bytes) -> Adapter:
        """Cut the runtime's array of factors (fp16 little-endian, per layer in operator order A, B) into layers."""
        if len(factors) != 2 * info.parameters:
            raise AdapterError(f"{len(factors)} bytes of factors; model {info.name} has {2 * info.parameters}")
        values = np.frombuffer(factors, "<f2").astype(np.float16)
        layers: dict[str, tuple[Half, Half]] = {}
        position = 0
        for layer in info.layers:
            middle, end = position + info.rank * layer.k, position + info.rank * (layer.k + layer.m)
            layers[layer.name] = (
                values[position:middle].reshape(info.rank, layer.k),
                values[middle:end].reshape(layer.m, info.rank),
            )
            position = end
        kernels = {layer.name: layer.kernel for layer in info.layers}
        return cls(layers, kernels, info.rank, info.alpha, info.rslora, info.model_sha256, info.layout_sha256)

    def to_factors(self, info: ModelInfo) -> bytes:
        """Return the runtime's array of factors. Raises AdapterError naming what differs when not made for ``info``."""
        self._check(info)
        parts = [factor.astype("<f2").tobytes() for layer in info.layers for factor in self.layers[layer.name]]
        return b"".join(parts)

    def _check(self, info: ModelInfo) -> None:
        if self.model_sha256 != info.model_sha256:
            raise AdapterError(
                f"the adapter belongs to another model (sha256 {self.model_sha256[:12]}); {info.name} has"
                f" {info.model_sha256[:12]}: train an adapter for this model"
            )
        for what, mine, theirs in (
            ("rank", self.rank, info.rank),
            ("alpha", self.alpha, info.alpha),
            ("rslora", self.rslora, info.rslora),
        ):
            if mine != theirs:
                raise AdapterError(
                    f"the adapter has {what} {mine}, the compiled model {theirs}: compile it with {what} {mine}"
                )
        wanted = {layer.name for layer in info.layers}
        for name in sorted(wanted ^ self.layers.keys()):
            holder, lacker = ("compiled model", "adapter") if name in wanted else ("adapter", "compiled model")
            adapt = ",".join(sorted(self.layers))
            raise AdapterError(f"the {holder} adapts layer {name}, the {lacker} does not: compile with --adapt {adapt}")
        for layer in info.layers:
            a, b = self.layers[layer.name]
            if (b.shape[0], a.shape[1], self.kernels[layer.name]) != (layer.m, layer.k, layer.kernel):
                raise AdapterError(
                    f"layer {layer.name}: the adapter is for M={b.shape[0]} K={a.shape[1]}"
                    f" kernel={self.kernels[layer.name]}, the model has M={layer.m} K={layer.k} kernel={layer.kernel}"
                )
        if self.layout_sha256 != info.layout_sha256:
            raise AdapterError(
                f"the adapter's layout {self.layout_sha256[:12]} is not the model's {info.layout_sha256[:12]}:"
                " compile with the version of lora_mcu that made the adapter, or train again"
            )

    def save(self, folder: str | Path, force: bool = False) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json`` in PEFT's layout, whole or not at all.

        Equal factors give equal bytes. An existing adapter is replaced only with ``force``; a folder that holds
        anything else is never touched. Raises AdapterError.
        """
        from lora_mcu.adapters import files

        files.save(self, Path(folder), force)

    @classmethod
    def load(cls, folder: str | Path) -> Adapter:
        """Read what :meth:`save` wrote. Raises AdapterError, in one line, for anything broken or too large."""
        from lora_mcu.adapters import files

        return files.load(Path(folder))

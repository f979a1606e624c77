# SPDX-License-Identifier: Apache-2.0
"""What a compiled model says about itself: the JSON that the firmware carries and the host tool reads."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorInfo:
    """One edge of the model. ``shape`` is a sample's shape (without a leading 1); scale is None for float32
    and int32."""

    shape: tuple[int, ...]
    dtype: str  # int8 | uint8 | float32, of an input that holds indices also int32
    scale: float | None
    zero_point: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * (4 if self.dtype in ("float32", "int32") else 1)


@dataclass(frozen=True)
class LayerInfo:
    """One adapted layer: A is [rank, k], B is [m, rank]; ``kernel`` is (kh, kw, c) of a convolution, else None."""

    name: str
    m: int
    k: int
    kernel: tuple[int, int, int] | None


@dataclass(frozen=True)
class ModelInfo:
    """Identity, edges and adapter layout of a compiled model. Factors are one fp16 array: per layer, A then B."""

    name: str
    board: str
    numerics: str
    loss: str  # cross_entropy | mse
    model_sha256: str
    layout_sha256: str
    input: TensorInfo
    output: TensorInfo
    logit_count: int
    rank: int
    alpha: float
    rslora: bool
    layers: tuple[LayerInfo, ...]
    store_capacity: int
    momentum: bool = True  # False: compiled without the buffer, only momentum 0 is there
    max_batch: int = 0  # 0: any
    label_names: tuple[str, ...] = ()
    cached: bool = False  # the store keeps features from behind the frozen prefix, not inputs
    data_bytes: int = 0  # of one stored sample without its label; 0: the input, rounded up to 4
    index_rows: int = 0  # rows of the table that the input indexes (an embedding); 0: the input holds values
    state_bytes: int = 0  # of a streaming model; 0: nothing lives from one inference to the next

    @property
    def streaming(self) -> bool:
        """The model has state: its inputs are frames, and a labelled sample is a sequence of them."""
        return self.state_bytes > 0

    @property
    def parameters(self) -> int:
        """Number of fp16 values in all factors."""
        return sum(self.rank * (layer.k + layer.m) for layer in self.layers)

    @property
    def classes(self) -> int:
        """Classes of a model trained on the cross entropy: one a logit; one logit alone decides between 0 and 1."""
        return max(2, self.logit_count)

    @property
    def label_bytes(self) -> int:
        """Bytes of one label on the wire: a u32 class index, or logit_count float32 in real units."""
        return 4 if self.loss == "cross_entropy" else 4 * self.logit_count

    @property
    def record_bytes(self) -> int:
        """Bytes of one stored sample: its data, a tag of 4 that holds a class label, a target."""
        data = self.data_bytes or (self.input.nbytes + 3) // 4 * 4
        return data + 4 + (0 if self.loss == "cross_entropy" else self.label_bytes)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Inverse of :meth:`to_json`; raises ValueError, KeyError or TypeError on anything else."""
        raw: dict[str, Any] = json.loads(text)
        for edge in ("input", "output"):
            raw[edge] = TensorInfo(**{**raw[edge], "shape": tuple(raw[edge]["shape"])})
        raw["layers"] = tuple(
            LayerInfo(**{**layer, "kernel": tuple(layer["kernel"]) if layer["kernel"] else None})
            for layer in raw["layers"]
        )
        raw["label_names"] = tuple(raw["label_names"])
        return cls(**raw)

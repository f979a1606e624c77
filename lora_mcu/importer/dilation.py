# SPDX-License-Identifier: Apache-2.0
"""SPACE_TO_BATCH_ND, a convolution, BATCH_TO_SPACE_ND: how converters write a dilated convolution (causal ones above
all). Here it becomes what it is: a pad, the convolution with its dilation, a crop. The sums are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.ir.graph import Tensor

_VIEWS = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass
class _Dilated:
    """A convolution's options with another dilation and without padding."""

    base: Any
    dilation: tuple[int, int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def DilationHFactor(self) -> int:
        return self.dilation[0]

    def DilationWFactor(self) -> int:
        return self.dilation[1]

    def Padding(self) -> int:
        return 1  # VALID


def merge_dilations(raw: RawModel) -> None:
    """Rewrite such triples in place. What does not fit the pattern stays, and is refused by its name."""
    readers: dict[int, list[RawOp]] = {}
    for op in raw.ops:
        for i in op.inputs:
            readers.setdefault(i, []).append(op)
    replaced: dict[int, list[RawOp]] = {}
    for op in raw.ops:
        if op.kind == "SPACE_TO_BATCH_ND":
            try:
                found = _chain(raw, op, readers)
                made = _rewritten(raw, *found) if found else None
            except (IndexError, ValueError, TypeError, AttributeError):
                made = None  # malformed: refused by name later
            if found and made:
                chain, conv = found
                replaced |= {id(o): [] for o in chain} | {id(conv): made}
    raw.ops = [new for op in raw.ops for new in replaced.get(id(op), [op])]


def _chain(raw: RawModel, first: RawOp, readers: dict[int, list[RawOp]]) -> tuple[list[RawOp], RawOp] | None:
    """Everything from the SPACE_TO_BATCH_ND to its BATCH_TO_SPACE_ND, and the convolution among it."""
    chain, convolutions = [first], []
    while chain[-1].kind != "BATCH_TO_SPACE_ND":
        made = chain[-1].outputs[0]
        following = readers.get(made, [])
        if len(following) != 1 or made in raw.outputs or following[0].inputs[0] != made or len(chain) > 5:
            return None
        op = following[0]
        if op.kind in _CONVOLUTIONS:
            convolutions.append(op)
        elif op.kind not in (*_VIEWS, "BATCH_TO_SPACE_ND"):
            return None
        chain.append(op)
    return (chain, convolutions[0]) if len(convolutions) == 1 else None


def _rewritten(raw: RawModel, chain: list[RawOp], conv: RawOp) -> list[RawOp] | None:
    x, y = raw.tensors[chain[0].inputs[0]], raw.tensors[chain[-1].outputs[0]]
    kernel = raw.tensors[conv.inputs[1]].shape[1:3]
    options = conv.options
    plain = options.StrideH() == options.StrideW() == options.DilationHFactor() == options.DilationWFactor() == 1
    if not plain or options.Padding() != 1 and kernel != (1, 1) or x.shape[0] != 1 or len(x.shape) not in (3, 4):
        return None
    block, pads = _two(raw, chain[0], len(x.shape), kernel)
    other, crops = _two(raw, chain[-1], len(x.shape), kernel)
    if block != other or min(block) < 1 or not x.same_quantization(raw.tensors[chain[0].outputs[0]]):
        return None
    tall = (x.shape[1], 1) if kernel[0] > kernel[1] else (1, x.shape[1])  # of a sequence
    size = x.shape[1:3] if len(x.shape) == 4 else tall
    padded = [n + a + b for n, (a, b) in zip(size, pads, strict=True)]
    reach = [n - (k - 1) * d for n, k, d in zip(padded, kernel, block, strict=True)]
    out = [n - a - b for n, (a, b) in zip(reach, crops, strict=True)]
    channels = raw.tensors[conv.outputs[0]].shape[3]
    if min(v for pair in (*pads, *crops) for v in pair) < 0 or min(out) < 1:
        return None
    if out[0] * out[1] * channels != y.elements:
        return None
    return _operators(raw, chain, conv, block, (size, pads), (padded, reach), (out, crops))


def _two(raw: RawModel, op: RawOp, rank: int, kernel: tuple[int, ...]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Block and paddings (or crops) of rows and columns; a sequence has one of them."""
    block, pads = raw.tensors[op.inputs[1]].data, raw.tensors[op.inputs[2]].data
    if block is None or pads is None or block.size != rank - 2:
        raise ValueError
    sizes, pairs = [int(b) for b in block.ravel()], [(int(a), int(b)) for a, b in pads.reshape(-1, 2)]
    if rank == 3:
        sizes, pairs = ([*sizes, 1], [*pairs, (0, 0)]) if kernel[0] > kernel[1] else ([1, *sizes], [(0, 0), *pairs])
    return (sizes[0], sizes[1]), pairs


def _operators(
    raw: RawModel, chain: list[RawOp], conv: RawOp, block: tuple[int, int],
    before: tuple[Any, list[tuple[int, int]]], middle: tuple[list[int], list[int]],
    after: tuple[list[int], list[tuple[int, int]]],
) -> list[RawOp]:  # fmt: skip
    source, target = chain[0].inputs[0], chain[-1].outputs[0]
    x, y = raw.tensors[source], raw.tensors[conv.outputs[0]]
    first, last = chain[0].index, chain[-1].index
    (size, pads), (padded, reach), (out, crops) = before, middle, after

    def tensor(like: Tensor, shape: tuple[int, ...]) -> int:
        raw.tensors.append(Tensor(like.name, shape, like.dtype, like.scale, like.zero_point, like.axis))
        return len(raw.tensors) - 1

    def ints(values: Any) -> int:
        data = np.array(values, np.int32)
        raw.tensors.append(Tensor(f"dilation_{len(raw.tensors)}", data.shape, "int32", data=data))
        return len(raw.tensors) - 1

    image, wide = tensor(x, (1, *size, x.shape[-1])), tensor(x, (1, *padded, x.shape[-1]))
    made, cut = tensor(y, (1, *reach, y.shape[3])), tensor(y, (1, *out, y.shape[3]))
    starts = [0, crops[0][0], crops[1][0], 0]
    return [
        RawOp(first, "RESHAPE", [source], [image], None),
        RawOp(first, "PAD", [image, ints([(0, 0), *pads, (0, 0)])], [wide], None),
        RawOp(conv.index, conv.kind, [wide, *conv.inputs[1:]], [made], _Dilated(conv.options, block)),
        RawOp(last, "SLICE", [made, ints(starts), ints([1, *out, y.shape[3]])], [cut], None),
        RawOp(last, "RESHAPE", [cut], [target], None),
    ]

# SPDX-License-Identifier: Apache-2.0
"""STRIDED_SLICE's begin, end, strides and masks as plain starts, steps and sizes (TensorFlow's rules)."""

from __future__ import annotations

from collections.abc import Sequence

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import constant, refuse

Index = slice | int | None


def strided_slice(
    raw: RawModel, op: RawOp, shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(start, step, size), one entry a dimension of the input. Raises ModelError for a slice of nothing."""
    starts, steps, sizes = [], [], []
    wanted = [i for i in indices(raw, op, len(shape)) if i is not None]
    for d, index in zip(shape, wanted, strict=True):
        taken = range(d)[index : index + 1 or None] if isinstance(index, int) else range(d)[index]
        if len(taken) < 1:
            raise refuse(raw, op, f"it takes nothing of {list(shape)}")
        starts.append(taken.start)
        steps.append(taken.step)
        sizes.append(len(taken))
    return tuple(starts), tuple(steps), tuple(sizes)


def indices(raw: RawModel, op: RawOp, rank: int) -> list[Index]:
    """The slice as NumPy would write it: None is a new dimension, an integer one that disappears."""
    begin, end, strides = ([int(v) for v in constant(raw, op, i).ravel()] for i in (1, 2, 3))
    o = op.options
    begin_mask, end_mask, ellipsis, new, shrink = (
        o.BeginMask(), o.EndMask(), o.EllipsisMask(), o.NewAxisMask(), o.ShrinkAxisMask(),
    )  # fmt: skip
    found: list[Index] = []
    given = sum(not (new | ellipsis) >> i & 1 for i in range(len(begin)))
    for i, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << i
        if ellipsis & bit:
            found += [slice(None)] * (rank - given)
        elif new & bit:
            found.append(None)
        elif shrink & bit:
            found.append(first)
        else:
            if step == 0 or (hasattr(o, "Offset") and o.Offset()):
                raise refuse(raw, op, "a step of 0 or an end given as an offset is not supported")
            found.append(slice(None if begin_mask & bit else first, None if end_mask & bit else last, step))
    return found + [slice(None)] * (rank - sum(f is not None for f in found))

# SPDX-License-Identifier: Apache-2.0
"""Shapes that the file leaves open, where the converter did not know the batch: worked out from the input's shape.

A file writes 1 for a dimension that it does not know, which is right for the batch itself, and wrong where a reshape
folds the batch into another one. So every shape behind such a tensor is computed again, operator by operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lora_mcu.errors import ModelError
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.slices import indices

Shape = tuple[int, ...]


def resolve(raw: RawModel, op: RawOp, resolved: set[int]) -> None:
    """Fill in the shapes of an operator's outputs where the file leaves one open or an input's was filled in.

    ``resolved`` collects the tensors whose shape did not come from the file. What cannot be worked out stays open.
    """
    is_open = any(-1 in raw.tensors[i].shape for i in op.outputs)
    if not (is_open or resolved.intersection(op.inputs)) or op.kind not in _RULES or not op.inputs:
        return
    if any(i >= 0 and -1 in raw.tensors[i].shape for i in op.inputs):
        return
    try:
        shapes = _RULES[op.kind](raw, op)
    except (IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError, ModelError):
        return  # malformed: its entry refuses it by name
    for i, shape in zip(op.outputs, shapes, strict=False):
        tensor = raw.tensors[i]
        if tensor.data is None and min(shape, default=1) >= 0 and math.prod(shape) < 1 << 28 and tensor.shape != shape:
            tensor.shape = tuple(int(d) for d in shape)
            resolved.add(i)


def _shape(raw: RawModel, op: RawOp, position: int = 0) -> Shape:
    return raw.tensors[op.inputs[position]].shape


def _ints(raw: RawModel, op: RawOp, position: int) -> list[int]:
    data = raw.tensors[op.inputs[position]].data
    if data is None:
        raise ValueError
    return [int(v) for v in data.ravel()]


def _same(raw: RawModel, op: RawOp) -> list[Shape]:
    return [_shape(raw, op)]


def _broadcast(raw: RawModel, op: RawOp) -> list[Shape]:
    return [np.broadcast_shapes(*(raw.tensors[i].shape for i in op.inputs))]


def _reshape(raw: RawModel, op: RawOp) -> list[Shape]:
    sizes = _ints(raw, op, 1)
    rest, count = math.prod(d for d in sizes if d != -1), math.prod(_shape(raw, op))
    if sizes.count(-1) > 1 or rest < 1 or count % rest:
        raise ValueError
    return [tuple(count // rest if d == -1 else d for d in sizes)]


def _squeeze(raw: RawModel, op: RawOp) -> list[Shape]:
    shape = _shape(raw, op)
    wanted = op.options.SqueezeDimsAsNumpy() if op.options else 0
    axes = {int(a) % len(shape) for a in wanted} if not isinstance(wanted, int) else set()
    return [tuple(d for i, d in enumerate(shape) if not (i in axes or not axes and d == 1))]


def _expand(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, axis = list(_shape(raw, op)), _ints(raw, op, 1)[0]
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 1)
    return [tuple(shape)]


def _dense(raw: RawModel, op: RawOp) -> list[Shape]:
    x, (m, k) = _shape(raw, op), _shape(raw, op, 1)
    if math.prod(x) % k:
        raise ValueError
    keeps = bool(op.options and op.options.KeepNumDims())
    return [(*(x[:-1] if keeps else (math.prod(x) // k,)), m)]


def _batch_of_image(raw: RawModel, op: RawOp) -> list[Shape]:
    """Height, width and channels do not depend on the batch, so the file has them."""
    position = 2 if op.kind == "TRANSPOSE_CONV" else 0
    return [(_shape(raw, op, position)[0], *raw.tensors[op.outputs[0]].shape[1:])]


def _joined(raw: RawModel, op: RawOp) -> list[Shape]:
    shapes = [raw.tensors[i].shape for i in op.inputs]
    axis = op.options.Axis() % len(shapes[0])
    return [(*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])]


def _packed(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, axis = list(_shape(raw, op)), op.options.Axis()
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, len(op.inputs))
    return [tuple(shape)]


def _unpacked(raw: RawModel, op: RawOp) -> list[Shape]:
    shape = _shape(raw, op)
    axis = op.options.Axis() % len(shape)
    return [shape[:axis] + shape[axis + 1 :]] * len(op.outputs)


def _split(raw: RawModel, op: RawOp) -> list[Shape]:
    x, at = (1, 0) if op.kind == "SPLIT" else (0, 2)
    shape, count = _shape(raw, op, x), len(op.outputs)
    axis = _ints(raw, op, at)[0] % len(shape)
    sizes = [shape[axis] // count] * count if op.kind == "SPLIT" else _ints(raw, op, 1)
    rest = shape[axis] - sum(s for s in sizes if s >= 0)
    return [(*shape[:axis], s if s >= 0 else rest, *shape[axis + 1 :]) for s in sizes]


def _slice(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, start, size = _shape(raw, op), _ints(raw, op, 1), _ints(raw, op, 2)
    return [tuple(d - a if s == -1 else s for d, a, s in zip(shape, start, size, strict=True))]


def _strided_slice(raw: RawModel, op: RawOp) -> list[Shape]:
    shape = _shape(raw, op)
    return [np.broadcast_to(np.int8(0), shape)[tuple(indices(raw, op, len(shape)))].shape]


def _transpose(raw: RawModel, op: RawOp) -> list[Shape]:
    shape = _shape(raw, op)
    return [tuple(shape[p] for p in _ints(raw, op, 1))]


def _gather(raw: RawModel, op: RawOp) -> list[Shape]:
    x, index = _shape(raw, op), _shape(raw, op, 1)
    if op.options and op.options.BatchDims():
        raise ValueError
    axis = op.options.Axis() % len(x) if op.options else 0
    return [(*x[:axis], *index, *x[axis + 1 :])]


def _reduced(raw: RawModel, op: RawOp) -> list[Shape]:
    shape = _shape(raw, op)
    axes = {a % len(shape) for a in _ints(raw, op, 1)}
    keeps = bool(op.options and op.options.KeepDims())
    return [tuple(1 if i in axes else d for i, d in enumerate(shape) if keeps or i not in axes)]


def _matmul(raw: RawModel, op: RawOp) -> list[Shape]:
    a, b = _shape(raw, op), _shape(raw, op, 1)
    rows = a[-1] if op.options and op.options.AdjX() else a[-2]
    columns = b[-2] if op.options and op.options.AdjY() else b[-1]
    return [(*np.broadcast_shapes(a[:-2], b[:-2]), rows, columns)]


def _padded(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, pads = _shape(raw, op), _ints(raw, op, 1)
    return [tuple(d + pads[2 * i] + pads[2 * i + 1] for i, d in enumerate(shape))]


def _tiled(raw: RawModel, op: RawOp) -> list[Shape]:
    return [tuple(d * n for d, n in zip(_shape(raw, op), _ints(raw, op, 1), strict=True))]


def _space_to_batch(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, block, pads = list(_shape(raw, op)), _ints(raw, op, 1), _ints(raw, op, 2)
    for i, b in enumerate(block):
        shape[i + 1] = (shape[i + 1] + pads[2 * i] + pads[2 * i + 1]) // b
    return [(shape[0] * math.prod(block), *shape[1:])]


def _batch_to_space(raw: RawModel, op: RawOp) -> list[Shape]:
    shape, block, crops = list(_shape(raw, op)), _ints(raw, op, 1), _ints(raw, op, 2)
    for i, b in enumerate(block):
        shape[i + 1] = shape[i + 1] * b - crops[2 * i] - crops[2 * i + 1]
    return [(shape[0] // math.prod(block), *shape[1:])]


_Rule = Callable[[RawModel, RawOp], list[Shape]]
_SAME = (
    "ABS", "CAST", "CEIL", "COS", "DEQUANTIZE", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "L2_NORMALIZATION",
    "LEAKY_RELU", "LOG", "LOGISTIC", "LOG_SOFTMAX", "NEG", "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1",
    "REVERSE_V2", "ROUND", "RSQRT", "SIGN", "SIN", "SOFTMAX", "SQRT", "SQUARE", "TANH", "ZEROS_LIKE",
)  # fmt: skip
_PAIRS = (
    "ADD", "DIV", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "MAXIMUM",
    "MINIMUM", "MUL", "NOT_EQUAL", "POW", "PRELU", "SELECT", "SELECT_V2", "SQUARED_DIFFERENCE", "SUB",
)  # fmt: skip
_IMAGES = (
    "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "MAX_POOL_2D", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "TRANSPOSE_CONV",
)  # fmt: skip
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_PAIRS, _broadcast),
    **dict.fromkeys(_IMAGES, _batch_of_image),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduced),
    **dict.fromkeys(("PAD", "PADV2"), _padded),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand,
    "FULLY_CONNECTED": _dense,
    "CONCATENATION": _joined,
    "PACK": _packed,
    "UNPACK": _unpacked,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "GATHER": _gather,
    "BATCH_MATMUL": _matmul,
    "TILE": _tiled,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "BATCH_TO_SPACE_ND": _batch_to_space,
}

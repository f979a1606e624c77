# SPDX-License-Identifier: Apache-2.0
"""Constant folding: operators that compute only shapes or move only constants are computed here and disappear.

Integers and booleans are computed as TensorFlow does; int8 constants are moved (reshaped, gathered, joined) but never
computed with. What cannot be folded stays, and is judged like any other operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ModelError
from lora_mcu.importer.dynamic import resolve
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.slices import indices
from lora_mcu.ir.graph import Tensor

Array = NDArray[Any]
MAX_ELEMENTS = 1 << 22  # of one result, and of its operands
MAX_TOTAL = 1 << 24  # of all results

_DTYPES = {
    "int8": np.int8, "uint8": np.uint8, "int32": np.int32, "int64": np.int64, "float32": np.float32, "bool": np.bool_,
}  # fmt: skip


def fold(raw: RawModel) -> None:
    """Fold in place: outputs of folded operators get their data, the operators leave ``raw.ops``."""
    kept, left = [], MAX_TOTAL
    resolved: set[int] = set()
    for op in raw.ops:
        resolve(raw, op, resolved)
        shapes = [raw.tensors[i].shape for i in op.outputs]
        if left > 0 and _folded(raw, op):
            left -= sum(raw.tensors[i].elements for i in op.outputs)
            resolved.update(i for i, s in zip(op.outputs, shapes, strict=True) if raw.tensors[i].shape != s)
        else:
            kept.append(op)
    raw.ops = kept


def _folded(raw: RawModel, op: RawOp) -> bool:
    if any((data := raw.tensors[i].data) is not None and data.size for i in op.outputs):
        return False
    try:
        if op.kind in _SHAPES:
            shape = raw.tensors[op.inputs[0]].shape
            return -1 not in shape and _store(raw, op, [_SHAPES[op.kind](shape)])
        if op.kind not in _FOLDERS and op.kind not in _INTEGERS:
            return False
        values = [raw.tensors[i].data for i in op.inputs if i >= 0]
        constants = [v for v in values if v is not None]
        if not values or len(constants) != len(values) or sum(v.size for v in constants) > MAX_ELEMENTS:
            return False
        if op.kind in _INTEGERS:
            exact = all(v.dtype.kind in "bi" and v.dtype != np.int8 for v in constants)
            _limited(np.broadcast_shapes(*(v.shape for v in constants)))
            with np.errstate(all="raise"):
                return exact and _store(raw, op, [_INTEGERS[op.kind](*constants)])
        return _store(raw, op, _FOLDERS[op.kind](raw, op, constants))
    except (IndexError, ValueError, TypeError, AttributeError, ArithmeticError, ModelError):
        return False  # malformed: its entry refuses it by name


def _store(raw: RawModel, op: RawOp, results: list[Array]) -> bool:
    """Give the outputs their data where it fits what the file says of them."""
    ready: list[tuple[Tensor, Array]] = []
    for i, value in zip(op.outputs, results, strict=True):
        tensor = raw.tensors[i]
        if tensor.dtype not in _DTYPES or np.size(value) < 1 and tensor.dtype not in ("int32", "int64"):
            return False
        known = -1 not in tensor.shape and math.prod(tensor.shape) == np.size(value)
        computed = tensor.dtype in ("int32", "int64")  # the file's shape may be a guess: see dynamic.py
        if not known and -1 not in tensor.shape and not computed:
            return False
        shape = tensor.shape if known else np.shape(value)
        ready.append((tensor, np.asarray(value).astype(_DTYPES[tensor.dtype]).reshape(shape)))
    for tensor, value in ready:
        tensor.data, tensor.shape = value, value.shape
    return True


def _limited(shape: Array | tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(int(d) for d in np.ravel(shape))
    if min(sizes, default=1) < 1 or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError
    return sizes


def _strided(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    return [values[0][tuple(indices(raw, op, values[0].ndim))]]


def _range(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    start, limit, delta = (v.item() for v in values)
    if delta == 0 or (limit - start) / delta > MAX_ELEMENTS:
        raise ValueError
    return [np.arange(start, limit, delta)]


def _slice(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    x, start, size = values
    ends = [d if s == -1 else a + s for d, a, s in zip(x.shape, start.ravel(), size.ravel(), strict=True)]
    return [x[tuple(slice(int(a), int(e)) for a, e in zip(start.ravel(), ends, strict=True))]]


def _split(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    x, axis = (values[1], values[0]) if op.kind == "SPLIT" else (values[0], values[2])
    at = int(axis.ravel()[0])
    ends = np.cumsum([raw.tensors[i].shape[at] for i in op.outputs])
    if ends[-1] != x.shape[at]:
        raise ValueError
    return np.split(x, ends[:-1], axis=at)


def _gather(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    x, index = values
    axis = op.options.Axis() if op.options else 0
    if op.options and op.options.BatchDims() != 0 or index.min() < 0:
        raise ValueError
    _limited((index.size, x.size // x.shape[axis]))
    return [np.take(x, index, axis=axis)]


def _prod(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    x, axes = values
    if x.dtype.kind != "i" or x.dtype == np.int8:
        raise ValueError
    ufunc = {"REDUCE_PROD": np.multiply, "SUM": np.add, "REDUCE_MAX": np.maximum, "REDUCE_MIN": np.minimum}[op.kind]
    return [np.asarray(ufunc.reduce(x, axis=tuple(int(a) for a in axes.ravel()), keepdims=op.options.KeepDims()))]


def _cast(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    if raw.tensors[op.inputs[0]].quantized or raw.tensors[op.outputs[0]].quantized:
        raise ValueError
    return values[:1]  # to the output's dtype when it is stored


def _reshape(raw: RawModel, op: RawOp, values: list[Array]) -> list[Array]:
    shape = raw.tensors[op.outputs[0]].shape
    fits = -1 not in shape and math.prod(shape) == values[0].size
    return [values[0].reshape(shape if fits else values[1].ravel())]


_SHAPES: dict[str, Callable[[tuple[int, ...]], Array]] = {
    "SHAPE": lambda shape: np.array(shape, np.int64),
    "RANK": lambda shape: np.array(len(shape), np.int64),
}
_INTEGERS: dict[str, Callable[..., Array]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "FLOOR_DIV": np.floor_divide, "FLOOR_MOD": np.mod,
    "DIV": lambda a, b: np.trunc(a / b), "MAXIMUM": np.maximum, "MINIMUM": np.minimum, "NEG": np.negative,
    "ABS": np.abs, "EQUAL": np.equal, "NOT_EQUAL": np.not_equal, "LESS": np.less, "LESS_EQUAL": np.less_equal,
    "GREATER": np.greater, "GREATER_EQUAL": np.greater_equal, "LOGICAL_AND": np.logical_and,
    "LOGICAL_OR": np.logical_or, "LOGICAL_NOT": np.logical_not, "SELECT": np.where, "SELECT_V2": np.where,
    "BROADCAST_ARGS": lambda a, b: np.array(np.broadcast_shapes(tuple(a), tuple(b))),
}  # fmt: skip
_FOLDERS: dict[str, Callable[[RawModel, RawOp, list[Array]], list[Array]]] = {
    "STRIDED_SLICE": _strided,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "GATHER": _gather,
    "RANGE": _range,
    "CAST": _cast,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "REDUCE_PROD": _prod,
    "REDUCE_MAX": _prod,
    "REDUCE_MIN": _prod,
    "SUM": _prod,
    "PACK": lambda raw, op, values: [np.stack(values, axis=op.options.Axis())],
    "UNPACK": lambda raw, op, values: list(np.moveaxis(values[0], op.options.Axis(), 0)),
    "CONCATENATION": lambda raw, op, values: [np.concatenate(values, axis=op.options.Axis())],
    "TRANSPOSE": lambda raw, op, values: [np.transpose(values[0], tuple(int(p) for p in values[1].ravel()))],
    "FILL": lambda raw, op, values: [np.full(_limited(values[0]), values[1].ravel()[0])],
    "BROADCAST_TO": lambda raw, op, values: [np.broadcast_to(values[0], _limited(values[1]))],
    "TILE": lambda raw, op, values: [np.tile(values[0], _limited(values[1] * np.array(values[0].shape)) and values[1])],
}  # fmt: skip

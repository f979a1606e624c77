# SPDX-License-Identifier: Apache-2.0
"""The only place that knows flatbuffers: a .tflite file becomes plain Python records, with every index checked."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import tflite

from lora_mcu.errors import ModelError
from lora_mcu.ir.graph import Tensor

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ELEMENTS = 1 << 28
MAX_DIMENSIONS = 8


@dataclass
class RawOp:
    """One operator of the file: ``options`` is the union table as flatbuffers holds it, or None."""

    index: int
    kind: str
    inputs: list[int]  # -1: absent
    outputs: list[int]
    options: Any


@dataclass
class RawModel:
    sha256: str
    tensors: list[Tensor]
    ops: list[RawOp]
    inputs: list[int]
    outputs: list[int]
    states: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)  # initial values by tensor
    sparse: set[int] = field(default_factory=set)  # tensors whose data is not stored row by row


@cache
def _names(enum: type) -> dict[int, str]:
    return {v: k for k, v in vars(enum).items() if isinstance(v, int)}


def read(content: bytes, subgraph: int = 0) -> RawModel:
    """Parse a .tflite file: its main graph, or another one.

    Raises ModelError, or whatever flatbuffers, struct and NumPy raise on broken offsets.
    """
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise ModelError("this is not a .tflite file (no TFL3 identifier); give the converter's output")
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"the file has {len(content)} bytes; at most {MAX_FILE_BYTES} are read")
    model = tflite.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() < 1:
        raise ModelError("the .tflite file holds no graph")
    if not 0 <= subgraph < model.SubgraphsLength():
        raise ModelError(f"an operator refers to subgraph {subgraph} of {model.SubgraphsLength()}; the file is damaged")
    graph = model.Subgraphs(subgraph)
    tensors = [_tensor(content, model, graph.Tensors(i), i) for i in range(graph.TensorsLength())]
    ops = [_operator(model, graph.Operators(i), i, len(tensors)) for i in range(graph.OperatorsLength())]
    inputs = [_index(i, len(tensors), "model input") for i in _ints(graph.InputsAsNumpy())]
    outputs = [_index(i, len(tensors), "model output") for i in _ints(graph.OutputsAsNumpy())]
    sparse = {i for i in range(len(tensors)) if graph.Tensors(i).Sparsity() is not None}
    digest = hashlib.sha256(content).hexdigest()
    return RawModel(digest, tensors, ops, inputs, outputs, sparse=sparse)


def _ints(array: Any) -> list[int]:
    return [] if isinstance(array, int) else [int(v) for v in array]  # flatbuffers gives 0 for an absent vector


def text(raw: bytes, most: int) -> str:
    """A name as it may be printed: no control characters, at most so many others."""
    return "".join(c if c.isprintable() else "?" for c in raw.decode("utf-8", "replace")[:most])


def _index(i: int, count: int, what: str) -> int:
    if not 0 <= i < count:
        raise ModelError(f"{what} refers to tensor {i} of {count}; the file is damaged")
    return i


def _operator(model: Any, op: Any, index: int, tensors: int) -> RawOp:
    if not 0 <= op.OpcodeIndex() < model.OperatorCodesLength():
        raise ModelError(f"operator {index} has no operator code; the file is damaged")
    code = model.OperatorCodes(op.OpcodeIndex())
    number = _builtin_code(code)
    kind = _names(tflite.BuiltinOperator).get(number, f"operator code {number}")
    if kind == "CUSTOM":
        kind = f"CUSTOM {text(code.CustomCode() or b'?', 100)}"
    inputs = [-1 if i == -1 else _index(i, tensors, f"operator {index}") for i in _ints(op.InputsAsNumpy())]
    outputs = [_index(i, tensors, f"operator {index}") for i in _ints(op.OutputsAsNumpy())]
    return RawOp(index, kind, inputs, outputs, _options(op))


def _builtin_code(code: Any) -> int:
    """The larger of the new and the deprecated field, as the oracle reads them; some files fill only the new one."""
    table = code._tab
    at = table.Offset(10)  # builtin_code; the package's own accessor hides values below 127
    new = struct.unpack_from("<i", table.Bytes, table.Pos + at)[0] if at else 0
    return max(new, int(code.DeprecatedBuiltinCode()))


def _options(op: Any) -> Any:
    """The options table in its own class, or None."""
    name = _names(tflite.BuiltinOptions).get(op.BuiltinOptionsType())
    table = op.BuiltinOptions()
    if not name or name == "NONE" or table is None:
        return None
    options = getattr(tflite, name)()
    options.Init(table.Bytes, table.Pos)
    return options


def _tensor(content: bytes, model: Any, raw: Any, index: int) -> Tensor:
    name = text(raw.Name() or b"", 800) or f"tensor_{index}"
    dtype = _names(tflite.TensorType).get(raw.Type(), "?").lower()
    shape = tuple(_ints(raw.ShapeAsNumpy()))
    signature = _ints(raw.ShapeSignatureAsNumpy())
    empty = dtype in ("int32", "int64") and 0 in shape and min(shape) == 0  # a scalar's shape, an empty part of one
    if len(shape) > MAX_DIMENSIONS:
        raise ModelError(f"tensor {index} {name!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are read")
    if any(d < 0 for d in signature[1:]) or any(d < 1 for d in shape) and not empty:
        # a dimension of 0 or less in `shape` is allowed only for tensors that nothing live uses
        shape = tuple(-1 if d < 1 or s < 0 else d for d, s in zip(shape, (signature or shape), strict=False))
    elements = 1
    for d in shape:
        elements *= max(d, 1)
        if elements > MAX_ELEMENTS:
            raise ModelError(f"tensor {index} {name!r} has shape {list(shape)}: more than {MAX_ELEMENTS} elements")
    tensor = Tensor(name, shape, dtype)
    _quantization(raw.Quantization(), tensor, index)
    tensor.data = _constant(content, model, raw, tensor, index)
    return tensor


def _quantization(raw: Any, tensor: Tensor, index: int) -> None:
    if raw is None or raw.ScaleLength() == 0:
        return
    tensor.scale = np.array(raw.ScaleAsNumpy(), np.float32)
    zero_points = _ints(raw.ZeroPointAsNumpy())
    tensor.zero_point = np.array(zero_points or [0] * len(tensor.scale), np.int64)
    tensor.axis = raw.QuantizedDimension()
    where = f"tensor {index} {tensor.name!r}"
    if tensor.dtype == "int32":  # a bias: its scale follows from input and weights
        return
    if not np.isfinite(tensor.scale).all() or (tensor.scale <= 0).any():
        raise ModelError(f"{where} has a scale that is not a positive number; convert the model again")
    if len(tensor.zero_point) != len(tensor.scale):
        raise ModelError(f"{where} has {len(tensor.scale)} scales and {len(tensor.zero_point)} zero points")
    low, high = (0, 255) if tensor.dtype == "uint8" else (-128, 127)
    if tensor.dtype in ("int8", "uint8") and ((tensor.zero_point < low) | (tensor.zero_point > high)).any():
        raise ModelError(f"{where} has a zero point outside {low}..{high}; convert the model again")
    if len(tensor.scale) > 1:
        fits = 0 <= tensor.axis < len(tensor.shape) and tensor.shape[tensor.axis] == len(tensor.scale)
        if not fits:
            raise ModelError(
                f"{where} has {len(tensor.scale)} scales along dimension {tensor.axis} of {list(tensor.shape)}"
            )


_NUMPY = {"int8": np.int8, "uint8": np.uint8, "int32": np.int32, "int64": np.int64, "float32": np.float32}


def _constant(content: bytes, model: Any, raw: Any, tensor: Tensor, index: int) -> np.ndarray[Any, Any] | None:
    if not 0 <= raw.Buffer() < model.BuffersLength():
        raise ModelError(f"tensor {index} {tensor.name!r} refers to buffer {raw.Buffer()}; the file is damaged")
    buffer = model.Buffers(raw.Buffer())
    payload: Any = buffer.DataAsNumpy() if buffer.DataLength() else None
    if payload is None and buffer.Offset() > 1:  # stored behind the flatbuffer (files over 2 GB, newer converters)
        start, size = buffer.Offset(), buffer.Size()
        if start + size > len(content):
            raise ModelError(f"tensor {index} {tensor.name!r} lies beyond the end of the file; it is truncated")
        payload = np.frombuffer(content, np.uint8, size, start)
    if tensor.dtype in _NUMPY and 0 in tensor.shape:
        return np.zeros(tensor.shape, _NUMPY[tensor.dtype])
    if payload is None or tensor.dtype not in _NUMPY or raw.Sparsity() is not None:
        return None
    if -1 in tensor.shape or len(payload) != tensor.nbytes:
        raise ModelError(f"tensor {index} {tensor.name!r} of shape {list(tensor.shape)} holds {len(payload)} bytes")
    return np.frombuffer(bytes(payload), _NUMPY[tensor.dtype]).reshape(tensor.shape)

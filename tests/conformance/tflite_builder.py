# SPDX-License-Identifier: Apache-2.0
"""Writes small .tflite files directly, with any shapes, scales and zero points: also what no converter makes."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "int8": "INT8", "uint8": "UINT8", "int32": "INT32", "float32": "FLOAT32", "int16": "INT16", "int4": "INT4",
    "float16": "FLOAT16", "resource": "RESOURCE", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip
_VERSION_5 = ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D")
_VERSION_1 = ("RELU_N1_TO_1", "ELU", "HARD_SWISH", "POW", "DIV", "SQUARE", "SIN", "COS", "PRELU", "NEG", "RESHAPE",
              "DEPTH_TO_SPACE", "RANGE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE",
              "LESS", "SELECT", "CAST", "EXPAND_DIMS")  # fmt: skip
RELU = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
SAME, VALID = 0, 1


class Builder:
    """Collects tensors and operators of a subgraph, the main one at first; ``build`` gives the file's bytes."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.operatorCodes = []
        self._model.buffers = [schema.BufferT()]
        self._model.subgraphs = []
        self.subgraph()

    def subgraph(self) -> int:
        """Begin another subgraph, where tensors and operators go from now on; returns its index."""
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model.subgraphs.append(self._graph)
        return len(self._model.subgraphs) - 1

    def variable(self, name: str, container: str = "") -> int:
        """A new handle of the variable that (container, name) stands for."""
        handle = self.tensor((), "resource")
        self.op("VAR_HANDLE", [], [handle], "VarHandleOptions", container=container, sharedName=name)
        return handle

    def tensor(
        self, shape: tuple[int, ...], dtype: str = "int8", scale: Any = None, zero_point: Any = 0, axis: int = 0,
        data: Any = None,
    ) -> int:  # fmt: skip
        """Add a tensor; ``scale`` is one number or one for each index of dimension ``axis``; returns its id."""
        t = schema.TensorT()
        t.shape = list(shape)
        t.type = getattr(schema.TensorType, _TYPES[dtype])
        t.name = f"t{len(self._graph.tensors)}".encode()
        t.buffer = 0
        if scale is not None:
            q = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            q.scale = scales.tolist()
            q.zeroPoint = np.broadcast_to(np.asarray(zero_point), scales.shape).astype(int).tolist()
            q.quantizedDimension = axis
            t.quantization = q
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(np.asarray(data, dtype)).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            t.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(t)
        return len(self._graph.tensors) - 1

    def like(self, tensor: int, shape: tuple[int, ...]) -> int:
        """A tensor of another shape with the quantization of ``tensor``."""
        t = self._graph.tensors[tensor]
        return self.tensor(shape, "int8", t.quantization.scale, t.quantization.zeroPoint)

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: str = "", **fields: Any) -> None:
        """Add an operator; ``options`` is the name of its table (``Conv2DOptions``), ``fields`` what it holds."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 5 if kind in _VERSION_5 else 1 if kind in _VERSION_1 else 2
        self._model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self._model.operatorCodes) - 1
        op.inputs, op.outputs = inputs, outputs
        if options:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            op.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(op.builtinOptions, name), f"{options} has no field {name}"
                setattr(op.builtinOptions, name, value)
        self._graph.operators.append(op)

    def build(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The .tflite file."""
        main = self._model.subgraphs[0]
        main.inputs, main.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def dense_model(**changes: Any) -> bytes:
    """x [1, 4] -> dense [1, 3]; ``changes`` replace arguments of a tensor (x, w, b, y) or the file's ends."""
    b = Builder()
    arguments: dict[str, dict[str, Any]] = {
        "x": {"shape": (1, 4), "scale": 0.5},
        "w": {"shape": (3, 4), "scale": 0.1, "data": np.ones((3, 4), np.int8)},
        "b": {"shape": (3,), "dtype": "int32", "scale": 0.05, "data": np.zeros(3, np.int32)},
        "y": {"shape": (1, 3), "scale": 0.2},
    }
    for name, change in changes.items():
        if name in arguments:
            arguments[name] |= change
    x, w, bias, y = (b.tensor(**arguments[name]) for name in "xwby")
    b.op("FULLY_CONNECTED", changes.get("inputs", [x, w, bias]), [y], "FullyConnectedOptions")
    return b.build(changes.get("model_inputs", [x]), changes.get("model_outputs", [y]))

# SPDX-License-Identifier: Apache-2.0
"""Writing .tflite files: a model with other constants, or one that ends earlier. Needs the `oracle` extra."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ToolError


@dataclass(frozen=True)
class Constant:
    """New values of an operator's constant input: same shape; ``scale`` float32 [1] or [M] along dimension 0."""

    data: NDArray[np.int8] | NDArray[np.int32]
    scale: NDArray[np.float32]


def replace_constants(content: bytes, edits: dict[tuple[int, int], Constant]) -> bytes:
    """Return the file with new constants by (operator index, input position); zero points become 0.

    Nothing else changes: a tensor or buffer that others use too is copied first. Equal arguments give equal bytes.
    ``content`` is a file that :func:`lora_mcu.importer.loads` accepts. Raises ToolError without the extra.
    """
    schema, model = _unpack(content)
    graph = model.subgraphs[0]
    for (index, position), new in edits.items():
        op = graph.operators[index]
        tensor = _own_tensor(model, op, position)
        buffer = _own_buffer(schema, model, tensor)
        buffer.data = np.frombuffer(np.ascontiguousarray(new.data).astype(new.data.dtype.newbyteorder("<")), np.uint8)
        quantization = schema.QuantizationParametersT()
        quantization.scale = np.asarray(new.scale, np.float32)
        quantization.zeroPoint = np.zeros(len(new.scale), np.int64)
        quantization.quantizedDimension = 0
        tensor.quantization = quantization
    return _pack(model)


def end_at(content: bytes, tensor: int) -> bytes:
    """Return the file with ``tensor`` as its one output; what lies behind it stays and is not used."""
    _, model = _unpack(content)
    model.subgraphs[0].outputs = [tensor]
    model.signatureDefs = None
    return _pack(model)


def _unpack(content: bytes) -> tuple[Any, Any]:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise ToolError("writing a .tflite file needs LiteRT: pip install 'lora-mcu[oracle]'") from None
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # stored behind the flatbuffer: taken in
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return schema, model


def _pack(model: Any) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _own_tensor(model: Any, op: Any, position: int) -> Any:
    """The tensor at an input, a copy of it where another input names it too."""
    graph, index = model.subgraphs[0], int(op.inputs[position])
    uses = sum(int(np.count_nonzero(np.asarray(other.inputs) == index)) for other in graph.operators)
    if uses > 1:
        graph.tensors.append(copy.copy(graph.tensors[index]))
        index = len(graph.tensors) - 1
        op.inputs = [index if at == position else int(i) for at, i in enumerate(op.inputs)]
    return graph.tensors[index]


def _own_buffer(schema: Any, model: Any, tensor: Any) -> Any:
    """The tensor's buffer, a new one where another tensor or the metadata has it too."""
    uses = sum(t.buffer == tensor.buffer for graph in model.subgraphs for t in graph.tensors)
    uses += sum(m.buffer == tensor.buffer for m in model.metadata or ())
    if uses > 1:
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    return model.buffers[tensor.buffer]

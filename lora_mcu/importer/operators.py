# SPDX-License-Identifier: Apache-2.0
"""One entry an operator: from the file's record to the IR's dataclass."""

from __future__ import annotations

from dataclasses import replace

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import activation, constant, entry, refuse, window
from lora_mcu.ir.attention import ActivationDense
from lora_mcu.ir.graph import Tensor
from lora_mcu.ir.ops import (
    AveragePool,
    Conv2D,
    Dense,
    Depthwise,
    Dequantize,
    MaxPool,
    Op,
    Pad,
    Quantize,
    Requantize,
    Reshape,
    Softmax,
)


def _weighted(op: RawOp) -> list[int]:
    """[x, weights] or [x, weights, bias]; a bias may be marked absent."""
    if len(op.inputs) not in (2, 3) or min(op.inputs[:2]) < 0:
        raise ValueError
    return [i for i in op.inputs if i >= 0]


@entry("CONV_2D")
def _conv(raw: RawModel, op: RawOp) -> Op:
    ids = _weighted(op)
    x, w = raw.tensors[ids[0]].shape, raw.tensors[ids[1]]
    dilation = (op.options.DilationHFactor(), op.options.DilationWFactor())
    win = window(raw, op, (w.shape[1], w.shape[2]), dilation)
    by_output = len(w.scale) == 1 or w.axis == 0
    if w.data is not None and by_output and w.shape[3] == 1 < x[3] and w.shape[0] % x[3] == 0:
        raw.tensors.append(replace(w, shape=(1, *w.shape[1:3], w.shape[0]), axis=3, data=w.data.transpose(3, 1, 2, 0)))
        ids[1] = len(raw.tensors) - 1  # a group a channel: what converters make of depthwise layers of other frameworks
        return Depthwise(op.index, ids, op.outputs, activation(raw, op), win, w.shape[0] // x[3])
    return Conv2D(op.index, ids, op.outputs, activation(raw, op), win)


@entry("DEPTHWISE_CONV_2D")
def _depthwise(raw: RawModel, op: RawOp) -> Op:
    x, w = raw.tensors[op.inputs[0]].shape, raw.tensors[op.inputs[1]].shape
    dilation = (op.options.DilationHFactor(), op.options.DilationWFactor())
    win = window(raw, op, (w[1], w[2]), dilation)
    # the options' depth_multiplier is redundant and sometimes wrong: the shapes decide, as in the oracle
    return Depthwise(op.index, _weighted(op), op.outputs, activation(raw, op), win, w[3] // x[3])


@entry("FULLY_CONNECTED")
def _dense(raw: RawModel, op: RawOp) -> Op:
    if op.options and op.options.WeightsFormat() != 0:
        raise refuse(raw, op, "shuffled weights are not supported; convert again with the default weights format")
    if raw.tensors[op.inputs[1]].data is None:
        return ActivationDense(op.index, _weighted(op), op.outputs, activation=activation(raw, op))
    return Dense(op.index, _weighted(op), op.outputs, activation(raw, op))


@entry("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(raw: RawModel, op: RawOp) -> Op:
    win = window(raw, op, (op.options.FilterHeight(), op.options.FilterWidth()))
    kind = AveragePool if op.kind == "AVERAGE_POOL_2D" else MaxPool
    return kind(op.index, op.inputs[:1], op.outputs, activation(raw, op), win)


@entry("PAD", "PADV2")
def _pad(raw: RawModel, op: RawOp) -> Op:
    table = constant(raw, op, 1)
    if table.ndim != 2 or table.shape[1] != 2:
        raise refuse(raw, op, f"its padding table has shape {list(table.shape)}; [dimensions, 2] is needed")
    x = raw.tensors[op.inputs[0]]
    value = int(constant(raw, op, 2).ravel()[0]) if op.kind == "PADV2" else (x.z if x.quantized else 0)
    return Pad(op.index, op.inputs[:1], op.outputs, tuple(map(int, table[:, 0])), tuple(map(int, table[:, 1])), value)


@entry("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(raw: RawModel, op: RawOp) -> Op:
    return Reshape(op.index, op.inputs[:1], op.outputs)


@entry("SOFTMAX")
def _softmax(raw: RawModel, op: RawOp) -> Op:
    return Softmax(op.index, op.inputs[:1], op.outputs, float(op.options.Beta()))


@entry("QUANTIZE")
def _quantize(raw: RawModel, op: RawOp) -> Op:
    x: Tensor = raw.tensors[op.inputs[0]]
    return (Quantize if x.dtype == "float32" else Requantize)(op.index, op.inputs[:1], op.outputs)


@entry("DEQUANTIZE")
def _dequantize(raw: RawModel, op: RawOp) -> Op:
    return Dequantize(op.index, op.inputs[:1], op.outputs)

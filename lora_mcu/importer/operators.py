# SPDX-License-Identifier: Apache-2.0
"""One entry an operator: from the file's record to the IR's dataclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_mcu.errors import ModelError
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.ir.graph import Tensor
from lora_mcu.ir.ops import (
    Activation,
    Add,
    AveragePool,
    Conv2D,
    Dense,
    Depthwise,
    Dequantize,
    MaxPool,
    Mean,
    Op,
    Pad,
    Quantize,
    Requantize,
    Reshape,
    Softmax,
    Window,
)

Entry = Callable[[RawModel, RawOp], Op]
ENTRIES: dict[str, Entry] = {}

# operators whose inputs from this position on only say the output's shape
SHAPE_INPUTS = {"RESHAPE": 1, "SQUEEZE": 1, "EXPAND_DIMS": 1}

_ACTIVATIONS = [Activation.NONE, Activation.RELU, Activation.RELU_N1_TO_1, Activation.RELU6]


def convert(raw: RawModel, op: RawOp) -> Op:
    """The IR operator, or a ModelError that names operator and tensors."""
    try:
        return ENTRIES[op.kind](raw, op)
    except (IndexError, AttributeError, TypeError, ValueError) as error:
        raise _refuse(raw, op, "an input or its options are missing or malformed") from error


def check_kinds(raw: RawModel, live: list[RawOp]) -> None:
    """Raise ModelError for a float model, else naming the first operator that has no entry, and the other kinds."""
    for op in live:
        if op.kind in ENTRIES:
            _refuse_float(raw, op)
    unknown = [op for op in live if op.kind not in ENTRIES]
    if unknown:
        others = sorted({op.kind for op in unknown} - {unknown[0].kind})
        also = f" (nor are {', '.join(others)})" if others else ""
        raise _refuse(raw, unknown[0], f"not supported{also}; supported are {', '.join(sorted(ENTRIES))}")


def _refuse_float(raw: RawModel, op: RawOp) -> None:
    if op.kind in ("QUANTIZE", "DEQUANTIZE"):
        return
    floats = [raw.tensors[i].name for i in (*op.inputs, *op.outputs) if i >= 0 and raw.tensors[i].dtype == "float32"]
    if floats:
        raise ModelError(
            f"operator {op.index} {op.kind}: tensor {floats[0]!r} is float32; this is a float or dynamic-range model: "
            "quantize it fully (converter.optimizations = [tf.lite.Optimize.DEFAULT]; converter.representative_dataset "
            "= samples; converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8])"
        )


def _entry(*kinds: str) -> Callable[[Entry], Entry]:
    def register(function: Entry) -> Entry:
        for kind in kinds:
            ENTRIES[kind] = function
        return function

    return register


def _refuse(raw: RawModel, op: RawOp, what: str) -> ModelError:
    return ModelError(f"operator {op.index} {op.kind} (output {raw.tensors[op.outputs[0]].name!r}): {what}")


def _weighted(op: RawOp) -> list[int]:
    """[x, weights] or [x, weights, bias]; a bias may be marked absent."""
    if len(op.inputs) not in (2, 3) or min(op.inputs[:2]) < 0:
        raise ValueError
    return [i for i in op.inputs if i >= 0]


def _activation(raw: RawModel, op: RawOp) -> Activation:
    number = op.options.FusedActivationFunction() if op.options else 0
    if not 0 <= number < len(_ACTIVATIONS):
        raise _refuse(raw, op, f"fused activation {number} is not supported; NONE, RELU, RELU_N1_TO_1 and RELU6 are")
    return _ACTIVATIONS[number]


def _constant(raw: RawModel, op: RawOp, position: int) -> np.ndarray[Any, Any]:
    tensor = raw.tensors[op.inputs[position]]
    if tensor.data is None:
        raise _refuse(raw, op, f"tensor {tensor.name!r} must be constant")
    return tensor.data


def _window(raw: RawModel, op: RawOp, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Window:
    """Explicit padding from SAME or VALID (TensorFlow's rule: the odd pixel goes to the bottom and right)."""
    x, y = raw.tensors[op.inputs[0]], raw.tensors[op.outputs[0]]
    if len(x.shape) != 4 or len(y.shape) != 4:
        raise _refuse(raw, op, f"shapes {list(x.shape)} -> {list(y.shape)} are not [1, H, W, C]")
    stride = (op.options.StrideH(), op.options.StrideW())
    if min(*kernel, *stride, *dilation) < 1:
        raise _refuse(raw, op, "kernel, stride and dilation must be at least 1")
    pads = []
    for size, out, k, s, d in zip(x.shape[1:3], y.shape[1:3], kernel, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        same = op.options.Padding() == 0
        expected = -(-size // s) if same else -(-(size - reach + 1) // s)
        if out != expected:
            raise _refuse(raw, op, f"output size {out} where kernel, stride and padding give {expected}")
        pads.append(max((out - 1) * s + reach - size, 0) // 2 if same else 0)
    return Window(kernel, stride, pads[0], pads[1], dilation)


@_entry("CONV_2D")
def _conv(raw: RawModel, op: RawOp) -> Op:
    shape = raw.tensors[op.inputs[1]].shape
    dilation = (op.options.DilationHFactor(), op.options.DilationWFactor())
    window = _window(raw, op, (shape[1], shape[2]), dilation)
    return Conv2D(op.index, _weighted(op), op.outputs, _activation(raw, op), window)


@_entry("DEPTHWISE_CONV_2D")
def _depthwise(raw: RawModel, op: RawOp) -> Op:
    x, w = raw.tensors[op.inputs[0]].shape, raw.tensors[op.inputs[1]].shape
    dilation = (op.options.DilationHFactor(), op.options.DilationWFactor())
    window = _window(raw, op, (w[1], w[2]), dilation)
    # the options' depth_multiplier is redundant and sometimes wrong: the shapes decide, as in the oracle
    return Depthwise(op.index, _weighted(op), op.outputs, _activation(raw, op), window, w[3] // x[3])


@_entry("FULLY_CONNECTED")
def _dense(raw: RawModel, op: RawOp) -> Op:
    if op.options and op.options.WeightsFormat() != 0:
        raise _refuse(raw, op, "shuffled weights are not supported; convert again with the default weights format")
    return Dense(op.index, _weighted(op), op.outputs, _activation(raw, op))


@_entry("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(raw: RawModel, op: RawOp) -> Op:
    window = _window(raw, op, (op.options.FilterHeight(), op.options.FilterWidth()))
    kind = AveragePool if op.kind == "AVERAGE_POOL_2D" else MaxPool
    return kind(op.index, op.inputs[:1], op.outputs, _activation(raw, op), window)


@_entry("MEAN")
def _mean(raw: RawModel, op: RawOp) -> Op:
    rank = len(raw.tensors[op.inputs[0]].shape)
    axes = {int(a) + rank if a < 0 else int(a) for a in _constant(raw, op, 1).ravel()}
    return Mean(op.index, op.inputs[:1], op.outputs, tuple(sorted(axes)))


@_entry("ADD")
def _add(raw: RawModel, op: RawOp) -> Op:
    a, b = op.inputs
    if raw.tensors[a].elements < raw.tensors[b].elements or raw.tensors[a].data is not None:
        a, b = b, a
    return Add(op.index, [a, b], op.outputs, _activation(raw, op))


@_entry("PAD", "PADV2")
def _pad(raw: RawModel, op: RawOp) -> Op:
    table = _constant(raw, op, 1)
    if table.ndim != 2 or table.shape[1] != 2:
        raise _refuse(raw, op, f"its padding table has shape {list(table.shape)}; [dimensions, 2] is needed")
    x = raw.tensors[op.inputs[0]]
    value = int(_constant(raw, op, 2).ravel()[0]) if op.kind == "PADV2" else (x.z if x.quantized else 0)
    return Pad(op.index, op.inputs[:1], op.outputs, tuple(map(int, table[:, 0])), tuple(map(int, table[:, 1])), value)


@_entry("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(raw: RawModel, op: RawOp) -> Op:
    return Reshape(op.index, op.inputs[:1], op.outputs)


@_entry("SOFTMAX")
def _softmax(raw: RawModel, op: RawOp) -> Op:
    return Softmax(op.index, op.inputs[:1], op.outputs, float(op.options.Beta()))


@_entry("QUANTIZE")
def _quantize(raw: RawModel, op: RawOp) -> Op:
    x: Tensor = raw.tensors[op.inputs[0]]
    return (Quantize if x.dtype == "float32" else Requantize)(op.index, op.inputs[:1], op.outputs)


@_entry("DEQUANTIZE")
def _dequantize(raw: RawModel, op: RawOp) -> Op:
    return Dequantize(op.index, op.inputs[:1], op.outputs)

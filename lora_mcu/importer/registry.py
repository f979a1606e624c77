# SPDX-License-Identifier: Apache-2.0
"""The table of operator entries, and what entries share: activations, constants, windows, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_mcu.errors import ModelError
from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.ir.ops import Activation, Op, Window

Entry = Callable[[RawModel, RawOp], Op]
ENTRIES: dict[str, Entry] = {}

# operators whose inputs from this position on only say the output's shape
SHAPE_INPUTS = {"RESHAPE": 1, "SQUEEZE": 1, "EXPAND_DIMS": 1}

# kinds that may be float32 between DEQUANTIZE and QUANTIZE: fold_islands makes tables of them, or refuses them
FLOAT_KINDS = {"QUANTIZE", "DEQUANTIZE", *SHAPE_INPUTS}


@dataclass(frozen=True)
class IndexedBy:
    """Options of a GATHER whose inputs are the model's input and a constant table (importer/embedding.py)."""

    wraps: bool  # negative indices count from the end
    dequantized: bool  # an int8 input counts in real units


_ACTIVATIONS = [Activation.NONE, Activation.RELU, Activation.RELU_N1_TO_1, Activation.RELU6]


def convert(raw: RawModel, op: RawOp) -> Op:
    """The IR operator, or a ModelError that names operator and tensors."""
    try:
        return ENTRIES[op.kind](raw, op)
    except (IndexError, AttributeError, TypeError, ValueError) as error:
        raise refuse(raw, op, "an input or its options are missing or malformed") from error


def entry(*kinds: str) -> Callable[[Entry], Entry]:
    """Register a function as the entry of these operator names."""

    def register(function: Entry) -> Entry:
        for kind in kinds:
            ENTRIES[kind] = function
        return function

    return register


def refuse(raw: RawModel, op: RawOp, what: str) -> ModelError:
    """The refusal of an operator by index, kind and output."""
    return ModelError(f"operator {op.index} {op.kind} (output {raw.tensors[op.outputs[0]].name!r}): {what}")


def activation(raw: RawModel, op: RawOp) -> Activation:
    """The fused activation of the options, NONE without options."""
    number = op.options.FusedActivationFunction() if op.options else 0
    if not 0 <= number < len(_ACTIVATIONS):
        raise refuse(raw, op, f"fused activation {number} is not supported; NONE, RELU, RELU_N1_TO_1 and RELU6 are")
    return _ACTIVATIONS[number]


def constant(raw: RawModel, op: RawOp, position: int) -> np.ndarray[Any, Any]:
    """The data of an input that must be constant."""
    tensor = raw.tensors[op.inputs[position]]
    if tensor.data is None:
        raise refuse(raw, op, f"tensor {tensor.name!r} must be constant")
    return tensor.data


def window(raw: RawModel, op: RawOp, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Window:
    """Explicit padding from SAME or VALID (TensorFlow's rule: the odd pixel goes to the bottom and right)."""
    x, y = raw.tensors[op.inputs[0]], raw.tensors[op.outputs[0]]
    if len(x.shape) != 4 or len(y.shape) != 4:
        raise refuse(raw, op, f"shapes {list(x.shape)} -> {list(y.shape)} are not [1, H, W, C]")
    stride = (op.options.StrideH(), op.options.StrideW())
    if min(*kernel, *stride, *dilation) < 1:
        raise refuse(raw, op, "kernel, stride and dilation must be at least 1")
    pads = []
    for size, out, k, s, d in zip(x.shape[1:3], y.shape[1:3], kernel, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        same = op.options.Padding() == 0
        expected = -(-size // s) if same else -(-(size - reach + 1) // s)
        if out != expected:
            raise refuse(raw, op, f"output size {out} where kernel, stride and padding give {expected}")
        pads.append(max((out - 1) * s + reach - size, 0) // 2 if same else 0)
    return Window(kernel, stride, pads[0], pads[1], dilation)

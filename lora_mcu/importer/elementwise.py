# SPDX-License-Identifier: Apache-2.0
"""Entries of elementwise operators: int8 ones, and the float32 ones that may stand between DEQUANTIZE and QUANTIZE."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import FLOAT_KINDS, activation, entry, refuse
from lora_mcu.ir import (
    Activation,
    Add,
    Binary,
    FloatOp,
    Lookup,
    Maximum,
    Minimum,
    Mul,
    Op,
    Prelu,
    SquaredDifference,
    Sub,
    Table,
    Tensor,
    functions,
    tables,
)

_BINARY: dict[str, type[Binary]] = {
    "ADD": Add, "SUB": Sub, "MUL": Mul, "MAXIMUM": Maximum, "MINIMUM": Minimum, "SQUARED_DIFFERENCE": SquaredDifference,
}  # fmt: skip
_FUSED = ("ADD", "SUB", "MUL", "DIV")


def _is_float(raw: RawModel, op: RawOp) -> bool:
    return raw.tensors[op.outputs[0]].dtype == "float32"


def _float(raw: RawModel, op: RawOp, parameter: float = 0.0) -> Op:
    fused = activation(raw, op) if op.kind in _FUSED else Activation.NONE
    return FloatOp(op.index, op.inputs, op.outputs, op.kind, fused, parameter)


def _edges(raw: RawModel, op: RawOp) -> tuple[Tensor, Tensor]:
    """Input and output of an int8 operator; a table needs both quantizations."""
    x, y = raw.tensors[op.inputs[0]], raw.tensors[op.outputs[0]]
    for tensor in (x, y):
        if tensor.dtype != "int8" or not tensor.quantized:
            raise refuse(raw, op, f"tensor {tensor.name!r} is {tensor.dtype}; int8 with a scale is needed: convert "
                         "with full-integer quantization (TFLITE_BUILTINS_INT8)")  # fmt: skip
    return x, y


def _lookup(raw: RawModel, op: RawOp, make: Callable[[], Table]) -> Op:
    try:
        with np.errstate(all="ignore"):  # infinities saturate, slopes that are not finite become 0
            return Lookup(op.index, op.inputs[:1], op.outputs, op.kind, make())
    except (ValueError, ZeroDivisionError):
        x, y = _edges(raw, op)
        what = f"output scale {y.s:.6g} does not fit input scale {x.s:.6g}; calibrate the model again"
        raise refuse(raw, op, what) from None


@entry(*_BINARY)
def _binary(raw: RawModel, op: RawOp) -> Op:
    if _is_float(raw, op):
        return _float(raw, op)
    a, b = op.inputs
    fused = activation(raw, op) if op.kind in _FUSED else Activation.NONE
    if op.kind == "MUL":
        scaled = any(raw.tensors[i].data is not None for i in (a, b))
        return Mul(op.index, [a, b], op.outputs, fused, scaled)
    return _BINARY[op.kind](op.index, [a, b], op.outputs, fused)


@entry("DIV", "POW", "SQUARE", "SIN", "COS")
def _float_only(raw: RawModel, op: RawOp) -> Op:
    """The oracle has these in float32 only."""
    if not _is_float(raw, op):
        raise refuse(raw, op, "LiteRT computes it in float32 only; convert again so that it stands between DEQUANTIZE "
                     "and QUANTIZE (the converter's default)")  # fmt: skip
    return _float(raw, op)


@entry(*tables.MAKERS)
def _unary(raw: RawModel, op: RawOp) -> Op:
    if _is_float(raw, op):
        return _float(raw, op)
    x, y = _edges(raw, op)
    if op.kind == "LOGISTIC" and float(y.s) != 1 / 256:
        raise refuse(raw, op, "its output must be quantized with scale 1/256; LiteRT refuses another too")
    return _lookup(raw, op, lambda: tables.MAKERS[op.kind](x, y))


@entry("NEG")
def _neg(raw: RawModel, op: RawOp) -> Op:
    if _is_float(raw, op):
        return _float(raw, op)
    x, y = _edges(raw, op)
    if not x.same_quantization(y) or x.z != 0:
        raise refuse(raw, op, "LiteRT negates bare integers, which is right only for zero points of 0 and equal scales")
    return _lookup(raw, op, tables.neg)


@entry("LEAKY_RELU")
def _leaky_relu(raw: RawModel, op: RawOp) -> Op:
    alpha = float(op.options.Alpha())
    if not math.isfinite(alpha):
        raise refuse(raw, op, f"its slope is {alpha}; convert the model again")
    if _is_float(raw, op):
        return _float(raw, op, alpha)
    return _lookup(raw, op, lambda: tables.leaky_relu(*_edges(raw, op), alpha))


@entry("GELU")
def _gelu(raw: RawModel, op: RawOp) -> Op:
    approximate = bool(op.options.Approximate()) if op.options else False
    if _is_float(raw, op):
        return _float(raw, op, float(approximate))
    return _lookup(raw, op, lambda: tables.gelu(*_edges(raw, op), approximate))


@entry("PRELU")
def _prelu(raw: RawModel, op: RawOp) -> Op:
    x, y = _edges(raw, op)
    alpha = raw.tensors[op.inputs[1]]
    if (
        alpha.dtype == "int8"
        and alpha.quantized
        and alpha.data is not None
        and len(set(alpha.data.ravel().tolist())) == 1
    ):
        return _lookup(raw, op, lambda: tables.prelu(x, alpha, y))
    return Prelu(op.index, op.inputs[:2], op.outputs)


FLOAT_KINDS.update({*functions.UNARY, *functions.BINARY, "LEAKY_RELU", "GELU"})

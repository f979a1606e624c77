# SPDX-License-Identifier: Apache-2.0
"""Entries of reductions, TRANSPOSE_CONV and LOG_SOFTMAX."""

from __future__ import annotations

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import activation, constant, entry, refuse
from lora_mcu.ir import LogSoftmax, Mean, Op, ReduceMax, ReduceMean, ReduceSum, TransposeConv, Window


@entry("MEAN", "SUM", "REDUCE_MAX")
def _reduce(raw: RawModel, op: RawOp) -> Op:
    shape = raw.tensors[op.inputs[0]].shape
    axes = tuple(sorted({int(a) + len(shape) if a < 0 else int(a) for a in constant(raw, op, 1).ravel()}))
    neighbours = bool(axes) and len(axes) == axes[-1] - axes[0] + 1
    kind = {"MEAN": Mean if neighbours else ReduceMean, "SUM": ReduceSum, "REDUCE_MAX": ReduceMax}[op.kind]
    return kind(op.index, op.inputs[:1], op.outputs, axes)


@entry("LOG_SOFTMAX")
def _log_softmax(raw: RawModel, op: RawOp) -> Op:
    return LogSoftmax(op.index, op.inputs[:1], op.outputs)


@entry("TRANSPOSE_CONV")
def _transpose_conv(raw: RawModel, op: RawOp) -> Op:
    """inputs: output shape (known from the output), weights, x, perhaps a bias."""
    if len(op.inputs) < 3 or min(op.inputs[1:3]) < 0:
        raise refuse(raw, op, "an input is missing")
    weights, x = op.inputs[1:3]
    ids = [x, weights, *(i for i in op.inputs[3:4] if i >= 0)]
    shape, size, out = raw.tensors[weights].shape, raw.tensors[x].shape, raw.tensors[op.outputs[0]].shape
    if not len(shape) == len(size) == len(out) == 4:
        raise refuse(raw, op, f"shapes {list(size)} -> {list(out)} are not [1, H, W, C]")
    stride, pads = (op.options.StrideH(), op.options.StrideW()), []
    if min(stride) < 1:
        raise refuse(raw, op, "stride must be at least 1")
    for n, o, k, s in zip(size[1:3], out[1:3], shape[1:3], stride, strict=True):
        same = op.options.Padding() == 0
        expected = -(-o // s) if same else -(-(o - k + 1) // s)
        if n != expected:
            raise refuse(raw, op, f"output size {o} where kernel, stride and padding need {expected} inputs, not {n}")
        pads.append(max((n - 1) * s + k - o, 0) // 2 if same else 0)
    win = Window((shape[1], shape[2]), stride, pads[0], pads[1])
    return TransposeConv(op.index, ids, op.outputs, activation(raw, op), win)

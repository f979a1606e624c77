# SPDX-License-Identifier: Apache-2.0
"""Shapes that the file leaves open: where the batch was not fixed, Keras' dense layers reshape to computed sizes."""

from __future__ import annotations

import math

from lora_mcu.importer.flatbuffer import RawModel, RawOp


def resolve(raw: RawModel, op: RawOp, resolved: set[int]) -> None:
    """Fill in an open shape of a reshape whose target has been folded, and of the dense layer behind it.

    ``resolved`` collects the tensors whose shape did not come from the file.
    """
    if not op.inputs or not op.outputs or min(op.inputs[:2]) < 0:
        return
    x, y = raw.tensors[op.inputs[0]], raw.tensors[op.outputs[0]]
    if op.kind == "RESHAPE" and -1 in y.shape and len(op.inputs) > 1 and -1 not in x.shape:
        target = raw.tensors[op.inputs[1]].data
        sizes = [] if target is None else [int(d) for d in target.ravel()]
        rest = math.prod(d for d in sizes if d != -1)
        if sizes and rest > 0 and sizes.count(-1) < 2 and x.elements % rest == 0:
            y.shape = tuple(x.elements // rest if d == -1 else d for d in sizes)
            resolved.add(op.outputs[0])
    elif op.kind == "FULLY_CONNECTED" and op.inputs[0] in resolved:
        w = raw.tensors[op.inputs[1]]
        keeps = bool(op.options and op.options.KeepNumDims())
        if len(w.shape) == 2 and min(w.shape) > 0 and x.elements % w.shape[1] == 0:
            y.shape = (*(x.shape[:-1] if keeps else (x.elements // w.shape[1],)), w.shape[0])
            resolved.add(op.outputs[0])

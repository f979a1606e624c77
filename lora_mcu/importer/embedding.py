# SPDX-License-Identifier: Apache-2.0
"""GATHER of a constant table by the model's input: from the input to the indices as converters write it.

Keras makes CAST, and SELECT(LESS(i, 0), ADD(i, rows), i) for negative indices; both become part of one operator.
"""

from __future__ import annotations

from lora_mcu.importer.flatbuffer import RawModel, RawOp
from lora_mcu.importer.registry import SHAPE_INPUTS, IndexedBy, refuse
from lora_mcu.ir.embedding import Embedding
from lora_mcu.ir.ops import Op

_MAX_STEPS = 16  # from a GATHER back to the input
_DTYPES = ("int32", "float32", "int8")
_WAY_OUT = "feed the indices as the model's input, int32 [1, ...]"


def resolve(raw: RawModel) -> None:
    """Point such GATHERs at the model's input, in place. Raises ModelError for indices that come from elsewhere."""
    producers = {i: op for op in raw.ops for i in op.outputs}
    for op in raw.ops:
        if op.kind != "GATHER" or len(op.inputs) != 2 or min(op.inputs) < 0:
            continue
        table, index = (raw.tensors[i] for i in op.inputs)
        if table.data is None or table.dtype != "int8" or index.data is not None or len(table.shape) < 2:
            continue
        axis = op.options.Axis() if op.options is not None else 0
        if axis not in (0, -len(table.shape)) or (op.options is not None and op.options.BatchDims() != 0):
            raise refuse(raw, op, f"a computed index is served along axis 0 without batch dimensions, not axis {axis}")
        root, found = _to_input(raw, op, producers, table.shape[0])
        op.inputs, op.options = [root, op.inputs[0]], found


def _to_input(raw: RawModel, gather: RawOp, producers: dict[int, RawOp], rows: int) -> tuple[int, IndexedBy]:
    current, wraps, dequantized = gather.inputs[1], False, False
    for _ in range(_MAX_STEPS):
        op = producers.get(current)
        if op is None:
            break
        whole = raw.tensors[current].dtype in ("int32", "int64")
        if op.kind in SHAPE_INPUTS or op.kind == "DEQUANTIZE" or (op.kind == "CAST" and whole):
            dequantized = dequantized or op.kind == "DEQUANTIZE"
            current = op.inputs[0]
        elif op.kind in ("SELECT", "SELECT_V2") and whole and not wraps and _wraps(raw, op, producers, rows):
            wraps, current = True, op.inputs[2]
        else:
            raise refuse(raw, gather, f"its indices are computed by operator {op.index} {op.kind}; {_WAY_OUT}")
    root = raw.tensors[current]
    if current != raw.inputs[0] or root.dtype not in _DTYPES:
        raise refuse(raw, gather, f"its indices {root.name!r} are {root.dtype} and not the model's input; {_WAY_OUT}")
    return current, IndexedBy(wraps, dequantized)


def _wraps(raw: RawModel, select: RawOp, producers: dict[int, RawOp], rows: int) -> bool:
    """Whether it is i + rows where i < 0, else i."""
    condition, shifted, index = select.inputs
    less, add = producers.get(condition), producers.get(shifted)
    if less is None or add is None or (less.kind, add.kind) != ("LESS", "ADD"):
        return False
    constants = [raw.tensors[op.inputs[1]].data for op in (less, add)]
    values = [None if c is None or c.size != 1 else int(c.ravel()[0]) for c in constants]
    return less.inputs[0] == add.inputs[0] == index and values == [0, rows]


def made(op: RawOp) -> Op:
    """The operator of a GATHER that :func:`resolve` has changed."""
    return Embedding(op.index, op.inputs, op.outputs, op.options.wraps, op.options.dequantized)

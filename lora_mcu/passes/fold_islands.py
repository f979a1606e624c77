# SPDX-License-Identifier: Apache-2.0
"""Graph -> Graph: elementwise float32 operators between DEQUANTIZE and QUANTIZE become one int8 table.

An island is what lies between one int8 tensor and a QUANTIZE: it is run, with the oracle's float32 arithmetic, on all
256 values of that tensor, together with the derivative. Constants in it must be one value for all elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lora_mcu.ir import Dequantize, FloatOp, Graph, Lookup, Op, Quantize, Reshape, functions, tables
from lora_mcu.ir.elementwise import float_model
from lora_mcu.ir.functions import F32, Dual


@dataclass(frozen=True)
class _Value:
    """A float32 tensor as a function of the int8 tensor ``source`` (None: constant), through ``kinds``."""

    source: int | None
    dual: Dual
    kinds: tuple[str, ...] = ()


def fold_islands(graph: Graph) -> Graph:
    """Raises ModelError for float32 operators that are in no island, and for islands that no single table can hold."""
    values: dict[int, _Value] = {}
    ops: list[Op] = []
    for op in graph.ops:
        x = values.get(op.inputs[0])
        if isinstance(op, Dequantize):
            values[op.output] = _dequantized(graph, op)
            ops.append(op)
        elif isinstance(op, FloatOp):
            values[op.output] = _computed(graph, op, values)
        elif isinstance(op, Reshape) and x is not None:
            values[op.output] = x
            ops.append(op)
        elif isinstance(op, Quantize) and x is not None and x.source is not None:
            ops.append(_table(graph, op, x, x.source))
        else:
            ops.append(op)
    if all(kept is op for kept, op in zip(ops, graph.ops, strict=False)) and len(ops) == len(graph.ops):
        return graph
    folded = replace(graph, ops=_needed(graph, ops))
    _refuse_leftovers(graph, folded)
    folded.verify()
    return folded


def _dequantized(graph: Graph, op: Dequantize) -> _Value:
    x = graph.tensors[op.inputs[0]]
    if x.data is None:
        return _Value(op.inputs[0], tables.variable(x))
    first = int(_only(graph, op, op.inputs[0]))
    return _Value(None, Dual.constant(float(x.s * F32(first - x.z)), 256))


def _only(graph: Graph, op: Op, tensor: int) -> float:
    """The one value that all elements of a constant have."""
    t = graph.tensors[tensor]
    assert t.data is not None
    found = np.unique(t.data)
    op.require(graph, len(found) == 1, f"the float32 constant {t.name!r} of shape {list(t.shape)} has several values; "
               "a table holds one function for all elements: quantize this operator to int8")  # fmt: skip
    return float(found[0])


def _computed(graph: Graph, op: FloatOp, values: dict[int, _Value]) -> _Value:
    operands = []
    for i in op.inputs:
        t = graph.tensors[i]
        if i not in values and (t.data is None or t.dtype != "float32"):
            raise float_model(op.index, op.function, t.name)
        operands.append(values[i] if i in values else _Value(None, Dual.constant(_only(graph, op, i), 256)))
    sources = {v.source for v in operands if v.source is not None}
    op.require(graph, len(sources) <= 1, "it joins two int8 tensors in float32, which no table of 256 entries holds; "
               "quantize this operator to int8")  # fmt: skip
    for source in sources:
        same = graph.tensors[source].elements == graph.tensors[op.output].elements
        op.require(graph, same, "it broadcasts inside float32; quantize this operator to int8")
    kinds = tuple(k for v in operands for k in v.kinds)
    with np.errstate(all="ignore"):  # what is not finite saturates in QUANTIZE, as slope it counts 0
        dual = _clamped(op, _function(op, [v.dual for v in operands]))
    return _Value(next(iter(sources), None), dual, (*kinds, op.function))


def _function(op: FloatOp, x: list[Dual]) -> Dual:
    if op.function in functions.BINARY:
        return functions.BINARY[op.function](x[0], x[1])
    if op.function == "LEAKY_RELU":
        alpha = F32(op.parameter)
        bent = np.where(x[0].value > 0, x[0].value, x[0].value * alpha)
        return functions.chain(x[0], bent, np.where(x[0].value > 0, 1.0, float(alpha)))
    if op.function == "GELU":
        approximate = bool(op.parameter)
        slope = functions.d_gelu(x[0].value.astype(np.float64), approximate)
        return functions.chain(x[0], functions.gelu(x[0].value, approximate), slope)
    return functions.apply(op.function, x[0])


def _clamped(op: FloatOp, made: Dual) -> Dual:
    value, slope = made.value, made.slope
    if op.activation.low is not None:
        slope = np.where(value <= F32(op.activation.low), 0.0, slope)
        value = np.maximum(value, F32(op.activation.low))
    if op.activation.high is not None:
        slope = np.where(value >= F32(op.activation.high), 0.0, slope)
        value = np.minimum(value, F32(op.activation.high))
    return Dual(value, slope)


def _table(graph: Graph, op: Quantize, x: _Value, source: int) -> Op:
    y = graph.tensors[op.output]
    op.require_int8(graph, op.output)
    with np.errstate(all="ignore"):
        table = tables.quantized(x.dual, y)
    return Lookup(op.index, [source], op.outputs, "+".join(x.kinds) or "QUANTIZE", table)


def _needed(graph: Graph, ops: list[Op]) -> list[Op]:
    """Without the conversions that only islands read."""
    wanted, kept = {graph.output, *graph.states}, []
    for op in reversed(ops):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(op.inputs)
    return kept[::-1]


def _refuse_leftovers(graph: Graph, folded: Graph) -> None:
    """A float32 result that something other than QUANTIZE reads."""
    made = {graph.input, *(i for op in folded.ops for i in op.outputs)}
    read = {i for op in folded.ops for i in op.inputs} | {graph.output}
    for op in graph.ops:
        if isinstance(op, FloatOp) and op.output in read - made:
            raise float_model(op.index, op.function, graph.tensors[op.output].name)

# SPDX-License-Identifier: Apache-2.0
"""Operators that work element by element: tables of 256 entries, and two operands with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ModelError
from lora_mcu.ir import functions
from lora_mcu.ir.ops import Activation, Op, same_size

if TYPE_CHECKING:
    from lora_mcu.ir.graph import Graph


@dataclass(frozen=True, eq=False)
class Table:
    """``values`` int8 [256] and ``slopes`` float32 [256] (dy/dx in real units) for the inputs -128..127."""

    values: NDArray[np.int8]
    slopes: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"{len(np.unique(self.values))} values"


def _no_table() -> Table:
    return Table(np.zeros(256, np.int8), np.zeros(256, np.float32))


@dataclass
class Lookup(Op):
    """y = table[x]: any int8 function of one int8 input; ``function`` says which."""

    KIND: ClassVar[str] = "LOOKUP"
    function: str = ""
    table: Table = field(default_factory=_no_table)

    def saved(self, adapted: bool) -> list[int]:
        return self.inputs[:1]

    def in_place(self, graph: Graph) -> list[int]:
        return self.inputs[:1]

    def gradient_in_place(self, graph: Graph) -> list[int]:
        return self.inputs[:1]

    def input_rows(self, row: int) -> tuple[int, int] | None:
        return row, row + 1

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, self.inputs[0], self.output)
        x, y = graph.tensors[self.inputs[0]], graph.tensors[self.output]
        self.require(graph, x.elements == y.elements, "input and output have different sizes")

    def refuse(self, graph: Graph, what: str) -> ModelError:
        return _refusal(self, graph, self.function, what)


@dataclass
class FloatOp(Op):
    """An elementwise float32 operator between DEQUANTIZE and QUANTIZE; fold_islands makes tables of these."""

    KIND: ClassVar[str] = "FLOAT"
    function: str = ""
    activation: Activation = Activation.NONE
    parameter: float = 0.0  # alpha of LEAKY_RELU; 1 for the approximate GELU

    def check(self, graph: Graph) -> None:
        wanted = 2 if self.function in functions.BINARY else 1
        self.require(graph, len(self.inputs) == wanted and min(self.inputs) >= 0, f"it needs {wanted} inputs")

    def refuse(self, graph: Graph, what: str) -> ModelError:
        return _refusal(self, graph, self.function, what)


def float_model(index: int, kind: str, tensor: str, int8_weights: bool = False) -> ModelError:
    """The refusal of a model that computes in float32, with what quantizes it."""
    made = "a dynamic-range model: only its weights are int8" if int8_weights else "a float or dynamic-range model"
    return ModelError(
        f"operator {index} {kind}: tensor {tensor!r} is float32; this is {made}. Quantize it fully: `lora-mcu quantize "
        "MODEL --data x.npz -o out.tflite`, or in Python converter.optimizations = [tf.lite.Optimize.DEFAULT]; "
        "converter.representative_dataset = samples; "
        "converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]"
    )


def _refusal(op: Op, graph: Graph, kind: str, what: str) -> ModelError:
    return ModelError(f"operator {op.index} {kind} (output {graph.tensors[op.output].name!r}): {what}")


@dataclass(frozen=True)
class Broadcast:
    """Two operands over an output viewed as four dimensions; a stride of 0 repeats the operand."""

    dims: tuple[int, ...]
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]


def broadcast(a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...]) -> Broadcast:
    """Neighbouring dimensions that repeat the same operand count as one. Raises ValueError where shapes do not fit."""
    rank = max(len(a), len(b), len(y))
    a, b, y = ((1,) * (rank - len(s)) + s for s in (a, b, y))
    groups: list[tuple[int, bool, bool]] = []
    for da, db, dy in zip(a, b, y, strict=True):
        if dy != max(da, db) or da not in (1, dy) or db not in (1, dy):
            raise ValueError
        if dy == 1:
            continue
        if groups and groups[-1][1:] == (da == dy, db == dy):
            groups[-1] = (groups[-1][0] * dy, da == dy, db == dy)
        else:
            groups.append((dy, da == dy, db == dy))
    if len(groups) > 4:
        raise ValueError
    groups = [(1, False, False)] * (4 - len(groups)) + groups
    strides: list[tuple[int, ...]] = []
    for operand in (1, 2):
        step, out = 1, []
        for group in reversed(groups):
            out.append(step if group[operand] else 0)
            step *= group[0] if group[operand] else 1
        strides.append(tuple(reversed(out)))
    return Broadcast(tuple(g[0] for g in groups), strides[0], strides[1])


@dataclass
class Binary(Op):
    """y = f(a, b) with broadcasting over up to four runs of dimensions; either may be constant."""

    activation: Activation = Activation.NONE

    def data_inputs(self) -> list[int]:
        return self.inputs

    def in_place(self, graph: Graph) -> list[int]:
        """An operand that is not repeated is read right before its place is written."""
        return same_size(graph, self, self.inputs)

    def layout(self, graph: Graph) -> Broadcast:
        a, b, y = (graph.tensors[i].shape for i in (*self.inputs, self.output))
        return broadcast(a, b, y)

    def check(self, graph: Graph) -> None:
        self.require_int8(graph, *self.inputs, self.output)
        try:
            self.layout(graph)
        except ValueError:
            a, b, y = (list(graph.tensors[i].shape) for i in (*self.inputs, self.output))
            raise self.refuse(
                graph, f"shapes {a} and {b} do not broadcast to {y} over at most four runs of dimensions"
            ) from None


def _check_product(op: Binary, graph: Graph) -> None:
    """The product of two int8 values times s_a * s_b / s_y must not overflow 32 bits, as it would in the oracle."""
    a, b, y = (graph.tensors[i] for i in (*op.inputs, op.output))
    op.require(graph, float(a.s) * float(b.s) / float(y.s) < 2**14,
               f"output scale {y.s:.6g} does not fit input scales {a.s:.6g} and {b.s:.6g}")  # fmt: skip


@dataclass
class Add(Binary):
    """y = a + b."""

    KIND: ClassVar[str] = "ADD"

    def gradient_in_place(self, graph: Graph) -> list[int]:
        """An operand's gradient is the masked gradient of the sum."""
        return same_size(graph, self, self.inputs) if self.inputs[0] != self.inputs[1] else []

    def input_rows(self, row: int) -> tuple[int, int] | None:
        return row, row + 1


@dataclass
class Sub(Binary):
    """y = a - b."""

    KIND: ClassVar[str] = "SUB"


@dataclass
class Mul(Binary):
    """y = a * b; ``scaled``: one of them is constant, so that no gradient needs the other."""

    KIND: ClassVar[str] = "MUL"
    scaled: bool = False

    def saved(self, adapted: bool) -> list[int]:
        return [self.output] if self.scaled else [*self.inputs, self.output]

    def check(self, graph: Graph) -> None:
        super().check(graph)
        _check_product(self, graph)


@dataclass
class SquaredDifference(Binary):
    """y = (a - b)^2."""

    KIND: ClassVar[str] = "SQUARED_DIFFERENCE"

    def saved(self, adapted: bool) -> list[int]:
        return [*self.inputs, self.output]


@dataclass
class Extremum(Binary):
    """The larger or smaller of two int8 values of one quantization."""

    def saved(self, adapted: bool) -> list[int]:
        return list(self.inputs)

    def check(self, graph: Graph) -> None:
        super().check(graph)
        a, b, y = (graph.tensors[i] for i in (*self.inputs, self.output))
        self.require(graph, a.same_quantization(y) and b.same_quantization(y),
                     "inputs and output are quantized differently, and the oracle compares bare integers; convert "
                     "again with a current converter, which gives all three one scale")  # fmt: skip


@dataclass
class Maximum(Extremum):
    KIND: ClassVar[str] = "MAXIMUM"


@dataclass
class Minimum(Extremum):
    KIND: ClassVar[str] = "MINIMUM"


@dataclass
class Prelu(Binary):
    """y = x where x >= 0, else alpha * x; inputs = [x, alpha], alpha constant (one slope for all is a Lookup)."""

    KIND: ClassVar[str] = "PRELU"

    def data_inputs(self) -> list[int]:
        return self.inputs[:1]

    def saved(self, adapted: bool) -> list[int]:
        return [self.inputs[0], self.output]

    def check(self, graph: Graph) -> None:
        super().check(graph)
        x, alpha, y = (graph.tensors[i] for i in (*self.inputs, self.output))
        self.require(graph, alpha.data is not None, f"slopes {alpha.name!r} are not constant")
        self.require(
            graph, float(x.s) / float(y.s) < 2**22, f"output scale {y.s:.6g} does not fit input scale {x.s:.6g}"
        )
        _check_product(self, graph)
        self.require(graph, x.elements == y.elements, f"slopes of shape {list(alpha.shape)} do not fit {list(x.shape)}")

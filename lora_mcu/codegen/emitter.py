# SPDX-License-Identifier: Apache-2.0
"""The table of emitters, and what emitters share: where tensors lie, how a kernel is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.codegen.cdata import Constant, Fields, array, c_float, struct
from lora_mcu.ir import Activation, Graph, Op
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.blocks import Randomness
from lora_mcu.passes.memory import MemoryPlan
from lora_mcu.passes.placement import Buffer
from lora_mcu.passes.residents import Residents

CLAMP: Fields = "iiii"


@dataclass
class Emitted:
    """Constants of one operator, and C expressions for its kernel calls; ``row`` makes one row of its output."""

    constants: list[Constant] = field(default_factory=list)
    forward: str = ""
    backward: str = ""
    row: str = ""


@dataclass
class Context:
    """What an emitter may look at; ``step`` and ``backward_step`` index the memory plan (-1: no such step)."""

    graph: Graph
    plan: MemoryPlan
    adaptation: Adaptation
    pointer_bytes: int
    step: int = -1
    backward_step: int = -1
    into: tuple[int, ...] = ()
    bands: dict[int, int] = field(default_factory=dict)  # tensor -> its place in the stripe's table
    residents: Residents = field(default_factory=Residents)
    image: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))  # what they hold of the base
    random: Randomness | None = None  # mode i16

    def x(self, tensor: int, ctype: str = "int8_t") -> str:
        """Pointer to an activation in the arena, to a state, or to a constant tensor."""
        if tensor in self.plan.state:
            return f"({ctype} *)(void *)(lmcu_state + {self.plan.state[tensor]})"
        if self.graph.tensors[tensor].data is not None:
            return f"lmcu_t{tensor}"
        return _at(self.plan.activation[tensor], ctype)

    def g(self, tensor: int) -> str:
        """Pointer to the gradient of a tensor; NULL when it needs none."""
        wanted = tensor in self.into or tensor == -1
        return _at(self.plan.gradient[tensor], "float") if wanted else "NULL"

    def dy(self, op: Op, tensor: int = -1) -> str:
        """Pointer to the gradient of an output: the only one, or ``tensor`` of several."""
        return _at(self.plan.gradient[op.output if tensor < 0 else tensor], "float")

    def is_replaced(self, op: Op, tensor: int) -> bool:
        """The gradient of an input stands where the output's stood."""
        old, new = self.plan.gradient[op.output], self.plan.gradient.get(tensor)
        return new is not None and self.plan.is_in_place(old, new)

    def rows(self, *tensors: int) -> str:
        """Arguments of a row kernel: the arena and the windows of the tensors."""
        return "".join([", lmcu_arena", *(f", &bands[{self.bands[i]}]" for i in tensors)])

    def scratch(self, step: int) -> str:
        return _at(self.plan.scratch[step], "void") if step in self.plan.scratch else "NULL"


def _at(buffer: Buffer, ctype: str) -> str:
    return (
        f"({ctype} *)(void *)(lmcu_arena + {buffer.offset})"
        if ctype != "void"
        else f"(void *)(lmcu_arena + {buffer.offset})"
    )


Emitter = Callable[[Any, Context], Emitted]
EMITTERS: dict[type[Op], Emitter] = {}


def emit(op: Op, context: Context) -> Emitted:
    """Raises ModelError where scales leave what the integer arithmetic (and the oracle's) can hold."""
    try:
        emitted = EMITTERS[type(op)](op, context)
    except ValueError as error:
        what = f"{error}; LiteRT refuses it too: calibrate the model again with data of its own kind"
        raise op.refuse(context.graph, what) from error
    for i in op.data_inputs():  # an operand that is constant lies in the image
        data = context.graph.tensors[i].data
        if data is not None:
            emitted.constants.append(array(f"lmcu_t{i}", data))
    return emitted


def emits(*kinds: type[Op]) -> Callable[[Emitter], Emitter]:
    def register(function: Emitter) -> Emitter:
        for kind in kinds:
            EMITTERS[kind] = function
        return function

    return register


def ints(*values: int | np.integer[Any]) -> str:
    return ", ".join(str(int(v)) for v in values)


def clamp_values(op: Op, graph: Graph) -> str:
    """Initializer of lmcu_clamp_t."""
    activation: Activation = getattr(op, "activation", Activation.NONE)
    low, high = graph.tensors[op.output].clamp(activation)
    return f"{{{ints(low, high, activation.low is not None, activation.high is not None)}}}"


def shared_backward(op: Op, ctx: Context, clamp: str, share: np.float32) -> str:
    """The call that gives all positions of the input one gradient (MemoryPlan.shared)."""
    channels = ctx.graph.tensors[op.output].elements
    return (f"lmcu_mean_backward_shared(&(const lmcu_clamp_t){clamp}, {channels}, {c_float(share)}, "
            f"{ctx.x(op.output)}, {ctx.dy(op)}, {ctx.g(op.inputs[0])})")  # fmt: skip


def simple(
    op: Op, ctx: Context, kernel: str, fields: Fields, values: str, types: tuple[str, str] = ("int8_t", "int8_t"),
    backward: tuple[int, ...] | None = None, ctype: str = "",
) -> Emitted:  # fmt: skip
    """An operator of one input: forward(p, x, y) and, where given, backward(p, saved..., dy, dx)."""
    prefix = f"lmcu_op{op.index}"
    constant = struct(prefix, ctype or f"lmcu_{kernel}_t", fields, values, ctx.pointer_bytes)
    call = f"lmcu_{kernel}" if kernel.startswith("requantize") else f"lmcu_{kernel}_forward"
    out = Emitted([constant], f"{call}(&{prefix}, {ctx.x(op.inputs[0], types[0])}, {ctx.x(op.output, types[1])})")
    if ctx.backward_step >= 0 and backward is not None:
        saved = "".join(f"{ctx.x(i)}, " for i in backward)
        out.backward = f"lmcu_{kernel}_backward(&{prefix}, {saved}{ctx.dy(op)}, {ctx.g(op.inputs[0])})"
    if ctx.bands:
        out.row = f"lmcu_{kernel}_row(&{prefix}{ctx.rows(op.inputs[0], op.output)})"
    return out

# SPDX-License-Identifier: Apache-2.0
"""Variables of streaming models: handles and the initialization subgraph become state tensors with initial values.

A variable is what one (container, shared name) stands for, however many handles name it. READ_VARIABLE and
ASSIGN_VARIABLE then refer to its state tensor; VAR_HANDLE and CALL_ONCE disappear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_mcu.errors import ModelError
from lora_mcu.importer.flatbuffer import RawModel, RawOp, text
from lora_mcu.importer.folding import fold
from lora_mcu.importer.registry import entry
from lora_mcu.ir.graph import Tensor
from lora_mcu.ir.ops import Op
from lora_mcu.ir.state import AssignState, ReadState

Key = tuple[bytes, bytes]  # container, shared name
MAX_CALLS = 16  # initialization subgraphs of one model
_WAY_OUT = (
    "quantize the variables with the model: converter._experimental_variable_quantization = True beside "
    "supported_ops = [TFLITE_BUILTINS_INT8]"
)


@dataclass
class _Variable:
    name: str
    initial: Tensor | None = None
    touched: list[RawOp] = field(default_factory=list)  # reads and assignments in execution order


def resolve(raw: RawModel, subgraph: Callable[[int], RawModel]) -> None:
    """Rewrite ``raw`` in place; ``subgraph`` reads another graph of the file. ModelError names what is not served."""
    variables: dict[Key, _Variable] = {}
    handles: dict[int, Key] = {}
    called: list[int] = []
    kept: list[RawOp] = []
    for op in raw.ops:
        if op.kind == "CALL_ONCE":
            _initialize(op, variables, called, subgraph)
        elif op.kind == "VAR_HANDLE":
            _handle(op, handles, variables)
        elif op.kind in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            _variable(raw, op, handles, variables).touched.append(op)
            kept.append(op)
        else:
            if handles.keys() & set(op.inputs):
                raise _refuse(op, "it takes a variable's handle; only READ_VARIABLE and ASSIGN_VARIABLE may")
            kept.append(op)
    raw.ops = kept
    for variable in variables.values():
        if any(op.kind == "READ_VARIABLE" for op in variable.touched):
            _make_state(raw, variable)


def _refuse(op: RawOp, what: str, where: str = "") -> ModelError:
    return ModelError(f"operator {op.index} {op.kind}{where}: {what}")


def _handle(op: RawOp, handles: dict[int, Key], variables: dict[Key, _Variable], where: str = "") -> None:
    if op.options is None or len(op.outputs) != 1:
        raise _refuse(op, "its options are missing; the file is damaged", where)
    key = (op.options.Container() or b"", op.options.SharedName() or b"")
    name = text(key[1], 800) or f"variable_{len(variables)}"
    variables.setdefault(key, _Variable(name))
    handles[op.outputs[0]] = key


def _variable(
    raw: RawModel, op: RawOp, handles: dict[int, Key], variables: dict[Key, _Variable], where: str = ""
) -> _Variable:
    whole = len(op.inputs) == 1 == len(op.outputs) if op.kind == "READ_VARIABLE" else len(op.inputs) == 2
    if not whole or min(op.inputs) < 0:
        raise _refuse(op, "an input or output is missing; the file is damaged", where)
    if op.inputs[0] not in handles:
        name = raw.tensors[op.inputs[0]].name
        raise _refuse(op, f"its handle {name!r} does not come from a VAR_HANDLE before it", where)
    return variables[handles[op.inputs[0]]]


def _initialize(
    op: RawOp, variables: dict[Key, _Variable], called: list[int], subgraph: Callable[[int], RawModel]
) -> None:
    """Initial values from the subgraph that CALL_ONCE runs: constants assigned to variables, nothing else."""
    if op.options is None:
        raise _refuse(op, "its options are missing; the file is damaged")
    index = int(op.options.InitSubgraphIndex())
    if index in called:
        return  # it runs once
    early = next((v for v in variables.values() if v.touched), None)
    if early is not None:
        raise _refuse(op, f"variable {early.name!r} is used before it; an initialization must come first")
    called.append(index)
    if len(called) > MAX_CALLS:
        raise _refuse(op, f"more than {MAX_CALLS} initialization subgraphs")
    init = subgraph(index)
    fold(init)
    where = f" in the initialization subgraph {index}"
    handles: dict[int, Key] = {}
    for inner in init.ops:
        if inner.kind == "VAR_HANDLE":
            _handle(inner, handles, variables, where)
        elif inner.kind == "ASSIGN_VARIABLE":
            variable = _variable(init, inner, handles, variables, where)
            value = init.tensors[inner.inputs[1]]
            if value.data is None and value.dtype == "int8":  # another dtype is refused where the variable is read
                raise _refuse(inner, f"variable {variable.name!r} is not initialized by a constant; initialize it by "
                              "numbers (zeros) in the model", where)  # fmt: skip
            variable.initial = value
        else:
            raise _refuse(inner, "not supported there; only variables may be initialized, by constants", where)


def _make_state(raw: RawModel, variable: _Variable) -> None:
    """Append the state tensor and point the variable's operators at it."""
    first = next(op for op in variable.touched if op.kind == "READ_VARIABLE")
    read = raw.tensors[first.outputs[0]]
    state = Tensor(variable.name, read.shape, read.dtype, read.scale, read.zero_point)
    number = len(raw.tensors)
    for op in variable.touched:
        reads = op.kind == "READ_VARIABLE"
        _check_use(op, variable, state, raw.tensors[op.outputs[0] if reads else op.inputs[1]])
    raw.states[number] = _initial(variable, state)
    raw.tensors.append(state)
    for op in variable.touched:
        if op.kind == "READ_VARIABLE":
            op.inputs = [number]
        else:
            op.inputs, op.outputs = [op.inputs[1]], [number]


def _check_use(op: RawOp, variable: _Variable, state: Tensor, value: Tensor) -> None:
    """A variable has one dtype, shape and quantization: LiteRT copies its bytes as they are."""
    where = f"variable {variable.name!r}"
    if value.dtype != "int8":
        raise _refuse(op, f"{where} is {value.dtype}; only int8 is served: {_WAY_OUT}")
    if len(value.scale) != 1:
        raise _refuse(op, f"{where} has {len(value.scale) or 'no'} scales; one is needed: {_WAY_OUT}")
    if -1 in value.shape or value.shape != state.shape:
        raise _refuse(op, f"{where} has shape {list(state.shape)} and here {list(value.shape)}; one fixed shape is "
                      "needed: convert with fixed shapes, batch 1")  # fmt: skip
    if not value.same_quantization(state):
        raise _refuse(op, f"{where} is read with scale {state.s:g}, zero point {state.z}, and here has {value.s:g}, "
                      f"{value.z}; LiteRT copies its bytes, which would change its values: convert again")  # fmt: skip


def _initial(variable: _Variable, state: Tensor) -> NDArray[np.int8]:
    value = variable.initial
    if value is None:
        first = variable.touched[0]
        if first.kind == "READ_VARIABLE":
            raise _refuse(first, f"variable {variable.name!r} is read before anything gave it a value; export the "
                          "model with its initialization (CALL_ONCE)")  # fmt: skip
        return np.full(state.shape, state.z, np.int8)
    fits = value.dtype == state.dtype and value.shape == state.shape
    if not fits or (value.quantized and not value.same_quantization(state)):
        raise ModelError(
            f"variable {variable.name!r} is initialized as {value.dtype} {list(value.shape)} and read as {state.dtype} "
            f"{list(state.shape)}, or with another scale: {_WAY_OUT}"
        )
    return np.asarray(value.data, np.int8)


@entry("READ_VARIABLE")
def _read(raw: RawModel, op: RawOp) -> Op:
    return ReadState(op.index, op.inputs, op.outputs)


@entry("ASSIGN_VARIABLE")
def _assign(raw: RawModel, op: RawOp) -> Op:
    return AssignState(op.index, op.inputs, op.outputs)

# SPDX-License-Identifier: Apache-2.0
"""The generated model.c: memory, constants, and straight-line functions for prefix, suffix, tail and backward."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_mcu.codegen import stripes
from lora_mcu.codegen.cdata import Constant, array, c_float, sizeof, table
from lora_mcu.codegen.emitter import Context, emit, ints
from lora_mcu.info import ModelInfo
from lora_mcu.ir import Dense, Graph, Reshape
from lora_mcu.passes import blocks
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.cut import Cut
from lora_mcu.passes.gradient import BackwardOp
from lora_mcu.passes.memory import MemoryPlan
from lora_mcu.passes.residents import Residents
from lora_mcu.passes.tail import Split

# each module registers the emitters of one group of operators
for _group in ("kernels", "elementwise", "attention", "shape", "reduce", "state", "embedding"):
    importlib.import_module(f"lora_mcu.codegen.{_group}")

ADAPTER_FIELDS = "iiii"
RESIDENT_FIELDS = [*"iiiiiiiiiiii", "p"]


@dataclass(frozen=True)
class MemorySymbol:
    """One array in SRAM; ``region`` is the name of the board's region that holds it."""

    name: str
    ctype: str
    count: int
    nbytes: int
    region: str = ""


@dataclass(frozen=True)
class Generated:
    """Constants in the order of the file, functions of stripes, calls of the functions; prefix and suffix make
    the forward pass."""

    constants: list[Constant]
    rows: list[stripes.RowFunction]
    prefix: list[str]
    suffix: list[str]
    tail: list[str]
    backward: list[str]


def generate(
    graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, plan: MemoryPlan, cut: Cut,
    info: ModelInfo, initial_a: NDArray[np.uint16], pointer_bytes: int, residents: Residents,
) -> Generated:  # fmt: skip
    """Emit every operator. Sizes of all constants are known afterwards."""
    steps_back = {id(b.op): j for j, b in enumerate(backward)}
    loss_at = len(split.forward) + len(split.tail)
    constants: dict[str, Constant] = {}
    calls: dict[str, list[str]] = {"prefix": [], "suffix": [], "tail": []}
    backward_calls: dict[int, str] = {}
    functions = [stripes.RowFunction(f"lmcu_stripe{n}_row", []) for n in range(len(plan.stripes))]
    striped = {step: n for n, s in enumerate(plan.stripes) for step in range(s.first, s.last + 1)}
    image = np.zeros(residents.nbytes, np.uint8)
    i16 = info.numerics == "i16" and adaptation.layers
    random = blocks.randomness(graph, backward, adaptation, plan.shared) if i16 else None
    for step, op in enumerate((*split.forward, *split.tail)):
        if isinstance(op, Reshape):
            continue
        j = steps_back.get(id(op), -1)
        back, into = (loss_at + 1 + j, backward[j].into) if j >= 0 else (-1, ())
        context = Context(graph, plan, adaptation, pointer_bytes, step, back, into, residents=residents, image=image,
                          random=random)  # fmt: skip
        if step in striped:
            context.bands = stripes.places(plan.stripes[striped[step]])
        emitted = emit(op, context)
        constants.update({c.name: c for c in emitted.constants})
        backward_calls[j] = emitted.backward
        part = "prefix" if step < cut.at else "suffix" if step < len(split.forward) else "tail"
        if step not in striped:
            calls[part] += [emitted.forward, f"LMCU_STEP({step})"]
            continue
        n = striped[step]
        stripe, name = plan.stripes[n], f"lmcu_stripe{n}"
        functions[n].cases.append((step - stripe.first, emitted.row, step))
        if step == stripe.last:
            constants.update({c.name: c for c in stripes.constants(name, stripe, graph, plan, pointer_bytes)})
            calls[part].append(f"lmcu_stripe_run(&{name}, lmcu_arena)")
    if graph.states:
        initial = np.zeros(plan.state_bytes, np.int8)
        for i, value in graph.states.items():
            initial[plan.state[i] : plan.state[i] + value.size] = value.ravel()
        constants["lmcu_initial_state"] = array("lmcu_initial_state", initial)
    for constant in [
        *_identity(info, adaptation, initial_a, pointer_bytes),
        *_resident(graph, residents, adaptation, image, pointer_bytes),
    ]:
        constants[constant.name] = constant
    if info.store_capacity:
        parts = _record_parts(graph, plan, cut, pointer_bytes)
        constants[parts.name] = parts
    return Generated(
        list(constants.values()), functions, calls["prefix"], calls["suffix"], calls["tail"],
        _with_zeroes(backward, backward_calls, plan, loss_at),
    )  # fmt: skip


def _resident(
    graph: Graph, residents: Residents, adaptation: Adaptation, image: NDArray[np.uint8], pointer_bytes: int
) -> list[Constant]:
    """What weights in SRAM hold of the base, and what merging into them must know."""
    if not residents.layers:
        return []
    rows = []
    for x in residents.layers:
        op = x.layer.op
        gamma, s_x, s_y = adaptation.gamma, graph.tensors[op.inputs[0]].s, graph.tensors[op.output].s
        sizes = ints(x.layer.m, x.layer.k, adaptation.rank, x.scales, isinstance(op, Dense))
        offsets = ints(x.weights, x.bias, x.multiplier, x.shift)
        rows.append(f"{{{sizes}, {offsets}, {c_float(gamma)}, {c_float(s_x)}, {c_float(s_y)}, lmcu_op{op.index}_s}}")
    return [
        array("lmcu_base_weights", image.view(np.uint64)),
        table("lmcu_residents", "lmcu_resident_t", [RESIDENT_FIELDS] * len(rows), rows, pointer_bytes),
        Constant("lmcu_weight_bytes", 4, f"const uint32_t lmcu_weight_bytes = {residents.nbytes};"),
    ]


def _record_parts(graph: Graph, plan: MemoryPlan, cut: Cut, pointer_bytes: int) -> Constant:
    """Where a stored sample's tensors stand when the pass over it begins."""
    tensors = stored_tensors(graph, cut)
    rows = [f"{{lmcu_arena + {plan.activation[i].offset}, {graph.tensors[i].nbytes}}}" for i in tensors]
    return table("lmcu_parts", "lmcu_part_t", ["pi"] * len(tensors), rows, pointer_bytes)


def stored_tensors(graph: Graph, cut: Cut) -> tuple[int, ...]:
    """What a record holds: the tensors at the cut where they are cached, else the input."""
    return cut.tensors if cut.cached else (graph.input,)


def _with_zeroes(backward: list[BackwardOp], calls: dict[int, str], plan: MemoryPlan, loss_at: int) -> list[str]:
    """Each gradient is zeroed right before the first operator that adds to it, unless that one replaces another in its
    place; LMCU_STEP marks the end of a step."""
    out = []
    replaced = {id(new) for old, new in plan.pairs if plan.is_in_place(old, new)}
    for j in range(len(backward)):
        step = loss_at + 1 + j
        opened = [b for b in plan.opens.get(step, []) if id(b) not in replaced]
        for buffer in [*opened, *([plan.factors[step]] if step in plan.factors else [])]:
            out.append(f"zero(lmcu_arena + {buffer.offset}, {buffer.nbytes}u)")
        out += [calls[j], f"LMCU_STEP({loss_at + 1 + j})"]
    return out


def _identity(
    info: ModelInfo, adaptation: Adaptation, initial_a: NDArray[np.uint16], pointer_bytes: int
) -> list[Constant]:
    def digest(text: str) -> NDArray[np.uint8]:
        return np.frombuffer(bytes.fromhex(text), np.uint8)

    constants = [
        array("lmcu_info", np.frombuffer(info.to_json().encode("ascii"), np.int8)),
        array("lmcu_model_sha256", digest(info.model_sha256)),
        array("lmcu_layout_sha256", digest(info.layout_sha256)),
    ]
    if adaptation.layers:
        r = adaptation.rank
        rows = [f"{{{x.a_offset}, {r * x.k}, {x.b_offset}, {r * x.m}}}" for x in adaptation.layers]
        adapters = table("lmcu_adapters", "lmcu_adapter_t", [ADAPTER_FIELDS] * len(rows), rows, pointer_bytes)
        constants += [adapters, array("lmcu_initial_a", initial_a)]
        if info.numerics == "i16":
            rows = [f"&lmcu_op{x.op.index}_lora" for x in adaptation.layers]
            constants.append(table("lmcu_loras", "lmcu_lora_t *const", ["p"] * len(rows), rows, pointer_bytes))
    return constants


def model_fields(
    graph: Graph, split: Split, adaptation: Adaptation, plan: MemoryPlan, cut: Cut, info: ModelInfo,
    memory: list[MemorySymbol],
) -> list[tuple[str, str]]:  # fmt: skip
    """Initializer of lmcu_model_t, in the order of the struct."""
    names = {symbol.name for symbol in memory}
    logits = graph.tensors[split.logits]

    def pointer(name: str) -> str:
        return name if name in names else "NULL"

    def arena(offset: int, ctype: str) -> str:
        return f"({ctype} *)(void *)(lmcu_arena + {offset})"

    gradient = plan.gradient.get(split.logits)
    adapted = bool(adaptation.layers)
    return [
        ("info", "(const char *)lmcu_info"),
        ("info_bytes", f"{len(info.to_json())}"),
        ("model_sha256", "lmcu_model_sha256"),
        ("layout_sha256", "lmcu_layout_sha256"),
        ("input_bytes", f"{info.input.nbytes}"),
        ("output_bytes", f"{info.output.nbytes}"),
        ("loss", "LMCU_LOSS_CROSS_ENTROPY" if info.loss == "cross_entropy" else "LMCU_LOSS_MSE"),
        ("logit_count", f"{logits.elements}"),
        ("logit_scale", c_float(logits.s)),
        ("logit_zero_point", f"{logits.z}"),
        ("param_count", f"{adaptation.parameters}"),
        ("adapter_count", f"{len(adaptation.layers)}"),
        ("max_batch", f"{info.max_batch}"),
        ("adapters", "lmcu_adapters" if adapted else "NULL"),
        ("initial_a", "lmcu_initial_a" if adapted else "NULL"),
        ("store_capacity", f"{info.store_capacity}"),
        ("record_bytes", f"{info.record_bytes}"),
        ("parts", "lmcu_parts" if info.store_capacity else "NULL"),
        ("part_count", f"{len(stored_tensors(graph, cut)) if info.store_capacity else 0}"),
        ("cached", f"{int(cut.cached)}"),
        ("input", arena(plan.activation[graph.input].offset, "uint8_t")),
        ("output", arena(plan.activation[graph.output].offset, "const uint8_t")),
        ("logits", arena(plan.activation[split.logits].offset, "const int8_t")),
        ("logit_gradient", arena(gradient.offset, "float") if gradient else "NULL"),
        ("factors", pointer("lmcu_factors")),
        ("gradients", arena(plan.gradient_offset, "float") if plan.gradients_in_arena else pointer("lmcu_gradients")),
        ("momentum", pointer("lmcu_momentum")),
        ("store", pointer("lmcu_store")),
        ("order", pointer("lmcu_order")),
        ("class_seen", pointer("lmcu_class_seen")),
        ("target", pointer("lmcu_target")),
        ("state", pointer("lmcu_state")),
        ("initial_state", "lmcu_initial_state" if graph.states else "NULL"),
        ("state_bytes", f"{plan.state_bytes}"),
    ]


MODEL_POINTERS = {
    "info", "model_sha256", "layout_sha256", "adapters", "initial_a", "input", "output", "logits", "logit_gradient",
    "factors", "gradients", "momentum", "parts", "store", "order", "class_seen", "target", "state", "initial_state",
}  # fmt: skip


def model_bytes(fields: list[tuple[str, str]], pointer_bytes: int) -> int:
    """Size of lmcu_model_t."""
    return sizeof(["p" if name in MODEL_POINTERS else "i" for name, _ in fields], pointer_bytes)


def render(
    info: ModelInfo, generated: Generated, memory: list[MemorySymbol], fields: list[tuple[str, str]], sram_total: int,
    pointer_bytes: int,
) -> bytes:  # fmt: skip
    """The text of model.c."""
    from lora_mcu.codegen.platformio import environment

    constants: list[dict[str, Any]] = [
        {"name": c.name, "nbytes": c.nbytes, "definition": c.definition, "declaration": c.definition.split(" =", 1)[0]}
        for c in generated.constants
    ]
    functions = [
        ("lmcu_model_prefix", generated.prefix),
        ("lmcu_model_suffix", generated.suffix),
        ("lmcu_model_tail", generated.tail),
        ("lmcu_model_backward", generated.backward),
    ]
    resident = any(symbol.name == "lmcu_weights" for symbol in memory)
    text = environment().get_template("model.c.j2").render(
        name=info.name, sha256=info.model_sha256, memory=memory, constants=constants, functions=functions, model=fields,
        rows=generated.rows, zeroes=any(call.startswith("zero(") for call in generated.backward), sram_total=sram_total,
        resident=resident, model_bytes=model_bytes(fields, pointer_bytes), pointer_bytes=pointer_bytes,
    )  # fmt: skip
    return text.encode()

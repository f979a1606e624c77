# SPDX-License-Identifier: Apache-2.0
"""Memory plan: one arena for forward, tail, loss and backward, from lifetimes to offsets."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from lora_mcu.ir import Conv2D, Dense, Graph, Matmul, Op
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.cut import views
from lora_mcu.passes.gradient import BackwardOp
from lora_mcu.passes.tail import Split

ALIGN = 8
_TRIES = 60


@dataclass
class Buffer:
    """``nbytes`` of the arena, in use from step ``start`` to step ``end`` (both included)."""

    name: str
    role: str  # activation | gradient | scratch
    nbytes: int
    start: int
    end: int
    offset: int = -1

    def overlaps(self, other: Buffer) -> bool:
        return self.start <= other.end and other.start <= self.end


@dataclass
class MemoryPlan:
    """Steps are forward operators, tail operators, the loss, backward operators, numbered through.

    ``activation`` and ``gradient`` give the buffer of a tensor (views share one); ``scratch`` the buffer of a step;
    ``opens`` the gradients that a step touches first, which it must zero. States stand outside the arena.
    """

    steps: list[str]
    buffers: list[Buffer] = field(default_factory=list)
    activation: dict[int, Buffer] = field(default_factory=dict)
    gradient: dict[int, Buffer] = field(default_factory=dict)
    scratch: dict[int, Buffer] = field(default_factory=dict)
    opens: dict[int, list[Buffer]] = field(default_factory=dict)
    arena_bytes: int = 0
    state: dict[int, int] = field(default_factory=dict)  # offset in lmcu_state, of states and views of them
    state_bytes: int = 0

    @property
    def lower_bound(self) -> int:
        """Largest number of bytes that are in use in one step: no plan can be smaller."""
        return max(
            (sum(b.nbytes for b in self.buffers if b.start <= t <= b.end) for t in range(-1, len(self.steps))),
            default=0,
        )


def align(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def forward_scratch(op: Op, graph: Graph, adaptation: Adaptation) -> int:
    """Bytes of scratch of a forward kernel, as lmcu_ops.h states them."""
    if isinstance(op, Matmul):
        geometry = op.geometry(graph)
        return align4(2 * geometry.depth) + 4 * geometry.columns
    if not isinstance(op, Conv2D | Dense):
        return 0
    return _patches(op, graph, 2 if isinstance(op, Conv2D) else 1) + _expanded(op, graph, adaptation)


def backward_scratch(b: BackwardOp, graph: Graph, adaptation: Adaptation) -> int:
    """Bytes of scratch of a backward kernel, as lmcu_ops.h states them."""
    if not isinstance(b.op, Conv2D | Dense):
        return 0
    _, k = _matrix(b.op, graph)
    return _patches(b.op, graph, 1) + _expanded(b.op, graph, adaptation) + (4 * k if b.into else 0)


def _patches(op: Conv2D | Dense, graph: Graph, positions: int) -> int:
    """int16 patches, and the bytes of one where its runs do not fill groups of four."""
    _, k = _matrix(op, graph)
    gathers = isinstance(op, Conv2D) and graph.tensors[op.inputs[0]].shape[3] % 4 and op.window.kernel != (1, 1)
    return (2 * positions + bool(gathers)) * align4(k)


def _expanded(op: Conv2D | Dense, graph: Graph, adaptation: Adaptation) -> int:
    """A convolution's factors as float32."""
    m, k = _matrix(op, graph)
    return 4 * adaptation.rank * (k + m) if isinstance(op, Conv2D) and adaptation.of(op) is not None else 0


def align4(nbytes: int) -> int:
    return -(-nbytes // 4) * 4


def _matrix(op: Conv2D | Dense, graph: Graph) -> tuple[int, int]:
    weights = graph.tensors[op.weights]
    return weights.shape[0], weights.elements // weights.shape[0]


def plan(graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation) -> MemoryPlan:
    """Lifetimes, then offsets. Equal inputs give equal plans."""
    loss_at = len(split.forward) + len(split.tail)
    steps = [f"{op.index} {op.KIND}" for op in (*split.forward, *split.tail)] + ["loss"]
    memory = MemoryPlan(steps + [f"{b.op.index} {b.op.KIND} backward" for b in backward])
    roots = views(graph)
    _states(memory, graph, roots)
    _activations(memory, graph, split, backward, adaptation, roots, loss_at)
    _gradients(memory, graph, split, backward, roots, loss_at)
    _scratch(memory, graph, split, backward, adaptation, loss_at)
    _place(memory)
    return memory


def _states(memory: MemoryPlan, graph: Graph, roots: dict[int, int]) -> None:
    offsets = {}
    for i in graph.states:
        offsets[i] = memory.state_bytes
        memory.state_bytes += align(graph.tensors[i].nbytes)
    memory.state = {i: offsets[root] for i, root in roots.items() if root in offsets}


def _activations(
    memory: MemoryPlan, graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation,
    roots: dict[int, int], loss_at: int,
) -> None:  # fmt: skip
    spans: dict[int, list[int]] = {roots[graph.input]: [-1]}  # staging is written before the first step
    read = {i for op in graph.ops for i in op.inputs} | {split.logits, graph.output}

    def use(tensor: int, step: int) -> None:
        if graph.tensors[tensor].data is None and tensor not in memory.state:
            spans.setdefault(roots[tensor], []).append(step)

    for step, op in enumerate((*split.forward, *split.tail)):
        for i in (*op.inputs, *(o for o in op.outputs if o in read)):  # what nothing reads gets no memory
            use(i, step)
    use(split.logits, loss_at)
    for j, b in enumerate(backward):
        for i in b.op.saved(adaptation.of(b.op) is not None):
            use(i, loss_at + 1 + j)
    use(graph.output, loss_at - 1 if split.tail else loss_at)
    made = {root: Buffer(graph.tensors[root].name, "activation", align(graph.tensors[root].nbytes), min(s), max(s))
            for root, s in spans.items()}  # fmt: skip
    memory.buffers += made.values()
    memory.activation = {i: made[root] for i, root in roots.items() if root in made}


def _gradients(
    memory: MemoryPlan, graph: Graph, split: Split, backward: list[BackwardOp], roots: dict[int, int], loss_at: int
) -> None:
    if not backward:
        return
    spans: dict[int, list[int]] = {roots[split.logits]: [loss_at]}
    for j, b in enumerate(backward):
        step = loss_at + 1 + j
        for i in b.into:
            if roots[i] not in spans:
                spans[roots[i]] = [step]
                memory.opens.setdefault(step, [])
            spans[roots[i]].append(step)
        for i in b.op.outputs:
            if roots[i] in spans:  # an output that the loss does not depend on has no gradient
                spans[roots[i]].append(step)
    made: dict[int, Buffer] = {}
    for root, used in spans.items():
        tensor = graph.tensors[root]
        made[root] = Buffer(tensor.name, "gradient", align(4 * tensor.elements), min(used), max(used))
        if min(used) > loss_at:
            memory.opens[min(used)].append(made[root])
    memory.buffers += made.values()
    memory.gradient = {i: made[root] for i, root in roots.items() if root in made}


def _scratch(
    memory: MemoryPlan, graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, loss_at: int
) -> None:
    sizes = [forward_scratch(op, graph, adaptation) for op in (*split.forward, *split.tail)] + [0]
    sizes += [backward_scratch(b, graph, adaptation) for b in backward]
    for step, nbytes in enumerate(sizes):
        if nbytes:
            memory.scratch[step] = Buffer(memory.steps[step], "scratch", align(nbytes), step, step)
    memory.buffers += memory.scratch.values()


def _place(memory: MemoryPlan) -> None:
    """Best of several greedy orders; each buffer goes to the lowest gap among those it meets in time."""
    bound = memory.lower_bound
    rng = random.Random(0)
    orders = [
        lambda b: (-b.nbytes, b.start),
        lambda b: (-(b.end - b.start), -b.nbytes),
        lambda b: (-b.nbytes * (b.end - b.start + 1), b.start),
        lambda b: (b.start, -b.nbytes),
    ]
    best, offsets = sum(b.nbytes for b in memory.buffers) + 1, [0] * len(memory.buffers)
    for attempt in range(_TRIES):
        if attempt < len(orders):
            order = sorted(memory.buffers, key=orders[attempt])
        else:
            order = sorted(memory.buffers, key=lambda b: -b.nbytes * rng.uniform(0.5, 1.5))
        total = _greedy(order)
        if total < best:
            best, offsets = total, [b.offset for b in memory.buffers]
        if best == bound:
            break
    memory.arena_bytes = best
    for buffer, offset in zip(memory.buffers, offsets, strict=True):
        buffer.offset = offset


def _greedy(order: list[Buffer]) -> int:
    placed: list[Buffer] = []
    for buffer in order:
        offset = 0
        for other in sorted((p for p in placed if p.overlaps(buffer)), key=lambda p: p.offset):
            if offset + buffer.nbytes <= other.offset:
                break
            offset = max(offset, other.offset + other.nbytes)
        buffer.offset = offset
        placed.append(buffer)
    return max((b.offset + b.nbytes for b in order), default=0)

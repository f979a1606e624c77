# SPDX-License-Identifier: Apache-2.0
"""Memory plan: one arena for forward, tail, loss and backward, from lifetimes to offsets."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_mcu.ir import AveragePool, Conv2D, Dense, Depthwise, Graph, Matmul, Mean, Op
from lora_mcu.passes import blocks, placement, stripes
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.gradient import BackwardOp
from lora_mcu.passes.placement import Buffer
from lora_mcu.passes.stripes import Stripe
from lora_mcu.passes.tail import Split
from lora_mcu.passes.views import views

ALIGN = 8
DEPTHWISE_BLOCK = 8  # channels at once of a depthwise backward pass in place


@dataclass
class MemoryPlan:
    """Steps are forward operators, tail operators, the loss, backward operators, numbered through.

    ``activation`` and ``gradient`` give the buffer of a tensor (views share one); ``scratch`` the buffer of a step;
    ``opens`` the gradients that a step touches first, which it must zero; ``shared`` the tensors whose gradient is the
    same at every position and kept once; ``factors`` the gradients of adapted layers, where the arena holds them.
    States stand outside the arena.
    """

    steps: list[str]
    buffers: list[Buffer] = field(default_factory=list)
    activation: dict[int, Buffer] = field(default_factory=dict)
    gradient: dict[int, Buffer] = field(default_factory=dict)
    scratch: dict[int, Buffer] = field(default_factory=dict)
    opens: dict[int, list[Buffer]] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    factors: dict[int, Buffer] = field(default_factory=dict)
    pairs: list[tuple[Buffer, Buffer]] = field(default_factory=list)
    stripes: list[Stripe] = field(default_factory=list)
    arena_bytes: int = 0
    state: dict[int, int] = field(default_factory=dict)  # offset in lmcu_state, of states and views of them
    state_bytes: int = 0
    gradients_in_arena: bool = False
    gradient_offset: int = 0  # of the factors' gradients, where the arena holds them

    @property
    def lower_bound(self) -> int:
        """Largest number of bytes that are in use in one step: no plan can be smaller."""
        return max(placement.profile(self.buffers, self.pairs, len(self.steps)), default=0)

    def is_in_place(self, old: Buffer, new: Buffer) -> bool:
        """``new`` took over the memory of ``old`` in the step that ends the one and begins the other."""
        return old.offset == new.offset and any(o is old and n is new for o, n in self.pairs)


def align(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def forward_scratch(op: Op, graph: Graph, adaptation: Adaptation, numerics: str) -> int:
    """Bytes of scratch of a forward kernel, as lmcu_ops.h states them."""
    if isinstance(op, Matmul):
        geometry = op.geometry(graph)
        return align4(2 * geometry.depth) + 4 * geometry.columns
    if not isinstance(op, Conv2D | Dense):
        return 0
    own = _expanded(op, graph, adaptation) if numerics == "f32" else 0
    return _patches(op, graph, 2 if isinstance(op, Conv2D) else 1) + own + _biases(op, graph, adaptation)


def backward_scratch(b: BackwardOp, graph: Graph, adaptation: Adaptation, numerics: str) -> int:
    """Bytes of scratch of a backward kernel, as lmcu_ops.h states them."""
    if not isinstance(b.op, Conv2D | Dense):
        return 0
    _, k = _matrix(b.op, graph)
    own = _expanded(b.op, graph, adaptation) if numerics == "f32" else blocks.backward_bytes(b.op, graph, adaptation)
    return _patches(b.op, graph, 1) + own + (4 * k if b.into else 0)


def _patches(op: Conv2D | Dense, graph: Graph, positions: int) -> int:
    """int16 patches, and the bytes of one where its runs do not fill groups of four."""
    _, k = _matrix(op, graph)
    gathers = isinstance(op, Conv2D) and graph.tensors[op.inputs[0]].shape[3] % 4 and op.window.kernel != (1, 1)
    return (2 * positions + bool(gathers)) * align4(k)


def _expanded(op: Conv2D | Dense, graph: Graph, adaptation: Adaptation) -> int:
    """A convolution's factors as float32."""
    m, k = _matrix(op, graph)
    return 4 * adaptation.rank * (k + m) if isinstance(op, Conv2D) and adaptation.of(op) is not None else 0


def _biases(op: Conv2D | Dense, graph: Graph, adaptation: Adaptation) -> int:
    """A convolution's biases with what the adapter adds, of two positions."""
    return 8 * _matrix(op, graph)[0] if isinstance(op, Conv2D) and adaptation.of(op) is not None else 0


def align4(nbytes: int) -> int:
    return -(-nbytes // 4) * 4


def _matrix(op: Conv2D | Dense, graph: Graph) -> tuple[int, int]:
    weights = graph.tensors[op.weights]
    return weights.shape[0], weights.elements // weights.shape[0]


def plan(
    graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, *, gradients_in_arena: bool = False,
    depth_first: bool = True, cut_at: int = 0, place: bool = True, known: stripes.Schedules | None = None,
    numerics: str = "f32",
) -> MemoryPlan:  # fmt: skip
    """Lifetimes, then offsets. Equal inputs give equal plans.

    Without ``place`` offsets are left out and the arena is given as its lower bound, which is quick. ``known`` is kept
    by the caller of several plans of one graph (:func:`stripes.choose`).

    ``gradients_in_arena`` gives the factors' gradients memory from their layer's backward step to the end only, which
    serves batches of one sample. ``depth_first`` may run stretches of the frozen part row by row (stripes.py), none of
    them across step ``cut_at``, where the prefix ends. A
    depthwise backward pass in place takes more instructions, so it is used only where it makes the arena smaller.
    """
    best: MemoryPlan | None = None
    known = {} if known is None else known
    for slow_pairs in (False, True):
        memory = _lifetimes(graph, split, backward, adaptation, gradients_in_arena, slow_pairs, numerics)
        if slow_pairs and not any(isinstance(b.op, Depthwise) and b.into for b in backward):
            break
        if depth_first:
            stripes.choose(memory, graph, _frozen(split, backward), {split.logits, graph.output}, cut_at, known)
        if best is None or memory.lower_bound < best.lower_bound:
            memory.arena_bytes = bound = memory.lower_bound
            if place:
                memory.arena_bytes = placement.place(memory.buffers, memory.pairs, bound)
            memory.gradient_offset = min((b.offset for b in memory.factors.values()), default=0)
            if best is None or memory.arena_bytes < best.arena_bytes:
                best = memory
    assert best is not None
    return best


def _frozen(split: Split, backward: list[BackwardOp]) -> list[Op]:
    """The operators in front of the first adapted layer."""
    first = next((n for n, op in enumerate(split.forward) if backward and op is backward[-1].op), len(split.forward))
    return split.forward[:first]


def _lifetimes(
    graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, gradients_in_arena: bool,
    slow_pairs: bool, numerics: str,
) -> MemoryPlan:  # fmt: skip
    loss_at = len(split.forward) + len(split.tail)
    steps = [f"{op.index} {op.KIND}" for op in (*split.forward, *split.tail)] + ["loss"]
    memory = MemoryPlan(steps + [f"{b.op.index} {b.op.KIND} backward" for b in backward])
    roots = views(graph)
    _states(memory, graph, roots)
    _activations(memory, graph, split, backward, adaptation, roots, loss_at)
    _gradients(memory, graph, split, backward, roots, loss_at)
    if gradients_in_arena and backward:
        _factor_gradients(memory, backward, adaptation, loss_at)
    _pairs(memory, graph, split, backward, roots, slow_pairs)
    _scratch(memory, graph, split, backward, adaptation, loss_at, numerics)
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
    memory.shared = {b.into[0] for b in backward if _spreads(b, graph, split, backward, roots)}
    made: dict[int, Buffer] = {}
    for root, used in spans.items():
        tensor = graph.tensors[root]
        count = tensor.shape[-1] if root in memory.shared else tensor.elements
        made[root] = Buffer(tensor.name, "gradient", align(4 * count), min(used), max(used))
        if min(used) > loss_at and root not in memory.shared:
            memory.opens[min(used)].append(made[root])
    memory.buffers += made.values()
    memory.gradient = {i: made[root] for i, root in roots.items() if root in made}


def _spreads(b: BackwardOp, graph: Graph, split: Split, backward: list[BackwardOp], roots: dict[int, int]) -> bool:
    """``b`` gives all positions of its input the same gradient, nothing else adds to that, a convolution takes it."""
    whole = (isinstance(b.op, Mean) and b.op.split(graph)[0] == 1) or (
        isinstance(b.op, AveragePool) and b.op.whole(graph)
    )
    if not (whole and b.into):
        return False
    x = b.into[0]
    users = sum(roots[i] == roots[x] for other in backward for i in other.into)
    views = sum(root == roots[x] for root in roots.values())
    channels = graph.tensors[x].shape[-1] == graph.tensors[b.op.output].elements
    return users == views == 1 and channels and x != split.logits and isinstance(graph.producer(x), Conv2D)


def _factor_gradients(memory: MemoryPlan, backward: list[BackwardOp], adaptation: Adaptation, loss_at: int) -> None:
    """They are one array from the arena's start, each part in use from its layer's backward step on."""
    memory.gradients_in_arena = True
    for j, b in enumerate(backward):
        layer = adaptation.of(b.op)
        if layer is not None:
            size = 4 * adaptation.rank * (layer.m + layer.k)
            part = Buffer(f"gradients of {layer.name}", "factor gradient", size, loss_at + 1 + j,
                          len(memory.steps) - 1, 4 * layer.a_offset, fixed=True)  # fmt: skip
            memory.factors[loss_at + 1 + j] = part
    memory.buffers += memory.factors.values()


def _pairs(
    memory: MemoryPlan, graph: Graph, split: Split, backward: list[BackwardOp], roots: dict[int, int], slow: bool
) -> None:
    """Buffers that may follow one another in one place, because the kernel between them may work in place."""

    def pair(old: Buffer | None, new: Buffer | None, step: int) -> None:
        if old and new and old is not new and old.end == new.start == step:
            memory.pairs.append((old, new))

    for step, op in enumerate((*split.forward, *split.tail)):
        for i in op.in_place(graph):
            pair(memory.activation.get(i), memory.activation.get(op.output), step)
    loss_at = len(split.forward) + len(split.tail)
    for j, b in enumerate(backward):
        old = memory.gradient.get(b.op.output)
        allowed = set(b.op.gradient_in_place(graph)) | (set(b.into) & memory.shared)
        if (isinstance(b.op, Depthwise) and not slow) or b.op.output in memory.shared:
            allowed &= memory.shared
        for i in b.into:
            alone = sum(roots[i] == roots[other] for other in b.into) == 1
            if i in allowed and alone:
                pair(old, memory.gradient[i], loss_at + 1 + j)


def _scratch(
    memory: MemoryPlan, graph: Graph, split: Split, backward: list[BackwardOp], adaptation: Adaptation, loss_at: int,
    numerics: str,
) -> None:  # fmt: skip
    sizes = [forward_scratch(op, graph, adaptation, numerics) for op in (*split.forward, *split.tail)] + [0]
    sizes += [
        _backward_scratch_in(memory, b, graph, adaptation, loss_at + 1 + j, numerics) for j, b in enumerate(backward)
    ]
    for step, nbytes in enumerate(sizes):
        if nbytes:
            memory.scratch[step] = Buffer(memory.steps[step], "scratch", align(nbytes), step, step)
    memory.buffers += memory.scratch.values()


def _backward_scratch_in(
    memory: MemoryPlan, b: BackwardOp, graph: Graph, adaptation: Adaptation, step: int, numerics: str
) -> int:  # fmt: skip
    """What this plan asks of the kernel beside its usual scratch: a row of a shared gradient, a block in place."""
    y = graph.tensors[b.op.output]
    nbytes = backward_scratch(b, graph, adaptation, numerics)
    if b.op.output in memory.shared:
        nbytes += 4 * y.shape[-1]
    if isinstance(b.op, Depthwise) and any(new.start == step and new.role == "gradient" for _, new in memory.pairs):
        nbytes += 4 * DEPTHWISE_BLOCK * y.shape[1] * y.shape[2]
    return nbytes

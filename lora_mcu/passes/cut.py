# SPDX-License-Identifier: Apache-2.0
"""Where the frozen prefix ends: what runs before it gives the same values in every epoch, so a store may keep them.

The idea of Skip2-LoRA (arXiv 2410.21073): cache the forward activations that no trained factor changes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lora_mcu.errors import ModelError
from lora_mcu.ir import Graph, Op
from lora_mcu.passes.adapters import Adaptation
from lora_mcu.passes.estimate import LayerCost
from lora_mcu.passes.tail import Split
from lora_mcu.passes.views import views

CACHES = ("auto", "on", "off")
_WORTH = 0.9  # a cut that stores less may give up this share's rest of what the latest cut skips


@dataclass(frozen=True)
class Cut:
    """``split.forward[:at]`` is the prefix; ``tensors`` are all that it hands on, ``nbytes`` their padded size.

    ``cached``: the store keeps these tensors instead of the input. ``skipped`` estimates the prefix's instructions.
    """

    at: int
    tensors: tuple[int, ...]
    nbytes: int
    skipped: int
    cached: bool = False


def choose(graph: Graph, split: Split, adaptation: Adaptation, costs: list[LayerCost], cache: str) -> Cut:
    """The cut with the fewest bytes among those before the first adapted layer that skip nearly all that can be.

    ``costs`` are of ``split.forward``. ``auto`` caches where that takes no more memory than the input does. Raises
    ModelError where ``cache`` is on and nothing runs before the first adapted layer, or the model has state.
    """
    if cache not in CACHES:
        raise ModelError(f"cache {cache!r} is unknown; use one of {', '.join(CACHES)}")
    if graph.states:
        if cache == "on":
            raise ModelError("cache 'on': a streaming model's samples are not stored, so nothing is cached; use 'auto'")
        return _cuts(graph, split, costs, 0)[0]
    first = next((i for i, op in enumerate(split.forward) if adaptation.of(op) is not None), 0)
    whole, *worth = _cuts(graph, split, costs, first)
    best = min(worth, key=lambda c: (c.nbytes, -c.at))
    if cache == "on" and not best.skipped:
        reason = f"the first adapted layer, {adaptation.layers[0].name}, reads the model's input" if adaptation.layers \
            else "no layer is adapted"  # fmt: skip
        raise ModelError(f"cache 'on': {reason}, so no features come before it; adapt later layers or use cache='auto'")
    wanted = cache == "on" or (cache == "auto" and best.nbytes <= whole.nbytes)
    return Cut(best.at, best.tensors, best.nbytes, best.skipped, wanted and best.skipped > 0)


def _cuts(graph: Graph, split: Split, costs: list[LayerCost], last: int) -> list[Cut]:
    """The cut at 0, then those up to ``last`` that are worth it. A tensor crosses a cut if it is made before it and
    read behind it."""
    roots = views(graph)
    made = {roots[graph.input]: 0}
    read: dict[int, int] = {}
    for k, op in enumerate(split.forward):
        for i in op.outputs:
            made.setdefault(roots[i], k + 1)
        read |= {roots[i]: k for i in _reads(graph, op)}
    read[roots[split.logits]] = len(split.forward)
    padded = {root: -(-graph.tensors[root].nbytes // 4) * 4 for root in made}
    skipped = [0, *itertools.accumulate(cost.instructions_forward for cost in costs[:last])]
    out = []
    for p in [0, *(p for p in range(last + 1) if skipped[p] >= _WORTH * skipped[last])]:
        crossing = tuple(sorted(root for root, k in made.items() if k <= p <= read.get(root, -1)))
        out.append(Cut(p, crossing, sum(padded[root] for root in crossing), skipped[p]))
    return out


def _reads(graph: Graph, op: Op) -> list[int]:
    return [i for i in op.inputs if graph.tensors[i].data is None]

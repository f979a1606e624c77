# SPDX-License-Identifier: Apache-2.0
"""Passes: where training ends, which layers, what is differentiated, and a memory plan without a clash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.mobile_model import mobile_classifier
from conformance.tflite_builder import Builder

from lora_mcu.codegen import cdata, rounding
from lora_mcu.errors import ModelError
from lora_mcu.importer import load, loads
from lora_mcu.ir import Graph, Reshape
from lora_mcu.passes import adapters, gradient, memory, normalize, tail

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"


def residual_model() -> bytes:
    """x [1, 4, 4, 2] -> conv a -> conv b -> ADD(a, b) -> dense [1, 3] -> softmax"""
    b = Builder()
    x = b.tensor((1, 4, 4, 2), scale=0.5)
    first, second, total = (b.tensor((1, 4, 4, 2), scale=0.5) for _ in range(3))
    w1, w2 = (b.tensor((2, 1, 1, 2), scale=0.1, data=np.ones((2, 1, 1, 2), np.int8)) for _ in range(2))
    wd = b.tensor((3, 32), scale=0.1, data=np.ones((3, 32), np.int8))
    logits, y = b.tensor((1, 3), scale=0.5), b.tensor((1, 3), scale=1 / 256, zero_point=-128)
    conv = {"options": "Conv2DOptions", "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    b.op("CONV_2D", [x, w1], [first], **conv)
    b.op("CONV_2D", [first, w2], [second], **conv)
    b.op("ADD", [first, second], [total], "AddOptions")
    b.op("FULLY_CONNECTED", [total, wd], [logits], "FullyConnectedOptions")
    b.op("SOFTMAX", [logits], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def split_model() -> bytes:
    """x [1, 6] -> dense [1, 6] -> SPLIT in 3 of [1, 2]: the first and the last are added -> dense [1, 3] -> softmax"""
    b = Builder()
    x, hidden = b.tensor((1, 6), scale=0.5), b.tensor((1, 6), scale=0.5)
    first, unread, last, total = (b.tensor((1, 2), scale=0.5) for _ in range(4))
    w1, w2 = (b.tensor(s, scale=0.1, data=np.ones(s, np.int8)) for s in ((6, 6), (3, 2)))
    logits, y = b.tensor((1, 3), scale=0.5), b.tensor((1, 3), scale=1 / 256, zero_point=-128)
    b.op("FULLY_CONNECTED", [x, w1], [hidden], "FullyConnectedOptions")
    axis = b.tensor((1,), "int32", data=[1])
    b.op("SPLIT", [axis, hidden], [first, unread, last], "SplitOptions", numSplits=3)
    b.op("ADD", [first, last], [total], "AddOptions")
    b.op("FULLY_CONNECTED", [total, w2], [logits], "FullyConnectedOptions")
    b.op("SOFTMAX", [logits], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def planned(
    graph: Graph, adapt: str, **options: bool
) -> tuple[tail.Split, list[gradient.BackwardOp], memory.MemoryPlan]:
    split = tail.split(graph)
    layout = adapters.layout(graph, adapters.select(graph, list(split.forward), adapt), 4, 8.0, False)
    backward = gradient.differentiate(graph, split, layout)
    return split, backward, memory.plan(graph, split, backward, layout, **options)


def assert_no_clash(plan: memory.MemoryPlan) -> None:
    """Buffers that are live at once lie apart, but for a pair that follows one another in place."""
    for i, a in enumerate(plan.buffers):
        assert a.offset % memory.ALIGN == 0 and a.offset >= 0 and a.offset + a.nbytes <= plan.arena_bytes
        for b in plan.buffers[:i]:
            apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
            if apart or not a.overlaps(b):
                continue
            old, new = (a, b) if a.start < b.start else (b, a)
            assert plan.is_in_place(old, new) and old.end == new.start, (a, b)


def test_softmax_is_stripped_for_training_and_kept_for_inference() -> None:
    split = tail.split(load(HAR))
    assert split.loss == "cross_entropy"
    assert [op.KIND for op in split.tail] == ["SOFTMAX"]
    assert all(op.KIND != "SOFTMAX" for op in split.forward)


def test_a_loss_that_is_unknown() -> None:
    with pytest.raises(ModelError, match="unknown"):
        tail.split(load(HAR), "hinge")


def softmax_over(shape: tuple[int, ...]) -> bytes:
    """A 1 x 1 convolution and a softmax over its channels, as FOMO's grid of cells has it."""
    b = Builder()
    x, z = b.tensor(shape, scale=0.5), b.tensor(shape, scale=0.5)
    y = b.tensor(shape, scale=1 / 256, zero_point=-128)
    w = b.tensor((shape[-1], 1, 1, shape[-1]), scale=0.1, data=np.eye(shape[-1]).reshape(shape[-1], 1, 1, -1))
    b.op("CONV_2D", [x, w], [z], "Conv2DOptions", strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    b.op("SOFTMAX", [z], [y], "SoftmaxOptions", beta=1.0)
    return b.build([x], [y])


def test_a_softmax_of_several_rows_trains_on_mse_through_it() -> None:
    """No label names one class of many cells: targets are the probabilities."""
    split = tail.split(loads(softmax_over((1, 3, 2, 4))))
    assert (split.loss, [op.KIND for op in split.forward], split.tail) == ("mse", ["CONV_2D", "SOFTMAX"], [])
    split = tail.split(load(HAR), "mse")
    assert split.loss == "mse" and split.forward[-1].KIND == "SOFTMAX" and not split.tail
    with pytest.raises(ModelError, match="cross_entropy needs one row"):
        tail.split(loads(softmax_over((1, 3, 2, 4))), "cross_entropy")


@pytest.mark.parametrize(("shape", "expected"), [((1, 4), "mse"), ((1, 1), "mse"), ((1, 3), "cross_entropy")])
def test_auto_loss(shape: tuple[int, int], expected: str) -> None:
    b = Builder()
    x, y = b.tensor((1, 4), scale=0.5), b.tensor(shape, scale=0.5)
    w = b.tensor((shape[1], 4), scale=0.1, data=np.ones((shape[1], 4), np.int8))
    b.op("FULLY_CONNECTED", [x, w], [y], "FullyConnectedOptions")
    assert tail.split(loads(b.build([x], [y]))).loss == expected


def test_choices_of_layers() -> None:
    graph = load(HAR)
    live = list(tail.split(graph).forward)
    names = list(graph.layer_names().values())
    assert adapters.select(graph, live, "all") == names
    assert adapters.select(graph, live, "last:2") == names[-2:]
    assert adapters.select(graph, live, "none") == []
    assert adapters.select(graph, live, f"{names[2]}, {names[0]}") == [names[0], names[2]]
    assert adapters.select(graph, live, "auto") == names
    for wrong, message in (
        ("last:9", "use last:1 to last:4"),
        ("har_1_convl", "near: .*har_1_conv1_1_Relu"),
        ("*convl*", "no layer .*convl"),
        (f"{names[0]},", "no layer ''"),
        ("last:0", "last:1"),
    ):
        with pytest.raises(ModelError, match=message):
            adapters.select(graph, live, wrong)


def test_layers_are_chosen_by_pattern() -> None:
    names = ["net_conv2d_1_conv", "net_mha_key_1_MatMul", "net_mha_Query_1_MatMul", "net_mha_value_1_MatMul", "q"]
    assert adapters.matching("q", names) == ["q"], "an exact name is that layer alone"
    assert adapters.matching("q", names[:4]) == ["net_mha_Query_1_MatMul"]
    assert adapters.matching("V", names) == ["net_mha_value_1_MatMul"], "conv does not begin with v"
    assert adapters.matching("mha", names) == names[1:4]
    assert adapters.matching("key_1", names) == ["net_mha_key_1_MatMul"]
    assert adapters.matching("2d", names) == ["net_conv2d_1_conv"], "nothing begins so: anywhere inside"
    assert adapters.matching("*_[kq]*_matmul", names) == names[1:3]
    assert adapters.matching("keys", names) == adapters.matching("", names) == []


def test_layout_is_layers_in_operator_order_a_then_b() -> None:
    graph = load(HAR)
    layout = adapters.layout(graph, list(graph.layer_names().values()), 4, 8.0, False)
    at = 0
    for layer in layout.layers:
        assert (layer.a_offset, layer.b_offset) == (at, at + 4 * layer.k)
        at += 4 * (layer.k + layer.m)
    assert at == layout.parameters == 2008
    assert layout.gamma == 2.0
    assert adapters.layout(graph, [], 4, 8.0, True).gamma == 4.0
    for rank, alpha in ((0, 8.0), (65, 8.0), (4, 0.0), (4, float("nan")), (4, 1e9)):
        with pytest.raises(ModelError, match="rank|alpha"):
            adapters.layout(graph, [], rank, alpha, False)


def test_backward_stops_at_the_first_adapted_layer() -> None:
    graph = load(HAR)
    _, all_layers, _ = planned(graph, "all")
    _, last, _ = planned(graph, "last:1")
    assert [b.op.KIND for b in last] == ["FULLY_CONNECTED"] and last[0].into == ()
    assert [b.op.KIND for b in all_layers] == ["FULLY_CONNECTED", "MEAN", "CONV_2D", "CONV_2D", "CONV_2D"]
    assert all_layers[-1].into == () and all(b.into for b in all_layers[:-1])


def test_a_residual_gets_both_contributions_into_one_gradient() -> None:
    graph = loads(residual_model())
    _, backward, plan = planned(graph, "all")
    add = next(b for b in backward if b.op.KIND == "ADD")
    assert len(add.into) == 2
    first = graph.ops[0].output
    users = [b for b in backward if first in b.into]
    assert [b.op.KIND for b in users] == ["ADD", "CONV_2D"]
    opened = [buffer for buffers in plan.opens.values() for buffer in buffers]
    assert opened.count(plan.gradient[first]) == 1


def test_an_operator_with_several_outputs_has_memory_and_gradients_for_those_that_are_read() -> None:
    graph = loads(split_model())
    split, backward, plan = planned(graph, "all")
    op = graph.ops[1]
    first, unread, last = op.outputs
    assert [b.op.KIND for b in backward] == ["FULLY_CONNECTED", "ADD", "SPLIT", "FULLY_CONNECTED"]
    assert backward[2].into == (op.inputs[0],)
    assert unread not in plan.activation and unread not in plan.gradient
    step = len(split.forward) + len(split.tail) + 1 + 2
    for tensor in (first, last):
        assert plan.activation[tensor].start == 1 and plan.activation[tensor].end >= 2
        assert plan.gradient[tensor].start == step - 1 and plan.gradient[tensor].end == step
    assert plan.gradient[op.inputs[0]].start == step


def test_nothing_behind_the_last_adapted_layer_is_differentiated_through_a_split() -> None:
    _, backward, plan = planned(loads(split_model()), "last:1")
    assert [b.op.KIND for b in backward] == ["FULLY_CONNECTED"] and backward[0].into == ()
    assert len(plan.gradient) == 1


@pytest.mark.parametrize("adapt", ["all", "last:1", "none"])
@pytest.mark.parametrize("source", ["har", "residual", "split"])
def test_no_two_live_buffers_share_memory_and_the_bound_is_met(source: str, adapt: str) -> None:
    made = {"residual": residual_model, "split": split_model}
    graph = normalize.normalize(loads(made[source]()) if source in made else load(HAR))
    _, _, plan = planned(graph, adapt)
    assert_no_clash(plan)
    assert plan.arena_bytes <= 1.05 * plan.lower_bound


def test_everything_that_backward_reads_is_still_there() -> None:
    graph = loads(residual_model())
    split, backward, plan = planned(graph, "all")
    loss_at = len(split.forward) + len(split.tail)
    for j, b in enumerate(backward):
        step = loss_at + 1 + j
        for tensor in (*b.op.saved(True),):
            buffer = plan.activation[tensor]
            assert buffer.start < step <= buffer.end
        for tensor in (b.op.output, *b.into):
            assert plan.gradient[tensor].start <= step <= plan.gradient[tensor].end
    assert not any(isinstance(b.op, Reshape) for b in backward)


def test_all_real_models_plan_within_five_percent_of_the_bound(models_dir: Path) -> None:
    checked = 0
    for path in sorted(models_dir.glob("*.tflite")):
        try:
            graph = normalize.normalize(load(path))
            kinds = [("all", False), ("last:1", False), ("all", True)] if len(graph.ops) < 100 else [("all", False)]
            plans = [planned(graph, adapt, gradients_in_arena=shared)[2] for adapt, shared in kinds]
        except ModelError:
            continue
        for plan in plans:
            assert plan.arena_bytes <= 1.05 * plan.lower_bound, path.name
            assert_no_clash(plan)
        checked += 1
    assert checked >= 8


@pytest.mark.parametrize("depth_first", [True, False])
@pytest.mark.parametrize("in_arena", [True, False])
@pytest.mark.parametrize("adapt", ["all", "last:2", "none"])
def test_made_model_plans_within_five_percent_of_the_bound(adapt: str, in_arena: bool, depth_first: bool) -> None:
    graph = normalize.normalize(loads(mobile_classifier()))
    _, _, plan = planned(graph, adapt, gradients_in_arena=in_arena, depth_first=depth_first)
    assert plan.lower_bound <= plan.arena_bytes <= 1.05 * plan.lower_bound
    assert_no_clash(plan)
    assert bool(plan.stripes) == (depth_first and adapt != "all")


def test_an_average_s_gradient_is_kept_once_for_all_positions() -> None:
    graph = normalize.normalize(loads(mobile_classifier()))
    _, backward, plan = planned(graph, "last:2")
    conv = next(b.op for b in backward if b.op.KIND == "CONV_2D")
    assert plan.shared == {conv.output}
    assert plan.gradient[conv.output].nbytes == 4 * 32, "one row, not 6 * 4 of them"


def test_a_sum_and_its_operand_have_one_gradient_buffer() -> None:
    graph = loads(residual_model())
    _, _, plan = planned(graph, "all")
    first, second, total = (graph.ops[i].output for i in range(3))
    new = [plan.gradient[i] for i in (first, second) if plan.is_in_place(plan.gradient[total], plan.gradient[i])]
    assert len(new) == 1


def test_gradients_of_factors_live_from_their_layer_to_the_end() -> None:
    graph = load(HAR)
    split, backward, plan = planned(graph, "all", gradients_in_arena=True)
    parts = sorted(plan.factors.items())
    assert [step for step, _ in parts] == [
        len(split.forward) + len(split.tail) + 1 + j
        for j, b in enumerate(backward)
        if b.op.KIND in ("CONV_2D", "FULLY_CONNECTED")
    ]
    assert all(part.end == len(plan.steps) - 1 for _, part in parts)
    assert sum(part.nbytes for _, part in parts) == 4 * 2008
    assert min(part.offset for _, part in parts) == plan.gradient_offset
    assert len({part.offset for _, part in parts}) == len(parts)


@pytest.mark.parametrize("seed", range(20))
def test_the_integer_multiplier_equals_the_double_rule_at_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = (
        float(np.float32(rng.uniform(1e-3, 1)))
        * float(np.float32(rng.uniform(1e-4, 1)))
        / float(np.float32(rng.uniform(1e-2, 2)))
    )
    multiplier, shift = rounding.multiplier(m)
    assert multiplier < 2**62 and 33 <= shift <= 95
    for n, t in enumerate(rounding.thresholds(m).tolist(), 1):
        for acc in (t - 1, t):
            expected = int(np.floor(acc * m + 0.5)) if (acc * m) % 1 != 0.5 else int(acc * m + 0.5)
            assert (acc * multiplier + (1 << (shift - 1))) >> shift == expected
        assert (
            (t * multiplier + (1 << (shift - 1))) >> shift >= n > ((t - 1) * multiplier + (1 << (shift - 1))) >> shift
        )


@pytest.mark.parametrize("seed", range(20))
def test_the_quick_multiplier_equals_the_double_rule(seed: int) -> None:
    """At every threshold, on both sides of it and of 0, and at the ends; powers of two, whose ties are exact, too."""
    rng = np.random.default_rng(seed)
    ratios = [*2.0 ** rng.uniform(-14, -2, 20), *2.0 ** rng.integers(-14, -2, 10), *2.0 ** rng.uniform(-30, -14, 20)]
    limits = [2**31 - 1] * 30 + [2**24] * 20
    found = [(float(m), limit, rounding.quick(float(m), limit)) for m, limit in zip(ratios, limits, strict=True)]
    assert all(pair for _, _, pair in found[:30])  # of finer ones 31 bits may not tell all thresholds apart
    assert any(pair for _, _, pair in found[30:])
    for m, limit, pair in found:
        if pair is None:
            continue
        multiplier, shift = pair
        assert 0 < multiplier < 2**31 and 0 <= shift <= 20
        t = rounding.thresholds(m)
        t = t[t < limit]
        acc = np.concatenate([t - 1, t, rng.integers(0, limit, 50), [0, limit]])
        wanted = rounding.definition(acc.astype(np.float64), m)
        for sign in (1, -1):
            value = (((sign * acc * multiplier) >> (32 + shift)) + 1) >> 1
            assert np.array_equal(np.clip(value, -255, 255), np.clip(sign * wanted, -255, 255)), (m, multiplier, shift)


@pytest.mark.parametrize("m", [0.25, 1.0, 2.0**19])
def test_a_coarse_scale_has_no_quick_multiplier(m: float) -> None:
    assert rounding.quick(m) is None


@pytest.mark.parametrize("m", [0.0, -1.0, float("nan"), float("inf"), 2.0**30])
def test_scales_that_no_multiplier_serves(m: float) -> None:
    with pytest.raises(ModelError, match="rescales by"):
        rounding.multiplier(m)


@pytest.mark.parametrize(
    ("fields", "on32", "on64"),
    [("i", 4, 4), ("ip", 8, 16), ("ppi", 12, 24), (["iii", "p"], 16, 24), ([["ip"], "i"], 12, 24)],
)
def test_struct_sizes(fields: cdata.Fields, on32: int, on64: int) -> None:
    assert (cdata.sizeof(fields, 4), cdata.sizeof(fields, 8)) == (on32, on64)

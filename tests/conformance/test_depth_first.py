# SPDX-License-Identifier: Apache-2.0
"""Row by row or map by map: the same outputs as LiteRT, the same adapter bytes, less memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.mobile_model import SHAPE, mobile_classifier
from conformance.oracle import Oracle, differing

import lora_mcu
from lora_mcu.ir import Graph
from lora_mcu.passes import stripes

_RNG = np.random.default_rng(3)
X = np.clip(_RNG.normal(0, 40, (60, *SHAPE)) + _RNG.uniform(-90, 90, (60, 1, 1, 3)), -128, 127).astype(np.int8)
Y = np.random.default_rng(4).integers(0, 5, 60)


def _program(path: Path, **options: object) -> lora_mcu.Program:
    return lora_mcu.compile(path, board="native", adapt="last:2", **options)


def _trained(program: lora_mcu.Program) -> bytes:
    twin = program.twin()
    twin.configure(lr=0.2, batch_size=1, seed=1)
    twin.train(X[:20], Y[:20])
    adapter = twin._read_factors()
    assert adapter.count(0) < len(adapter) // 4  # B has left 0
    return adapter


@pytest.fixture(scope="module", params=["MEAN", "AVERAGE_POOL_2D"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mobile") / "mobile.tflite"
    file.write_bytes(mobile_classifier(request.param))
    return file


def test_saves_memory_and_changes_no_byte(path: Path) -> None:
    rows, maps = _program(path), _program(path, depth_first=False)
    assert rows.plan.stripes and not maps.plan.stripes
    assert rows.plan.arena_bytes < 0.75 * maps.plan.arena_bytes
    want = Oracle(path).infer(X)
    assert len(np.unique(want)) > 20
    assert differing(rows.twin().infer(X), want) == differing(maps.twin().infer(X), want) == 0
    assert _trained(rows) == _trained(maps)


def test_gradients_in_the_arena_are_the_same(path: Path) -> None:
    plain, lean = _program(path), _program(path, max_batch=1, momentum=False)
    assert "lmcu_gradients" not in lean.report().sram and "lmcu_momentum" not in lean.report().sram
    assert lean.report().training_sram_bytes < plain.report().training_sram_bytes
    assert _trained(plain) == _trained(lean)


@pytest.mark.parametrize("run", [(0, 1), (0, 7), (1, 12), (2, 9), (3, 6), (5, 8), (8, 13), (11, 13), (0, 13)])
def test_any_run_of_operators_equals_the_oracle(
    path: Path, run: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner's choice left aside, so that each operator is first, last and in the middle."""

    def forced(search: stripes._Search) -> None:
        first, last = run
        assert run in set(search._runs(first)) | set(search._runs(last)), "not a run that may be chosen"
        search.chosen = [(*run, stripes.schedule(search.graph, search.ops[first : last + 1]))]
        search._apply()

    monkeypatch.setattr(stripes._Search, "run", forced)
    program = _program(path)
    assert [(s.first, s.last) for s in program.plan.stripes] == [run]
    assert differing(program.twin().infer(X[:20]), Oracle(path).infer(X[:20])) == 0


def test_schedule_has_every_row_in_its_window_when_it_is_read(path: Path) -> None:
    graph: Graph = lora_mcu.compile(path, board="native", adapt="none").graph
    ops = graph.ops[:14]
    made = stripes.schedule(graph, ops)
    index = {op.output: k for k, op in enumerate(ops)}
    first, end = [0] * len(ops), [0] * len(ops)
    for k, drop in made.order:
        first[k] += drop
        assert end[k] + 1 - first[k] <= made.windows[k]
        for tensor in ops[k].data_inputs():
            if tensor in index:
                source, size = index[tensor], stripes.height(graph, tensor)
                lowest, highest = stripes._input_rows(ops[k], end[k], size)
                assert first[source] <= lowest or lowest == highest
                assert highest <= end[source]
        end[k] += 1
    assert end == [stripes.height(graph, op.output) for op in ops]
    assert sum(n * stripes.row_bytes(graph, op.output) for n, op in zip(made.windows[:-1], ops, strict=False)) < sum(
        graph.tensors[op.output].nbytes for op in ops[:-1]
    )

# SPDX-License-Identifier: Apache-2.0
"""compile(), its report and its files: known before any C compiler runs, equal for equal inputs, written whole."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance.tflite_builder import Builder

import lora_mcu
from lora_mcu import boards
from lora_mcu.errors import BoardError
from lora_mcu.info import ModelInfo
from lora_mcu.passes import auto
from lora_mcu.random_bits import initial_a, rand

HAR = Path(__file__).resolve().parents[2] / "examples" / "har" / "har.tflite"


def test_the_report_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    report = lora_mcu.compile(HAR, board="netduinoplus2").report()
    assert report.sram_bytes <= 128 * 1024
    assert report.training_sram_bytes <= 48 * 1024
    assert report.sram["lmcu_factors"] == 2 * 2008
    assert report.constants["lmcu_op1_w"] == 32 * 8 * 6
    whole = json.loads(json.dumps(report.to_dict()))
    assert whole["sram_bytes"] == sum(whole["sram"].values())
    assert whole["note"].startswith("auto: all 4 layers at rank 4, ")
    assert {layer["kind"] for layer in whole["layers"]} >= {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"}


def test_saved_bytes_are_the_outputs_that_backward_reads() -> None:
    def saved(adapt: str) -> dict[str, int]:
        report = lora_mcu.compile(HAR, board="netduinoplus2", adapt=adapt).report()
        return {layer.kind + str(layer.index): layer.saved_bytes for layer in report.layers}

    maps = {"RESHAPE0": 0, "CONV_2D1": 16 * 32, "CONV_2D2": 14 * 24, "CONV_2D3": 6 * 32}
    assert {name: nbytes for name, nbytes in saved("all").items() if name in maps} == maps
    assert sum(saved("none").values()) == 0
    last = saved("last:1")
    assert last["CONV_2D3"] == last["CONV_2D2"] == 0 and last["MEAN4"] == 64


def test_equal_inputs_give_equal_projects_and_the_seed_matters() -> None:
    one, two = (lora_mcu.compile(HAR, board="netduinoplus2", seed=1).files() for _ in range(2))
    other = lora_mcu.compile(HAR, board="netduinoplus2", seed=2).files()
    assert one == two
    assert [name for name in one if one[name] != other[name]] == ["src/model.c"]


def test_the_store_fills_what_is_left() -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1", cache="off")
    info, report = program.info, program.report()
    assert report.sram_bytes <= 131072 < report.sram_bytes + info.record_bytes + 2 + 16
    assert info.record_bytes == 128 * 6 + 4


def test_regions_hold_what_the_report_says() -> None:
    """Stored samples get the largest region; a model that fits no single region may fit two."""
    report = lora_mcu.compile(HAR, board="feather_stm32f405", adapt="all").report()
    main, ccm = report.regions
    assert {"lmcu_stack", "lmcu_rx_ring", "lmcu_store"} <= set(main["symbols"])
    assert {"lmcu_arena", "lmcu_gradients"} <= set(ccm["symbols"])
    assert {**main["symbols"], **ccm["symbols"]} == report.sram
    assert all(region["used"] == sum(region["symbols"].values()) <= region["bytes"] for region in report.regions)
    assert report.sram_bytes > 128 * 1024 > main["used"] - main["symbols"]["lmcu_store"]


def test_a_limit_of_sram_takes_the_first_regions() -> None:
    report = lora_mcu.compile(HAR, board="feather_stm32f405", adapt="all", sram=140_000).report()
    assert [(r["name"], r["bytes"]) for r in report.regions] == [("sram", 131_072), ("ccm", 8928)]
    report = lora_mcu.compile(HAR, board="feather_stm32f405", adapt="all", sram=100_000).report()
    assert [(r["name"], r["bytes"]) for r in report.regions] == [("sram", 100_000)]


def test_an_array_larger_than_any_region_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    board = boards.load("feather_stm32f405")
    sizes = {"sram": 10_000, "ccm": 31_088}
    small = replace(board, memory=tuple(replace(m, size=sizes.get(m.name, m.size)) for m in board.memory))
    monkeypatch.setattr(boards, "load", lambda name: small)
    with pytest.raises(BoardError, match=r"in one piece \(lmcu_\w+\), and the regions of feather_stm32f405"):
        lora_mcu.compile(HAR, board="feather_stm32f405", adapt="all")


def test_weights_lie_where_the_board_says_if_they_fit() -> None:
    def where(**arguments: object) -> tuple[bool, str]:
        program = lora_mcu.compile(HAR, **arguments)  # type: ignore[arg-type]
        return "lmcu_weights" in program.report().sram, program.report().note

    assert where(board="netduinoplus2") == (False, where(board="netduinoplus2", weights="flash")[1])
    own = where(board="nucleo_h743zi")
    assert own[0] and "the weights of adapted layers lie in SRAM, 17,120 bytes" in own[1]
    assert not where(board="nucleo_h743zi", weights="flash")[0]
    short = where(board="nucleo_h743zi", sram=40_000)
    assert not short[0] and "all weights lie in flash: for those of adapted layers " in short[1]


def test_info_survives_the_firmware() -> None:
    info = lora_mcu.compile(HAR, board="native").info
    assert ModelInfo.from_json(info.to_json()) == info
    assert info.input.shape == (128, 6) and info.input.dtype == "int8" and info.output.shape == (6,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"board": "netduino"}, lora_mcu.BoardError, "netduinoplus2"),
        ({"board": "netduinoplus2", "rank": 0}, lora_mcu.ModelError, "rank 0 is outside 1..64"),
        ({"board": "netduinoplus2", "numerics": "f16"}, lora_mcu.ModelError, "numerics"),
        ({"board": "netduinoplus2", "seed": -1}, lora_mcu.ModelError, "seed -1"),
        (
            {"board": "netduinoplus2", "adapt": "all", "rank": 64},
            lora_mcu.BoardError,
            "more than the 131072 of netduinoplus2",
        ),
        (
            {"board": "netduinoplus2", "adapt": "all", "max_step_macs": 100_000},
            lora_mcu.ModelError,
            "185,608 a step with 4 adapted layers at rank 4; adapt='auto' picks",
        ),
        ({"board": "netduinoplus2", "max_step_macs": 10}, lora_mcu.ModelError, "the forward pass is part of it"),
        (
            {"board": "netduinoplus2", "sram": 11_000},
            lora_mcu.BoardError,
            "one layer does not fit: choose a board",
        ),
        ({"board": "netduinoplus2", "rank": 65}, lora_mcu.ModelError, "rank 65 is outside 1..64"),
        ({"board": "netduinoplus2", "loss": "hinge"}, lora_mcu.ModelError, "cross_entropy, mse"),
    ],
)
def test_refusals(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        lora_mcu.compile(HAR, **arguments)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_exist() -> None:
    with pytest.raises(lora_mcu.ModelError, match="cannot read missing.tflite"):
        lora_mcu.compile("missing.tflite", board="native")


def test_auto_takes_the_largest_set_that_fits_and_says_so(models_dir: Path) -> None:
    model = models_dir / "mlperf_pretrainedResnet_quant.tflite"
    report = lora_mcu.compile(model, board="netduinoplus2").report()
    assert 0 < len(report.adapt) < 10
    macs = report.to_dict()["macs_step"]
    took = f"{report.training_sram_bytes:,} bytes and {macs:,} MACs a step"
    assert report.note.startswith(f"auto: last:{len(report.adapt)} of 10 layers at rank {report.rank}, {took}; ")
    assert report.note.endswith(" bytes too many")
    named = re.search("; (.*) too at rank 2: ([0-9,]+) bytes and ", report.note)
    with pytest.raises(lora_mcu.BoardError) as refused:  # what the note says of the next larger choice is true
        adapt = ",".join([named[1], *report.adapt])
        lora_mcu.compile(model, board="netduinoplus2", adapt=adapt, rank=2)
    assert f"needs {named[2].replace(',', '')} bytes of SRAM" in str(refused.value)


@pytest.mark.parametrize("name", ["mlperf_vww_96_int8", "tinymaix_mbnet128_025_q"])
def test_mobilenets_train_within_128_kb(name: str, models_dir: Path) -> None:
    """In mode f32, which takes the least memory: mode i16 keeps 2 bytes more a parameter."""
    lean = {"max_batch": 1, "momentum": False, "numerics": "f32"}
    program = lora_mcu.compile(models_dir / f"{name}.tflite", board="netduinoplus2", **lean)
    report = program.report()
    assert report.sram_bytes <= 128 * 1024 and len(report.adapt) >= 4
    whole = {"depth_first": False, "adapt": ",".join(report.adapt), "rank": report.rank}
    host = lora_mcu.compile(models_dir / f"{name}.tflite", board="native", **lean, **whole)
    assert report.sram["lmcu_arena"] <= host.report().sram["lmcu_arena"]


@pytest.mark.parametrize(
    ("limits", "layers", "rank"),
    [
        ({}, 4, 4),
        ({"sram": 36_000}, 4, 3),
        ({"sram": 25_000}, 3, 2),
        ({"rank": 1, "sram": 25_000}, 4, 1),
        ({"max_step_macs": 170_000}, 4, 2),
        ({"max_step_macs": 90_000}, 2, 2),
    ],
)
def test_auto_takes_layers_before_rank_within_its_limits(limits: dict[str, int], layers: int, rank: int) -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2", **limits)
    report = program.report()
    assert (len(report.adapt), report.rank) == (layers, rank), report.note
    assert report.sram_bytes <= limits.get("sram", 131_072)
    assert report.to_dict()["macs_step"] <= limits.get("max_step_macs", report.to_dict()["macs_step"])
    assert f"at rank {rank}, {report.training_sram_bytes:,} bytes" in report.note


def test_auto_may_leave_a_layer_out_and_go_on_behind_it() -> None:
    sizes = {"first": 10, "middle": 60, "point": 20, "kernel": 50, "last": 10}

    def needs(names: tuple[str, ...], rank: int) -> auto.Need:
        return auto.Need(sum(sizes[n] for n in names) * rank, len(names))

    def choose(sram: int, rank: int | None = None, light: tuple[str, ...] = tuple(sizes)) -> auto.Choice:
        return auto.Search(list(sizes), set(light), rank, needs, auto.Need(sram, 10)).run()

    assert choose(600).names == tuple(sizes) and choose(600).rank == 4 and choose(600).later.rank == 8
    assert (choose(580).names, choose(580).rank) == (tuple(sizes), 3)
    assert (choose(80).names, choose(80).rank) == (("first", "point", "last"), 2)
    assert choose(80).later.names == ("first", "point", "kernel", "last")
    assert (choose(15).names, choose(15).rank) == (("last",), 1)
    assert choose(80).later.rank == 2
    assert (choose(5).names, choose(5).rank) == (("last",), 1), "nothing fits: the caller refuses"
    assert choose(95, 1, ("first", "point", "last")).names == ("first", "point", "kernel", "last")


def test_compile_of_kws_is_quick_and_without_tensorflow(models_dir: Path) -> None:
    model = models_dir / "mlperf_kws_ref_model.tflite"
    code = (
        f"import sys, lora_mcu; lora_mcu.compile({str(model)!r}, board='netduinoplus2').files(); "
        "assert 'tensorflow' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_projects_are_written_whole_and_never_over_something_else(tmp_path: Path) -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2")
    folder = program.write(tmp_path / "a" / "mine")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(program.files())
    with pytest.raises(lora_mcu.ProjectError, match="--force"):
        program.write(folder)
    (folder / "stray.txt").write_text("old")
    program.write(folder, force=True)
    assert not (folder / "stray.txt").exists()
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("do not lose")
    with pytest.raises(lora_mcu.ProjectError, match="not a project"):
        program.write(notes, force=True)
    assert (notes / "thesis.txt").read_text() == "do not lose"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "notes"]


def test_projects_are_read_back_and_damage_is_named(tmp_path: Path) -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2")
    folder = program.write(tmp_path / "mine")
    project = lora_mcu.load_project(folder)
    assert project.info == program.info and project.report == json.loads(json.dumps(program.report().to_dict()))
    with pytest.raises(lora_mcu.ProjectError, match="lora-mcu compile"):
        lora_mcu.load_project(tmp_path)
    (folder / "lora_mcu.json").write_text('{"info": []}')
    with pytest.raises(lora_mcu.ProjectError, match="damaged"):
        lora_mcu.load_project(folder)


def test_initial_a_is_kaiming_uniform_and_counter_based() -> None:
    values = initial_a(0, 0, 4096, 64).view(np.float16).astype(np.float64)
    bound = 1 / 8
    assert np.abs(values).max() <= bound and abs(values.mean()) < 0.01 * bound * 4
    assert abs(values.std() - bound / np.sqrt(3)) < 0.02 * bound
    assert np.array_equal(initial_a(0, 100, 50, 64), initial_a(0, 0, 4096, 64)[100:150])


def test_random_bits_against_the_formula_in_plain_integers() -> None:
    def mix(x: int) -> int:
        x &= 0xFFFFFFFF
        x = ((x ^ x >> 16) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ x >> 15) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ x >> 16

    for seed, stream, step in ((0, 0, 0), (7, 1, 3), (2**32 - 1, 3, 2**31)):
        expected = [mix(i * 0x9E3779B9 + mix(step ^ mix(seed ^ (stream * 0x85EBCA6B & 0xFFFFFFFF)))) for i in range(50)]
        assert rand(seed, stream, step, np.arange(50)).tolist() == expected


def test_more_outputs_than_mode_i16_counts_are_refused_by_name(tmp_path: Path) -> None:
    b, m = Builder(), 65_536
    x, w = b.tensor((1, 2), scale=0.1), b.tensor((m, 2), scale=0.02, data=np.ones((m, 2), np.int8))
    y = b.tensor((1, m), scale=0.1)
    b.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    path = tmp_path / "wide.tflite"
    path.write_bytes(b.build([x], [y]))
    options = {"board": "native", "adapt": "all", "loss": "mse"}
    with pytest.raises(lora_mcu.ModelError, match=r"has 65,536 outputs, numerics i16 trains 65,535; use numerics f32"):
        lora_mcu.compile(path, **options)
    assert lora_mcu.compile(path, **options, numerics="f32").info.numerics == "f32"
    assert lora_mcu.compile(path, **{**options, "adapt": "none"}).report().sram_bytes > 0

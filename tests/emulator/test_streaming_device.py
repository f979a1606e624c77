# SPDX-License-Identifier: Apache-2.0
"""A streaming model on the emulated Cortex-M4 and in a native process: the twin's bytes, in training too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.oracle import Oracle, differing
from conformance.samples import random_samples
from conformance.stream_models import MADE
from projects import Compiled, compile_and_build

import lora_mcu
from lora_mcu.session.learner import Learner

FRAMES = 60


@pytest.fixture(scope="module", params=["netduinoplus2", "native"])
def ring(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp(f"ring-{request.param}")
    (folder / "ring.tflite").write_bytes(MADE["ring_convolution"]())
    return compile_and_build(folder / "project", folder / "ring.tflite", request.param, adapt="all")


def _data(program: lora_mcu.Program) -> tuple[Any, Any, Any]:
    edge = program.info.input
    stream = random_samples(edge, FRAMES, 1)
    sequences = random_samples(edge, 40, 2).reshape(8, 5, *edge.shape)
    return stream, sequences, np.arange(8) % 2


def _tune(learner: Learner, x: Any, y: Any) -> Any:
    learner.configure(lr=0.05, batch_size=3, momentum=0.5, seed=4)
    return [learner.train(x, y) for _ in range(3)]


def test_device_gives_the_twins_bytes(ring: Compiled) -> None:
    twin = ring.program.twin()
    stream, x, y = _data(ring.program)
    with lora_mcu.emulate(ring.folder) as url, lora_mcu.Device(url) as device:
        assert device.info == twin.info
        got = device.infer(stream)
        assert differing(got, Oracle(ring.folder.parent / "ring.tflite").infer(stream)) == 0
        assert differing(device.infer(stream), got) > 0  # the stream went on
        device.reset_state()
        assert differing(device.infer(stream), got) == 0
        before = device.evaluate(x, y)
        assert before == twin.evaluate(x, y)
        assert _tune(device, x, y) == _tune(twin, x, y)
        assert device.adapter().to_factors(device.info) == twin.adapter().to_factors(twin.info)
        assert device.evaluate(x, y) == twin.evaluate(x, y)
        assert device.evaluate(x, y).loss < before.loss
        assert differing(device.infer(x), twin.infer(x)) == 0
        kept = device.adapter()
        device.infer(stream[:9])
        device.load(kept)  # and the state is the initial one
        twin.reset_state()
        assert differing(device.infer(stream), twin.infer(stream)) == 0
        device.reset()
        assert differing(device.infer(stream), got) == 0


def test_state_is_what_the_elf_holds(ring: Compiled) -> None:
    """As the report says before any compiler runs."""
    report, symbols = ring.program.report(), ring.result.symbols
    assert symbols["lmcu_state"].size == report.sram["lmcu_state"] == 80
    assert symbols["lmcu_initial_state"].size == report.constants["lmcu_initial_state"] == 80
    assert ring.result.ram_bytes == report.sram_bytes


def test_command_line_runs_streams_and_sequences(tmp_path: Path) -> None:
    """A stream starts from the reset state; a stream with labels is refused with the shape that is needed."""
    (tmp_path / "ring.tflite").write_bytes(MADE["ring_convolution"]())
    program = lora_mcu.compile(tmp_path / "ring.tflite", board="native", adapt="all")
    program.write(tmp_path / "project")
    stream, x, y = _data(program)
    np.savez(tmp_path / "stream.npz", x=stream)
    np.savez(tmp_path / "sequences.npz", x=x, y=y)
    np.savez(tmp_path / "wrong.npz", x=stream, y=np.zeros((FRAMES, 1), np.float32))

    def run(*arguments: str, code: int = 0) -> str:
        command = [Path(sys.executable).parent / "lora-mcu", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    assert "state 2 variables, 75 bytes" in " ".join(
        run("compile", "ring.tflite", "--board", "native", "-o", "other").split()
    )
    run("infer", "project", "stream.npz", "--twin", "-o", "y.npz")
    assert differing(np.load(tmp_path / "y.npz")["y"], program.twin().infer(stream)) == 0
    assert "8 samples: loss 0." in run("eval", "project", "sequences.npz", "--twin")
    assert "8 samples streamed every epoch" in run("simulate", "project", "sequences.npz", "--lr", "0.1")
    line = run("eval", "project", "wrong.npz", "--twin", code=1)
    assert "a labelled sample of a streaming model is a sequence of T frames, [N, T, 2, 1, 9]" in line

# SPDX-License-Identifier: Apache-2.0
"""Hosts that are killed, watched and asked for another speed: commands as processes, against emulated boards."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from projects import Compiled

import lora_mcu
from benchmarks import cases
from lora_mcu.link.client import DeviceResetError
from lora_mcu.link.codes import ResetCause
from lora_mcu.twin import Twin

LORA_MCU = str(Path(sys.executable).parent / "lora-mcu")
TRAINING = ("--epochs", "2", "--lr", "0.02", "--batch-size", "8", "--seed", "4", "--momentum", "0.5")
WINDOWS = 160  # more than the board's store takes


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORA_MCU, *arguments], cwd=folder, capture_output=True, text=True, timeout=150)


def wait_for_lines(file: Path, count: int) -> None:
    """Until so many pieces have gone over the line."""
    deadline = time.monotonic() + 60
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, f"{file.name} has fewer than {count} lines"
        time.sleep(0.05)


def write_data(folder: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    np.savez(folder / "data.npz", x=rng.standard_normal((count, 128, 6)).astype(np.float32), y=np.arange(count) % 6)


def test_a_killed_host_loses_nothing(tmp_path: Path, har: Compiled) -> None:
    """`train` is killed in mid-epoch; the device says where it is; `train --continue` ends at the twin's bytes."""
    write_data(tmp_path, WINDOWS)
    assert har.program.info.store_capacity < WINDOWS
    with lora_mcu.emulate(har.folder) as url:
        command = [LORA_MCU, "train", str(har.folder), "data.npz", "--port", url, *TRAINING]
        host = subprocess.Popen([*command, "--trace", "killed.jsonl"], cwd=tmp_path)
        wait_for_lines(tmp_path / "killed.jsonl", 150)
        assert host.poll() is None, "it was too quick to be killed"
        host.send_signal(signal.SIGKILL)
        host.wait(timeout=20)
        with lora_mcu.Device(url) as device:
            seen = device.statistics()
            assert 0 < seen.step < 2 * WINDOWS // 8 and seen.total_steps == seen.step
            assert device.hello.adapter_crc32 != 0 and device.hello.total_steps == seen.step
        refused = run(tmp_path, "train", str(har.folder), "data.npz", "--port", url, *TRAINING[:4], "--continue")
        assert refused.returncode == 1 and "--momentum 0.5, not 0.0" in refused.stderr
        done = run(tmp_path, *command[1:], "--continue", "-o", "alice", "--trace", "trace.jsonl")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("going on after ")
    assert run(tmp_path, "simulate", str(har.folder), "data.npz", *TRAINING, "-o", "twin").returncode == 0
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("alice", "twin")]
    assert weights[0] == weights[1]
    shown = run(tmp_path, "monitor", "trace.jsonl").stdout.splitlines()
    assert " HELLO, 4 bytes: " in shown[0] and sum(" TRAIN OK, " in line for line in shown) > WINDOWS // 2


def test_monitor_shows_what_passes_and_another_speed_works(tmp_path: Path, har_native: Compiled) -> None:
    write_data(tmp_path, 3)
    with lora_mcu.emulate(har_native.folder) as url:
        fast = run(tmp_path, "infer", str(har_native.folder), "data.npz", "--port", url, "--baud", "921600", "--json")
        assert fast.returncode == 0 and fast.stderr == ""
        watcher = subprocess.Popen([LORA_MCU, "monitor", "--port", url], stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        socket_url = watcher.stdout.readline().strip()
        options = ("--timeout", "3", "--retries", "2", "--json")
        seen = run(tmp_path, "infer", str(har_native.folder), "data.npz", "--port", socket_url, *options)
        watcher.send_signal(signal.SIGINT)
        shown, _ = watcher.communicate(timeout=20)
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout) == json.loads(fast.stdout)
    assert " -> " in shown and " HELLO OK, 105 bytes" in shown and shown.count(" INFER OK, ") == 3


def test_a_device_that_hangs_is_reset_and_the_host_says_so(tmp_path: Path) -> None:
    """An operator that never ends, planted among others: the watchdog, fed after each operator, ends it."""
    model = tmp_path / "model.tflite"
    model.write_bytes(cases.dense_model((4, 6, 5, 3)))
    project = lora_mcu.compile(model, board="native", adapt="all", loss="cross_entropy").write(tmp_path / "project")
    config = project / "include" / "lmcu_config.h"
    config.write_text(config.read_text().replace("LMCU_WATCHDOG_MS 8000", "LMCU_WATCHDOG_MS 400"))
    source = project / "src" / "model.c"
    head, call, rest = source.read_text().partition("    LMCU_STEP(1);\n")
    assert call
    hang = "    for (volatile uint32_t stuck = lmcu_model.input[0] == 99; stuck;) {\n    }\n"
    source.write_text(head + call + hang + rest)
    lora_mcu.build(project)
    fine, bad = np.zeros((6, 4), np.int8), np.full((1, 4), 99, np.int8)
    with lora_mcu.emulate(project) as url, lora_mcu.Device(url, timeout=0.3) as device:
        device.configure(batch_size=1)
        assert device.train(fine, np.arange(6) % 3).steps == 6
        with pytest.raises(DeviceResetError, match=r"was reset \(the watchdog: the firmware hung\): 6 training steps"):
            device.train(bad, np.zeros(1, np.int64))
        assert device.statistics().reset_cause == ResetCause.WATCHDOG
        device.infer(fine)


def test_the_watchdog_is_fed_after_every_operator(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(cases.dense_model((4, 6, 5, 3)))
    program = lora_mcu.compile(model, board="native", adapt="all", loss="cross_entropy")
    count = "#include <lmcu.h>\nextern uint32_t fed;\nuint32_t fed;\nvoid lmcu_layer_done(void)\n{\n    fed++;\n}\n"
    twin = Twin.from_files({**program.files(), "src/count.c": count.encode()}, program.info)
    fed = ctypes.c_uint32.in_dll(twin._lib, "fed")
    twin.infer(np.zeros((1, 4), np.int8))
    assert fed.value == 3
    twin.train(np.zeros((1, 4), np.int8), np.zeros(1, np.int64))
    assert fed.value == 3 + 6

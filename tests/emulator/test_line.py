# SPDX-License-Identifier: Apache-2.0
"""Hosts that are killed, watched and asked for another speed: commands as processes, against emulated boards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from projects import Compiled

import lora_mcu

LORA_MCU = str(Path(sys.executable).parent / "lora-mcu")
TRAINING = ("--epochs", "2", "--lr", "0.02", "--batch-size", "8", "--seed", "4", "--momentum", "0.5")
WINDOWS = 160  # more than the board's store takes


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORA_MCU, *arguments], cwd=folder, capture_output=True, text=True, timeout=150)


def write_data(folder: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    np.savez(folder / "data.npz", x=rng.standard_normal((count, 128, 6)).astype(np.float32), y=np.arange(count) % 6)


def test_a_killed_host_loses_nothing(tmp_path: Path, har: Compiled) -> None:
    """`train` is killed in mid-epoch; the device says where it is; `train --continue` ends at the twin's bytes."""
    write_data(tmp_path, WINDOWS)
    assert har.program.info.store_capacity < WINDOWS
    with lora_mcu.emulate(har.folder) as url:
        command = [LORA_MCU, "train", str(har.folder), "data.npz", "--port", url, *TRAINING]
        host = subprocess.Popen(command, cwd=tmp_path)
        time.sleep(6)
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

# SPDX-License-Identifier: Apache-2.0
"""Adapters in a device's flash, as a user types it: they outlive reset and emulator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from projects import HAR, Compiled

import lora_mcu
from lora_mcu.adapters import Adapter
from lora_mcu.emulators.flash import patch
from lora_mcu.errors import DeviceError
from lora_mcu.info import ModelInfo

LORA_MCU = Path(sys.executable).parent / "lora-mcu"


def command(*arguments: object, code: int = 0, of: str = "adapter") -> str:
    """What `lora-mcu adapter ...` (or store) prints on standard output (on standard error where it must fail)."""
    done = subprocess.run([LORA_MCU, of, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@contextmanager
def running(project: Path, flash: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The image itself, so that it can be killed."""
    image = project / ".pio" / "build" / "native" / "firmware.elf"
    environment = {**os.environ, "LORA_MCU_FLASH": str(flash)}
    process = subprocess.Popen([image], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()


def adapter(info: ModelInfo, seed: int) -> Adapter:
    values = np.random.default_rng(seed).uniform(-0.05, 0.05, info.parameters)
    return Adapter.from_factors(info, values.astype("<f2").tobytes())


def test_slots_outlive_the_process(har_native: Compiled, tmp_path: Path) -> None:
    info, flash = har_native.program.info, tmp_path / "flash"
    for seed, name in enumerate(("alice", "bob"), 1):
        adapter(info, seed).save(tmp_path / name)
    with running(har_native.folder, flash) as (port, _):
        assert command("list", "--port", port) == "0 of 31 that fit, default none\n"
        for name in ("alice", "bob"):
            command("push", tmp_path / name, "--port", port)
            assert command("save", name, "--port", port) == f"{name}: saved on har (native)\n"
        command("select", "alice", "--port", port)
        listed = command("list", "--port", port)
        assert "default" in listed.splitlines()[1] and "in use" in listed.splitlines()[2] and "2 of 31" in listed
        assert "there are: alice, bob" in command("load", "carol", "--port", port, code=1)
    assert flash.stat().st_size == 2 * 128 * 1024
    with running(har_native.folder, flash) as (port, _):
        command("pull", "--port", port, "-o", tmp_path / "booted")
        assert Adapter.load(tmp_path / "booted") == adapter(info, 1)
        command("load", "bob", "--port", port)
        command("pull", "--port", port, "-o", tmp_path / "loaded")
        assert Adapter.load(tmp_path / "loaded") == adapter(info, 2)
        command("delete", "bob", "--port", port)
        command("select", "--none", "--port", port)
        assert command("list", "--port", port).endswith("1 of 31 that fit, default none\n")


def test_a_killed_process_leaves_the_old_or_the_new(har_native: Compiled, tmp_path: Path) -> None:
    """SIGKILL in the middle of saves: what boots afterwards is one of the two adapters, whole."""
    info, flash = har_native.program.info, tmp_path / "flash"
    known = [adapter(info, seed) for seed in range(2)]
    with running(har_native.folder, flash) as (port, _), lora_mcu.Device(port) as device:
        device.load(known[0])
        device.save_slot("user")
        device.select_slot("user")
    for attempt in range(12):
        with (
            running(har_native.folder, flash) as (port, process),
            lora_mcu.Device(port, timeout=0.2, retries=1) as device,
        ):
            assert device.adapter() in known
            device.load(known[attempt % 2])
            child = os.fork()
            if child == 0:
                time.sleep(0.0005 * attempt)
                os.kill(process.pid, signal.SIGKILL)
                os._exit(0)
            with pytest.raises(lora_mcu.DeviceError):
                for _ in range(2000):
                    device.save_slot("user")
            os.waitpid(child, 0)
    with running(har_native.folder, flash) as (port, _), lora_mcu.Device(port) as device:
        assert device.adapter() in known and len(device.slots().slots) == 1


def test_slots_outlive_a_reset_without_a_file(har_native: Compiled) -> None:
    with lora_mcu.emulate(har_native.folder) as url, lora_mcu.Device(url) as device:
        made = adapter(har_native.program.info, 5)
        device.load(made)
        device.save_slot("user")
        device.select_slot("user")
        device.reboot()
        assert device.adapter() == made


@contextmanager
def emulating(*arguments: object) -> Iterator[str]:
    """`lora-mcu emulate ...` until the block ends; yields the port."""
    process = subprocess.Popen([LORA_MCU, "emulate", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_slots_of_the_emulated_stm32_outlive_reset_and_emulator(har: Compiled, tmp_path: Path) -> None:
    info, flash = har.program.info, tmp_path / "flash"
    alice = adapter(info, 1)
    alice.save(tmp_path / "alice")
    with emulating(har.folder, "--flash", flash) as port:
        command("push", tmp_path / "alice", "--port", port)
        assert command("save", "alice", "--port", port) == "alice: saved on har (netduinoplus2)\n"
        command("select", "alice", "--port", port)
        with lora_mcu.Device(port) as device:
            device.reset()
            device.reboot()
            assert device.adapter() == alice
    assert flash.stat().st_size == 2 * 128 * 1024
    with emulating(har.folder, "--flash", flash) as port:
        assert command("list", "--port", port).endswith("1 of 31 that fit, default alice\n")
        command("pull", "--port", port, "-o", tmp_path / "booted")
        assert Adapter.load(tmp_path / "booted") == alice
        refused = subprocess.run([LORA_MCU, "emulate", har.folder, "--flash", flash], capture_output=True, text=True)
        assert refused.returncode == 1 and "is in use by another emulator: name another with --flash" in refused.stderr
    flash.write_bytes(b"too short")
    refused = subprocess.run([LORA_MCU, "emulate", har.folder, "--flash", flash], capture_output=True, text=True)
    assert refused.returncode == 1 and flash.read_bytes() == b"too short"
    assert "has 9 bytes, the adapter region of netduinoplus2 262144: name another" in refused.stderr


def test_the_image_itself_is_not_changed(har: Compiled) -> None:
    """The launcher names the file in its own copy: the project's image asks the part's flash driver."""
    before = har.result.elf.read_bytes()
    symbol = har.result.symbols["lmcu_flash_file"]
    assert symbol.size == 32 and not symbol.writable
    patched, address = patch(har.result.elf, "/dev/fd/7")
    assert address == symbol.address and len(patched) == len(before) and patched != before
    differing = [i for i, (a, b) in enumerate(zip(before, patched, strict=True)) if a != b]
    assert len(differing) == 9 and differing[-1] - differing[0] == 8
    assert har.result.elf.read_bytes() == before


def test_saved_samples_outlive_the_process(har_native: Compiled, tmp_path: Path) -> None:
    """Stored, saved, killed, booted: epochs over them train the adapter that an undisturbed device trains."""
    flash = tmp_path / "flash"
    with np.load(HAR.with_name("har.npz")) as har:
        x, y = har["x"][:40], har["y"][:40]
    with running(har_native.folder, flash) as (port, _):
        with lora_mcu.Device(port) as device:
            device.configure_store(policy="reservoir", balance=True, hold_out=7)
            device.store(x, y)
            before = device.store_state()
        assert before.stored == 40 and before.held_out == 5
        assert command("save", "--port", port, of="store") == "40 samples saved on har (native)\n"
        assert "reservoir, balanced" in command("info", "--port", port, of="store")
    with running(har_native.folder, flash) as (port, _):
        with lora_mcu.Device(port) as device:
            assert device.store_state() == before
            device.configure(lr=0.02)
            device.run_epochs(2)
            trained = device.adapter()
        command("clear", "--port", port, of="store")
        command("save", "--port", port, of="store")
    twin = har_native.program.twin()
    twin.configure_store(policy="reservoir", balance=True, hold_out=7)
    twin.store(x, y)
    twin.configure(lr=0.02)
    twin.run_epochs(2)
    assert trained == twin.adapter()
    with running(har_native.folder, flash) as (port, _), lora_mcu.Device(port) as device:
        assert device.stored == 0


def test_samples_that_do_not_fit_the_flash_are_refused_whole(har_native: Compiled, tmp_path: Path) -> None:
    """What the report says fits, fits; one more does not."""
    report, info = har_native.program.report(), har_native.program.info
    fits, beside = report.saved_samples, report.slots_beside_samples
    assert 100 < fits < report.store_capacity and beside == 0
    x = np.random.default_rng(0).integers(-128, 128, (fits + 1, *info.input.shape)).astype(np.int8)
    with running(har_native.folder, tmp_path / "flash") as (port, _), lora_mcu.Device(port) as device:
        device.store(x[:fits], np.zeros(fits, int))
        device.save_store()
        with pytest.raises(DeviceError, match=f"the adapter store of native is full: {report.adapter_slots} of this"):
            device.save_slot("alice")
        device.store(x[fits:], [0])
        with pytest.raises(DeviceError, match=f"{fits + 1} samples of 772 bytes do not fit the flash of native beside"):
            device.save_store()
        device.reboot()
        assert device.stored == fits

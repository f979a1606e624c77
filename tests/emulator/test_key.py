# SPDX-License-Identifier: Apache-2.0
"""A board with a key, as its owner and as a stranger see it; and the key is nowhere but where it must be."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from projects import HAR, assert_report_is_image, compile_and_build

import lora_mcu
from lora_mcu import report_html
from lora_mcu.link.codes import RESPONSE, Message, Status
from lora_mcu.link.frames import Decoder
from lora_mcu.link.trace import read_trace
from lora_mcu.link.transport import SerialTransport

LORA_MCU = str(Path(sys.executable).parent / "lora-mcu")
KEY = bytes(range(160, 192))
TRAINING = ("--epochs", "1", "--lr", "0.02", "--batch-size", "8", "--seed", "4")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORA_MCU, *arguments], cwd=folder, capture_output=True, text=True, timeout=150)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((24, 128, 6)).astype(np.float32), y=np.arange(24) % 6)
    (tmp_path / "device.key").write_text(KEY.hex())
    (tmp_path / "device.key").chmod(0o600)
    (tmp_path / "other.key").write_bytes(bytes(range(32)))
    yield tmp_path


def test_owner_and_stranger_at_an_stm32(desk: Path) -> None:
    built = compile_and_build(desk / "har", HAR, "netduinoplus2", key=KEY)
    assert_report_is_image(built)
    assert built.program.report().constants["lmcu_key"] == 32
    train = ("train", "har", "data.npz", *TRAINING)
    with lora_mcu.emulate(desk / "har", emulator="qemu") as url:
        for key, said in (((), "asks for its key"), (("--key", "other.key"), "has another key")):
            refused = run(desk, "adapter", "reset", "--port", url, *key)
            assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1
        done = run(desk, *train, "--port", url, "--key", "device.key", "-o", "alice", "--trace", "trace.jsonl")
        assert done.returncode == 0, done.stderr
        with lora_mcu.Device(url, key=desk / "device.key") as device:
            before = device.adapter()
            assert device.statistics().total_steps == 3
        line = SerialTransport(url)
        statuses = set()
        for piece in read_trace(desk / "trace.jsonl"):
            if piece.to_device:
                line.write(piece.data)
                decoder = Decoder()
                for _ in range(3):
                    statuses |= {f.payload[0] for f in decoder.feed(line.read()) if f.type != Message.HELLO | RESPONSE}
        line.close()
        assert statuses <= {Status.AUTH, Status.NAK} and Status.AUTH in statuses
        with lora_mcu.Device(url, key=KEY) as device:
            assert device.adapter() == before and device.statistics().total_steps == 3
    assert run(desk, "simulate", "har", "data.npz", *TRAINING, "-o", "twin").returncode == 0
    weights = [(desk / name / "adapter_model.safetensors").read_bytes() for name in ("alice", "twin")]
    assert weights[0] == weights[1]
    for file in ("trace.jsonl", "alice/training.json", "alice/adapter_config.json", "har/lora_mcu.json"):
        assert not re.search(KEY.hex()[:16], (desk / file).read_text(), re.IGNORECASE), file


@pytest.mark.parametrize("form", ["project", "library"])
def test_the_key_is_in_one_file(desk: Path, form: str) -> None:
    program = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1", key=KEY, form=form)
    digits = ", ".join(f"0x{byte:02x}" for byte in KEY).encode()
    forms = (KEY, KEY.hex().encode(), KEY.hex().upper().encode(), digits, repr(KEY).encode())
    holds = {name for name, text in program.files().items() if any(one[:16] in text for one in forms)}
    assert holds == {"src/runtime/key.c"}
    folder = program.write(desk / "har")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "src" / "runtime" / "key.c")]
    assert modes == [0o700, 0o600]
    page = report_html.project_page(lora_mcu.load_project(folder))
    for text in (page, repr(program), str(program.report().to_dict()), program.info.to_json()):
        assert not any(one[:16] in text.encode() for one in forms)


def test_without_a_key_there_is_none_of_it() -> None:
    files = lora_mcu.compile(HAR, board="netduinoplus2", adapt="last:1").files()
    assert not {"src/runtime/key.c", "src/runtime/auth.c", "src/runtime/sha256.c"} & files.keys()
    assert b"#define LMCU_KEYED 0" in files["include/lmcu_config.h"]


def test_compile_says_what_the_key_needs(desk: Path) -> None:
    compiled = run(desk, "compile", str(HAR), "--board", "native", "--adapt", "last:1", "-o", "p", "--key", "other.key")
    assert compiled.returncode == 0 and "p and its builds hold the key" in compiled.stdout
    assert "other.key can be read by others: chmod 600" in compiled.stderr
    quiet = run(desk, "compile", str(HAR), "--board", "native", "-o", "q", "--key", "device.key", "--json")
    assert quiet.returncode == 0 and quiet.stderr == "" and KEY.hex()[:16] not in quiet.stdout
    (desk / "bad.key").write_text("secret")
    for key, said in (("bad.key", "holds no key"), ("none.key", "cannot be read")):
        refused = run(desk, "compile", str(HAR), "--board", "native", "-o", "r", "--key", key)
        assert refused.returncode == 1 and said in refused.stderr and not (desk / "r").exists()
        assert refused.stderr.count("\n") == 1

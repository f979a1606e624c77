# SPDX-License-Identifier: Apache-2.0
"""A board of a known family is one file: other pins, clock, memory and name, and no line of code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import HAR

import lora_mcu
from lora_mcu import boards, resources
from lora_mcu.errors import BoardError

CHANGES = {
    '"feather_stm32f405"': '"my_board"',
    "hz = 168_000_000": "hz = 120_000_000",
    "crystal_hz = 12_000_000": "crystal_hz = 8_000_000",
    'peripheral = "USART3"': 'peripheral = "USART6"',
    'tx = "PB10"': 'tx = "PC6"',
    'rx = "PB11"': 'rx = "PC7"',
    "size = 0x2_0000": "size = 0x1_8000",
    "baud = 115_200": "baud = 460_800",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = (resources.path("boards") / "feather_stm32f405.toml").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    folder = tmp_path / "boards of mine"
    folder.mkdir()
    (folder / "my_board.toml").write_text(text)
    monkeypatch.setenv("LORA_MCU_BOARDS", str(folder))
    return folder


@pytest.mark.slow
def test_one_file_adds_a_board_that_boots_and_trains(own: Path, tmp_path: Path) -> None:
    program = lora_mcu.compile(HAR, board="my_board", adapt="last:2")
    assert program.report().sram_limit == 0x18000 + 0x10000
    lora_mcu.build(program.write(tmp_path / "mine"))
    data = np.load(HAR.with_suffix(".npz"), allow_pickle=False)
    with lora_mcu.emulate(tmp_path / "mine", "unicorn") as url, lora_mcu.Device(url) as device:
        assert (device.hello.clock_hz, device.hello.clock_source) == (120_000_000, 1)
        made = []
        for learner in (device, program.twin()):
            learner.configure(lr=0.01, batch_size=2, seed=3)
            assert learner.train(data["x"][:4], data["y"][:4]).steps == 2
            made.append(learner.adapter())
        device.save_slot("mine")
        assert made[0] == made[1] and [slot.name for slot in device.slots().slots] == ["mine"]


def test_a_wrong_file_or_folder_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "my_board" in boards.names()
    with pytest.raises(BoardError, match=r"^unknown board 'my_bord'; did you mean my_board\?$"):
        boards.load("my_bord")
    (own / "other.toml").write_text((own / "my_board.toml").read_text())
    with pytest.raises(BoardError, match=r"^boards of mine/other.toml: identity must be 'other' like the file"):
        boards.load("other")
    (own / "other.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BoardError, match=r"^boards of mine/other.toml cannot be read as text$"):
        boards.load("other")
    (own / "native.toml").write_text("")
    with pytest.raises(BoardError, match="native.toml: lora_mcu brings a board native: give yours another name$"):
        boards.names()
    monkeypatch.setenv("LORA_MCU_BOARDS", str(own / "nowhere"))
    with pytest.raises(BoardError, match="^LORA_MCU_BOARDS names '.*nowhere', which is no folder$"):
        boards.load("native")

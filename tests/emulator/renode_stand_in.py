# SPDX-License-Identifier: Apache-2.0
"""Takes Renode's place where there is none: understands its command line, runs the image in the Unicorn model of the
part, and obeys the one monitor script that the launcher sends. It cannot show whether Renode reads our files."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from pathlib import Path

from lora_mcu import boards
from lora_mcu.emulators.stm32.part import Machine

MONITOR = re.compile(
    rb"^pause\npython \"System.IO.File.WriteAllBytes\('(.+)', "
    rb"monitor.Machine.SystemBus.ReadBytes\((\d+), (\d+)\)\)\"\n$"
)


def main() -> None:
    arguments = sys.argv[1:]
    assert arguments[:3] == ["--disable-gui", "--hide-log", "-P"] and arguments[4] == "-e", arguments
    steps = arguments[5].split("; ")
    path = r"@((?:\\ |\S)+)"
    patterns = (rf"\$elf={path}", rf"\$bin={path}", r"\$port=(\d+)", r"include @(\S+)\.resc",
                r"sysbus LoadBinary @(\S+) (0x\w+)")  # fmt: skip
    elf, image, port, script, binary = (re.fullmatch(p, s) for p, s in zip(patterns, steps, strict=False))
    assert elf and image and port and script and binary and steps[5:] == ["start"], steps
    assert image[1] == elf[1].removesuffix(".elf") + ".bin"
    board = boards.load(Path(script[1]).name)
    assert board.adapter_region is not None and int(binary[2], 16) == board.adapter_region.origin
    cells = bytearray(Path(binary[1]).read_bytes())
    line = socket.create_server(("127.0.0.1", int(port[1])))
    machine = Machine(board, Path(elf[1].replace("\\ ", " ")), line, cells)
    threading.Thread(target=machine.run, daemon=True).start()
    with socket.create_server(("127.0.0.1", int(arguments[3]))) as monitor:
        while True:
            peer, _ = monitor.accept()
            with peer:
                text = b""
                while text.count(b"\n") < 2 and (more := peer.recv(4096)):
                    text += more
                asked = MONITOR.search(text)
                if asked:
                    assert (int(asked[2]), int(asked[3])) == (board.adapter_region.origin, len(cells))
                    machine.stop()
                    Path(os.fsdecode(asked[1])).write_bytes(cells)


if __name__ == "__main__":
    main()

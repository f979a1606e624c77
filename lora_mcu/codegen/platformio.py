# SPDX-License-Identifier: Apache-2.0
"""Everything of a PlatformIO project that does not depend on the model: platform, port, runtime, linker script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_mcu import resources
from lora_mcu.boards import Board
from lora_mcu.codegen import ports
from lora_mcu.emulators.qemu import MACHINES
from lora_mcu.project import KEY_FILE
from lora_mcu.sram import runtime_config

if TYPE_CHECKING:
    import jinja2

# The first is the board's own; the others work with the same image.
_PROTOCOLS: dict[str, list[str]] = {
    "none": [],
    "dfu": ["dfu", "stlink"],
    "stlink": ["stlink", "dfu"],
    "esptool": ["esptool"],
}

# OpenOCD's file for a family and the address of DBGMCU_IDCODE, whose bits 0 to 11 tell the part (the debug
# chapter of RM0090, RM0390, RM0385, RM0433 and RM0432).
_OPENOCD = {
    "stm32f4": ("stm32f4x", 0xE0042000),
    "stm32f7": ("stm32f7x", 0xE0042000),
    "stm32h7": ("stm32h7x", 0x5C001000),
    "stm32l4": ("stm32l4x", 0xE0042000),
}
_CHIP_IDS = {"stm32f405": 0x413, "stm32f446": 0x421, "stm32f746": 0x449, "stm32h743": 0x450, "stm32l4r5": 0x470}


def _chip(board: Board) -> dict[str, Any]:
    """What upload tools and debuggers need to know of the part; a part without an identity here is not checked."""
    chip = next((name for name in _CHIP_IDS if board.mcu.startswith(name)), board.mcu)
    target, address = _OPENOCD.get(board.family, ("", 0))
    return {
        "chip": chip,
        "origin": board.region("flash").origin,
        "openocd_target": target,
        "chip_id": _CHIP_IDS.get(chip, 0),
        "chip_id_address": address,
    }


def _debuggers(board: Board) -> dict[str, Any]:
    """How `pio debug` runs the part: in QEMU, or through an ST-LINK."""
    tools: dict[str, Any] = {}
    if board.identity in MACHINES:
        machine = ["-M", MACHINES[board.identity][0], "-kernel", "$PROG_PATH", "-S", "-gdb", "tcp:127.0.0.1:3333"]
        server = {"executable": "qemu-system-arm", "arguments": [*machine, "-display", "none", "-serial", "null"]}
        tools["qemu"] = {"server": server, "port": "127.0.0.1:3333", "default": True}
    if "stlink" in _PROTOCOLS[board.upload] and board.family in _OPENOCD:
        files = ["interface/stlink.cfg", f"target/{_OPENOCD[board.family][0]}.cfg"]
        server = {"executable": "openocd", "arguments": [word for file in files for word in ("-f", file)]}
        tools["stlink"] = {"server": server, "onboard": True}
    return tools


def platformio_manifest(board: Board) -> dict[str, Any]:
    """Return the board manifest (``platform/boards/<id>.json``) that PlatformIO reads."""
    return {
        "name": board.description,
        "url": "",
        "vendor": "lora_mcu",
        "platforms": ["lora_mcu"],
        "frameworks": [],
        "build": {
            "mcu": board.mcu,
            "f_cpu": f"{board.clock_hz}L",
            "toolchain": board.platformio.toolchain,
            "cpu_flags": list(board.platformio.cpu_flags),
            "native": "yes" if board.is_native else "no",
            "debian_package": board.platformio.debian_package,
            "registry_package": board.platformio.registry_package,
            "qemu_machine": MACHINES[board.identity][0] if board.identity in MACHINES else "",
        },
        "debug": {"tools": _debuggers(board)},
        "upload": {
            "maximum_ram_size": board.sram_bytes,
            "maximum_size": board.flash_bytes,
            "protocol": board.upload,
            "protocols": _PROTOCOLS[board.upload],
            **_chip(board),
        },
    }


def environment(folder: str = "") -> jinja2.Environment:
    """The templates of ``templates/`` or of a folder in it."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.path("templates") / folder),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )


def copies(folder: Path, patterns: tuple[str, ...], into: str) -> dict[str, bytes]:
    """The files of ``folder`` that match, as {``into``/name: content}."""
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return {f"{into}/{file.name}": file.read_bytes() for file in files}


_KEYED = ("auth.c", "sha256.c")  # only in builds with a key


def runtime_sources(folder: Path, into: str, key: bytes | None) -> dict[str, bytes]:
    """The C files of the runtime, ``folder``, and the key where the device asks for one: no other file has it."""
    files = copies(folder, ("*.c",), into)
    if key is None:
        return {name: text for name, text in files.items() if not name.endswith(_KEYED)}
    digits = ", ".join(f"0x{byte:02x}" for byte in key)
    text = (
        "/* SPDX-License-Identifier: Apache-2.0 */\n/* Secret: the key that this device asks for. */\n"
        f'#include "auth.h"\n\nconst uint8_t lmcu_key[LMCU_SHA256_BYTES] = {{{digits}}};\n'
    )
    return {**files, f"{into}/{KEY_FILE}": text.encode()}


def render_project_files(
    board: Board, key: bytes | None = None, arrays: Mapping[str, Sequence[str]] | None = None
) -> dict[str, bytes]:
    """Return the project's files for ``board`` as {relative path: content}, without the generated model.

    ``arrays`` are the names of the model's arrays in each region of SRAM but the first, which takes everything else.
    The result depends on the board and on this lora_mcu only: no dates, no paths of this machine.
    """
    templates = environment()
    firmware = resources.path("firmware")
    folders = [firmware / "ports" / name for name in ports.FOLDERS[board.family]]

    def render(template: str, **values: Any) -> bytes:
        return templates.get_template(template).render(board=board, **values).encode()

    files = {
        **runtime_sources(firmware / "runtime", "src/runtime", key),
        **copies(firmware / "runtime", ("*.h",), "include"),
        **{name: text for port in folders for name, text in copies(port, ("*.c", "*.h"), "src/port").items()},
        **copies(firmware / "test", ("*.py",), "test"),
        **copies(firmware / "test" / "test_same_bytes", ("*.c",), "test/test_same_bytes"),
        **copies(firmware / "platform", ("platform.json", "platform.py"), "platform"),
        **copies(firmware / "platform" / "builder", ("main.py", "tools.py"), "platform/builder"),
    }
    manifest = json.dumps(platformio_manifest(board), indent=2, sort_keys=True) + "\n"
    files[f"platform/boards/{board.platformio.board}.json"] = manifest.encode()
    files["platformio.ini"] = render("platformio.ini.j2")
    files["include/lmcu_board.h"] = render("board.h.j2", defines=ports.defines(board))
    if not board.is_native:
        regions = {"sram": board.sram[0], "others": board.sram[1:], "flash": board.region("flash")}
        config = runtime_config()
        sizes = {"stack_bytes": config["STACK_BYTES"], "ram_code_bytes": config["RAM_CODE_BYTES"]}
        template = "linker_esp32c3.ld.j2" if board.family == "esp32c3" else "linker.ld.j2"
        files["linker.ld"] = render(template, arrays=arrays or {}, **regions, **sizes)
    return dict(sorted(files.items()))

# SPDX-License-Identifier: Apache-2.0
"""Everything of a PlatformIO project that does not depend on the model: platform, port, runtime, linker script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lora_mcu import resources
from lora_mcu.boards import Board

# Base address, interrupt (RM0090 table 62), clock enable register and bit (section 7.3), alternate function
# (STM32F405 data sheet, table 9), divider of its bus at full speed.
_STM32F4_UARTS = {
    "USART1": ("0x40011000u", 37, "RCC_APB2ENR", "(1u << 4)", "7u", "2u"),
    "USART2": ("0x40004400u", 38, "RCC_APB1ENR", "(1u << 17)", "7u", "4u"),
    "USART3": ("0x40004800u", 39, "RCC_APB1ENR", "(1u << 18)", "7u", "4u"),
    "USART6": ("0x40011400u", 71, "RCC_APB2ENR", "(1u << 5)", "8u", "2u"),
}


def _stm32f4_defines(board: Board) -> list[tuple[str, str]]:
    base, irq, register, bit, function, divider = _STM32F4_UARTS[board.serial.peripheral]
    return [
        ("LMCU_BOARD_UART_BASE", base),
        ("LMCU_BOARD_UART_IRQ", str(irq)),
        ("LMCU_BOARD_UART_ENR", register),
        ("LMCU_BOARD_UART_ENABLE", bit),
        ("LMCU_BOARD_UART_AF", function),
        ("LMCU_BOARD_UART_BUS_DIVIDER", divider),
        ("LMCU_BOARD_TX_PORT", f"{ord(board.serial.tx[1]) - ord('A')}u"),
        ("LMCU_BOARD_TX_PIN", f"{board.serial.tx[2:]}u"),
        ("LMCU_BOARD_RX_PORT", f"{ord(board.serial.rx[1]) - ord('A')}u"),
        ("LMCU_BOARD_RX_PIN", f"{board.serial.rx[2:]}u"),
    ]


def _stack_bytes() -> int:
    text = (resources.path("firmware") / "runtime" / "lmcu_config.h").read_text(encoding="utf-8")
    match = re.search(r"#define LMCU_STACK_BYTES (\d+)", text)
    assert match is not None, "lmcu_config.h defines LMCU_STACK_BYTES"
    return int(match[1])


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
        },
        "upload": {
            "maximum_ram_size": board.sram_bytes,
            "maximum_size": board.flash_bytes,
            "protocol": board.upload,
            "protocols": [] if board.upload == "none" else ["dfu", "stlink"],
        },
    }


def _copies(folder: Path, patterns: tuple[str, ...], into: str) -> dict[str, bytes]:
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return {f"{into}/{file.name}": file.read_bytes() for file in files}


def render_project_files(board: Board) -> dict[str, bytes]:
    """Return the project's files for ``board`` as {relative path: content}, without the generated model.

    The result depends on the board and on this lora_mcu only: no dates, no paths of this machine.
    """
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.path("templates")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    firmware = resources.path("firmware")
    port = firmware / "ports" / board.family

    def render(template: str, **values: Any) -> bytes:
        return templates.get_template(template).render(board=board, **values).encode()

    files = {
        **_copies(firmware / "runtime", ("*.c",), "src/runtime"),
        **_copies(firmware / "runtime", ("*.h",), "include"),
        **_copies(port, ("*.c", "*.h"), "src/port"),
        **_copies(firmware / "platform", ("platform.json", "platform.py"), "platform"),
        **_copies(firmware / "platform" / "builder", ("main.py",), "platform/builder"),
    }
    manifest = json.dumps(platformio_manifest(board), indent=2, sort_keys=True) + "\n"
    files[f"platform/boards/{board.platformio.board}.json"] = manifest.encode()
    files["platformio.ini"] = render("platformio.ini.j2")
    files["include/lmcu_board.h"] = render("board.h.j2", defines=[] if board.is_native else _stm32f4_defines(board))
    if not board.is_native:
        regions = {"sram": board.region("sram"), "flash": board.region("flash")}
        files["linker.ld"] = render("linker.ld.j2", stack_bytes=_stack_bytes(), **regions)
    return dict(sorted(files.items()))

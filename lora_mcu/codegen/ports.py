# SPDX-License-Identifier: Apache-2.0
"""Which folders of ``firmware/ports`` a family is made of, and what ``lmcu_board.h`` tells them about a board."""

from __future__ import annotations

from collections.abc import Callable

from lora_mcu.boards import Board

Defines = list[tuple[str, str]]

_CORTEX_M = ("bare", "cortex_m")
FOLDERS = {
    "esp32c3": ("bare", "esp32c3"),
    "native": ("native",),
    "mps2": (*_CORTEX_M, "mps2"),
    "stm32f4": (*_CORTEX_M, "stm32f4"),
}

# Base address, interrupt (RM0090 table 62), clock enable register and bit (section 7.3), alternate function
# (STM32F405 data sheet, table 9), divider of its bus at full speed. RM0390 has the same for the STM32F446.
_STM32F4_UARTS = {
    "USART1": ("0x40011000u", 37, "RCC_APB2ENR", "(1u << 4)", "7u", "2u"),
    "USART2": ("0x40004400u", 38, "RCC_APB1ENR", "(1u << 17)", "7u", "4u"),
    "USART3": ("0x40004800u", 39, "RCC_APB1ENR", "(1u << 18)", "7u", "4u"),
    "USART6": ("0x40011400u", 71, "RCC_APB2ENR", "(1u << 5)", "8u", "2u"),
}
# Base address and receive interrupt: Arm's application notes AN500 and AN547 (the secure alias, where the core starts).
_MPS_UARTS = {"an500": ("0x40004000u", 0), "an547": ("0x59303000u", 33)}
_WITHOUT_RANDOM = ("stm32f446",)


def _pins(board: Board) -> Defines:
    pins = (("TX", board.serial.tx), ("RX", board.serial.rx))
    return [
        item
        for name, pin in pins
        for item in (
            (f"LMCU_BOARD_{name}_PORT", f"{ord(pin[1]) - ord('A')}u"),
            (f"LMCU_BOARD_{name}_PIN", f"{pin[2:]}u"),
        )
    ]


def _stm32f4(board: Board) -> Defines:
    base, irq, register, bit, function, divider = _STM32F4_UARTS[board.serial.peripheral]
    return [
        ("LMCU_BOARD_CLOCK_INPUT", "1" if board.bypass else "0"),
        ("LMCU_BOARD_RANDOM", "0" if board.mcu.startswith(_WITHOUT_RANDOM) else "1"),
        ("LMCU_BOARD_UART_BASE", base),
        ("LMCU_BOARD_UART_IRQ", str(irq)),
        ("LMCU_BOARD_UART_ENR", register),
        ("LMCU_BOARD_UART_ENABLE", bit),
        ("LMCU_BOARD_UART_AF", function),
        ("LMCU_BOARD_UART_BUS_DIVIDER", divider),
        *_pins(board),
    ]


def _mps2(board: Board) -> Defines:
    base, irq = _MPS_UARTS[board.mcu]
    return [("LMCU_BOARD_UART_BASE", base), ("LMCU_BOARD_UART_IRQ", str(irq))]


_DEFINES: dict[str, Callable[[Board], Defines]] = {
    "esp32c3": lambda _: [],
    "native": lambda _: [],
    "mps2": _mps2,
    "stm32f4": _stm32f4,
}


def defines(board: Board) -> Defines:
    """Return the names and values that the board's port needs beyond clock and baud rate."""
    cache = [("LMCU_BOARD_INSTRUCTION_CACHE", "1" if board.core == "cortex-m7f" else "0")]
    return (cache if board.core.startswith("cortex-m") else []) + _DEFINES[board.family](board)

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
    "stm32f4": (*_CORTEX_M, "stm32", "stm32f4_f7", "stm32f4"),
    "stm32f7": (*_CORTEX_M, "stm32", "stm32_uart", "stm32f4_f7", "stm32f7"),
    "stm32h7": (*_CORTEX_M, "stm32", "stm32_uart", "stm32h7"),
    "stm32l4": (*_CORTEX_M, "stm32", "stm32_uart", "stm32l4"),
}

# Base address, interrupt, clock enable register and bit, alternate function, divider of its bus at full speed.
# RM0090 table 62 and section 7.3, STM32F405 data sheet table 9; RM0390 has the same for the STM32F446.
_STM32F4_UARTS = {
    "USART1": ("0x40011000u", 37, "RCC_APB2ENR", "(1u << 4)", "7u", "2u"),
    "USART2": ("0x40004400u", 38, "RCC_APB1ENR", "(1u << 17)", "7u", "4u"),
    "USART3": ("0x40004800u", 39, "RCC_APB1ENR", "(1u << 18)", "7u", "4u"),
    "USART6": ("0x40011400u", 71, "RCC_APB2ENR", "(1u << 5)", "8u", "2u"),
}
_STM32_UARTS = {
    "stm32f4": _STM32F4_UARTS,
    "stm32f7": _STM32F4_UARTS,  # RM0385 table 46 and section 5.3, STM32F746 data sheet table 12: all as on the F4
    # RM0433 table 149 and section 8.7, STM32H743 data sheet tables 10 to 20
    "stm32h7": {
        "USART1": ("0x40011000u", 37, "RCC_APB2ENR", "(1u << 4)", "7u", "4u"),
        "USART2": ("0x40004400u", 38, "RCC_APB1LENR", "(1u << 17)", "7u", "4u"),
        "USART3": ("0x40004800u", 39, "RCC_APB1LENR", "(1u << 18)", "7u", "4u"),
        "USART6": ("0x40011400u", 71, "RCC_APB2ENR", "(1u << 5)", "7u", "4u"),
    },
    # RM0432 table 78 and section 6.4, STM32L4R5 data sheet table 16
    "stm32l4": {
        "USART1": ("0x40013800u", 37, "RCC_APB2ENR", "(1u << 14)", "7u", "1u"),
        "USART2": ("0x40004400u", 38, "RCC_APB1ENR1", "(1u << 17)", "7u", "1u"),
        "USART3": ("0x40004800u", 39, "RCC_APB1ENR1", "(1u << 18)", "7u", "1u"),
        "LPUART1": ("0x40008000u", 70, "RCC_APB1ENR2", "(1u << 0)", "8u", "1u"),
    },
}
# Base address and receive interrupt: Arm's application notes AN500 and AN547 (the secure alias, where the core starts).
_MPS_UARTS = {"an500": ("0x40004000u", 0), "an547": ("0x59303000u", 33)}
_MPS_WATCHDOGS = {"an500": "0x40008000u", "an547": "0u"}
# Longest erase of one area, ms: data sheets of STM32F405 (128 KB, 8 bits at a time), F746 (256 KB), H743 (128 KB), L4R5
# (16 KB); ESP32-C3's flash chips (16 sectors of 4 KB, 400 ms each). Files of the host take next to nothing.
_ERASE_MS = {
    "stm32f4": 4000,
    "stm32f7": 4000,
    "stm32h7": 4000,
    "stm32l4": 100,
    "esp32c3": 6400,
    "mps2": 20,
    "native": 20,
}
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


def _stm32(board: Board) -> Defines:
    base, irq, register, bit, function, divider = _STM32_UARTS[board.family][board.serial.peripheral]
    return [
        ("LMCU_BOARD_CLOCK_INPUT", "1" if board.bypass else "0"),
        ("LMCU_BOARD_RANDOM", "0" if board.mcu.startswith(_WITHOUT_RANDOM) else "1"),
        ("LMCU_BOARD_UART_BASE", base),
        ("LMCU_BOARD_UART_IRQ", str(irq)),
        ("LMCU_BOARD_UART_ENR", register),
        ("LMCU_BOARD_UART_ENABLE", bit),
        ("LMCU_BOARD_UART_AF", function),
        ("LMCU_BOARD_UART_BUS_DIVIDER", divider),
        ("LMCU_BOARD_UART_LOW_POWER", "1" if board.serial.peripheral.startswith("LP") else "0"),
        *_pins(board),
    ]


def _mps2(board: Board) -> Defines:
    base, irq = _MPS_UARTS[board.mcu]
    return [
        ("LMCU_BOARD_UART_BASE", base),
        ("LMCU_BOARD_UART_IRQ", str(irq)),
        ("LMCU_BOARD_WATCHDOG_BASE", _MPS_WATCHDOGS[board.mcu]),
    ]


_DEFINES: dict[str, Callable[[Board], Defines]] = {
    "esp32c3": lambda _: [],
    "native": lambda _: [],
    "mps2": _mps2,
    "stm32f4": _stm32,
    "stm32f7": _stm32,
    "stm32h7": _stm32,
    "stm32l4": _stm32,
}


def defines(board: Board) -> Defines:
    """Return the names and values that the board's port needs beyond clock and baud rate."""
    areas = board.adapter_region.areas // 2 if board.adapter_region else 0
    erase = [("LMCU_BOARD_FLASH_ERASE_MS", f"{areas * _ERASE_MS[board.family]}u")]
    caches = [("LMCU_BOARD_CACHES", "1" if board.core == "cortex-m7f" else "0")]
    return erase + (caches if board.core.startswith("cortex-m") else []) + _DEFINES[board.family](board)

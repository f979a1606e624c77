/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port's pins, RM0090 section 8.4, and the bounded wait that every driver uses. */
#include "lmcu_board.h"
#include "stm32.h"

/* Mode 2 is "alternate function"; the pull-up keeps an unconnected line idle. */
static void alternate_pin(uint32_t port, uint32_t pin)
{
    RCC_GPIOENR |= 1u << port;
    (void)RCC_GPIOENR; /* a read back covers the delay after enabling a clock */
    GPIO_AFR(port, pin) = (GPIO_AFR(port, pin) & ~(15u << (pin % 8u * 4u))) | (LMCU_BOARD_UART_AF << (pin % 8u * 4u));
    GPIO_PUPDR(port) = (GPIO_PUPDR(port) & ~(3u << (pin * 2u))) | (1u << (pin * 2u));
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (pin * 2u))) | (2u << (pin * 2u));
}

void lmcu_uart_pins(void)
{
    alternate_pin(LMCU_BOARD_TX_PORT, LMCU_BOARD_TX_PIN);
    alternate_pin(LMCU_BOARD_RX_PORT, LMCU_BOARD_RX_PIN);
}

bool lmcu_reached(volatile uint32_t *reg, uint32_t mask, uint32_t value, uint32_t reads)
{
    for (uint32_t i = 0; i < reads; i++) {
        if ((*reg & mask) == value) {
            return true;
        }
    }
    return false;
}

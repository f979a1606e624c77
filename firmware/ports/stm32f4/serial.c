/* SPDX-License-Identifier: Apache-2.0 */
/* USART, 8N1 (RM0090 section 30): received bytes go through an interrupt into lmcu_rx_ring, sent ones are polled. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define UART LMCU_BOARD_UART_BASE
#define WAIT_READS 200000u /* more than ten characters at the slowest rate and the fastest clock */

static uint32_t bus_hz(void)
{
    const bool fast = lmcu_port_state.fields.clock_hz == LMCU_BOARD_CLOCK_HZ;
    return lmcu_port_state.fields.clock_hz / (fast ? LMCU_BOARD_UART_BUS_DIVIDER : 1u);
}

/* Section 30.3.4: with 16 samples a bit the divider in 1/16 is bus clock / baud, at least 16. */
static uint32_t divider(uint32_t baud)
{
    const uint32_t nearest = (bus_hz() + baud / 2u) / baud;
    return nearest < 16u ? 16u : nearest > 0xFFFFu ? 0xFFFFu : nearest;
}

void lmcu_serial_init(void)
{
    lmcu_uart_pins();
    LMCU_BOARD_UART_ENR |= LMCU_BOARD_UART_ENABLE;
    (void)LMCU_BOARD_UART_ENR;
    USART_BRR(UART) = divider(LMCU_BOARD_BAUD);
    USART_CR1(UART) = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
    NVIC_ISER(LMCU_BOARD_UART_IRQ) = 1u << (LMCU_BOARD_UART_IRQ % 32u);
}

/* Reading SR, then DR clears RXNE and ORE (section 30.6.1). */
void lmcu_serial_interrupt(void)
{
    const uint32_t status = USART_SR(UART);
    const uint8_t byte = (uint8_t)USART_DR(UART);
    if ((status & USART_SR_ORE) != 0) {
        lmcu_port_state.fields.rx_lost++;
    }
    if ((status & USART_SR_RXNE) != 0) {
        lmcu_ring_put(byte);
    }
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    return lmcu_ring_take(buffer, capacity);
}

/* TXE or TC will do: an emulator may show only one of them. */
static bool can_send(void)
{
    for (uint32_t reads = 0; reads < WAIT_READS; reads++) {
        if ((USART_SR(UART) & (USART_SR_TXE | USART_SR_TC)) != 0) {
            return true;
        }
    }
    return false;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && can_send(); i++) {
        USART_DR(UART) = bytes[i];
    }
}

void lmcu_serial_drain(void)
{
    for (uint32_t reads = 0; reads < WAIT_READS && (USART_SR(UART) & USART_SR_TC) == 0; reads++) {
    }
}

uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return bus_hz() / divider(baud);
}

void lmcu_port_baud_set(uint32_t baud)
{
    lmcu_serial_drain();
    USART_BRR(UART) = divider(baud != 0 ? baud : LMCU_BOARD_BAUD);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* USART or LPUART of the newer register layout, 8N1 (RM0385 section 31, RM0433 sections 48 and 49, RM0432 sections 47 and 48):
 * received bytes go through an interrupt into lmcu_rx_ring, sent ones are polled. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define USART_CR1 LMCU_REG(LMCU_BOARD_UART_BASE + 0x00u)
#define USART_CR1_UE (1u << 0)
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_CR1_RXNEIE (1u << 5)
#define USART_BRR LMCU_REG(LMCU_BOARD_UART_BASE + 0x0Cu)
#define USART_ISR LMCU_REG(LMCU_BOARD_UART_BASE + 0x1Cu)
#define USART_ISR_ORE (1u << 3)
#define USART_ISR_RXNE (1u << 5)
#define USART_ISR_TC (1u << 6)
#define USART_ISR_TXE (1u << 7)
#define USART_ICR LMCU_REG(LMCU_BOARD_UART_BASE + 0x20u)
#define USART_RDR LMCU_REG(LMCU_BOARD_UART_BASE + 0x24u)
#define USART_TDR LMCU_REG(LMCU_BOARD_UART_BASE + 0x28u)

#define WAIT_READS 200000u /* more than ten characters at the slowest rate and the fastest clock */

/* With 16 samples a bit a USART's divider is bus clock / baud; an LPUART's has eight bits after the point (RM0432 section
 * 48.4.7). */
#define SCALE (LMCU_BOARD_UART_LOW_POWER ? 256u : 1u)
#define SMALLEST (LMCU_BOARD_UART_LOW_POWER ? 0x300u : 16u)
#define LARGEST (LMCU_BOARD_UART_LOW_POWER ? 0xFFFFFu : 0xFFFFu)

static uint64_t scaled_hz(void)
{
    const bool fast = lmcu_port_state.fields.clock_hz == LMCU_BOARD_CLOCK_HZ;
    return (uint64_t)(lmcu_port_state.fields.clock_hz / (fast ? LMCU_BOARD_UART_BUS_DIVIDER : 1u)) * SCALE;
}

static uint32_t divider(uint32_t baud)
{
    const uint64_t nearest = (scaled_hz() + baud / 2u) / baud;
    return nearest < SMALLEST ? SMALLEST : nearest > LARGEST ? LARGEST : (uint32_t)nearest;
}

/* The divider can only be written while the port is off. */
static void set_divider(uint32_t baud)
{
    USART_CR1 = 0;
    USART_BRR = divider(baud);
    USART_CR1 = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
}

void lmcu_serial_init(void)
{
    lmcu_uart_pins();
    LMCU_BOARD_UART_ENR |= LMCU_BOARD_UART_ENABLE;
    (void)LMCU_BOARD_UART_ENR;
    set_divider(LMCU_BOARD_BAUD);
    NVIC_ISER(LMCU_BOARD_UART_IRQ) = 1u << (LMCU_BOARD_UART_IRQ % 32u);
}

/* Reading the data clears RXNE; an overrun has to be cleared on its own, or the interrupt comes again at once. */
void lmcu_serial_interrupt(void)
{
    const uint32_t status = USART_ISR;
    if ((status & USART_ISR_ORE) != 0) {
        USART_ICR = USART_ISR_ORE;
        lmcu_port_state.fields.rx_lost++;
    }
    if ((status & USART_ISR_RXNE) != 0) {
        lmcu_ring_put((uint8_t)USART_RDR);
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
        if ((USART_ISR & (USART_ISR_TXE | USART_ISR_TC)) != 0) {
            return true;
        }
    }
    return false;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && can_send(); i++) {
        USART_TDR = bytes[i];
    }
}

void lmcu_serial_drain(void)
{
    (void)lmcu_reached(&USART_ISR, USART_ISR_TC, USART_ISR_TC, WAIT_READS);
}

uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return (uint32_t)(scaled_hz() / divider(baud));
}

void lmcu_port_baud_set(uint32_t baud)
{
    lmcu_serial_drain();
    set_divider(baud != 0 ? baud : LMCU_BOARD_BAUD);
}

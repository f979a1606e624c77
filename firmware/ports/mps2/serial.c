/* SPDX-License-Identifier: Apache-2.0 */
/* The CMSDK APB UART of Arm's test benches (Cortex-M System Design Kit reference manual DDI 0479, section 4.3), whose
 * clock is the system's and has one speed. Received bytes go through an interrupt into lmcu_rx_ring, sent ones are polled. */
#include "cortex_m.h"
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

#define UART_DATA LMCU_REG(LMCU_BOARD_UART_BASE + 0x00u)
#define UART_STATE LMCU_REG(LMCU_BOARD_UART_BASE + 0x04u)
#define UART_STATE_TX_FULL (1u << 0)
#define UART_STATE_RX_FULL (1u << 1)
#define UART_STATE_RX_OVERRUN (1u << 3)
#define UART_CTRL LMCU_REG(LMCU_BOARD_UART_BASE + 0x08u)
#define UART_CTRL_TX (1u << 0)
#define UART_CTRL_RX (1u << 1)
#define UART_CTRL_RX_INTERRUPT (1u << 3)
#define UART_INTCLEAR LMCU_REG(LMCU_BOARD_UART_BASE + 0x0Cu)
#define UART_INT_RX (1u << 1)
#define UART_BAUDDIV LMCU_REG(LMCU_BOARD_UART_BASE + 0x10u)

#define WAIT_READS 200000u /* more than ten characters at the slowest rate */

void lmcu_clock_init(void)
{
    lmcu_port_state.fields.clock_hz = LMCU_BOARD_CLOCK_HZ;
    lmcu_port_state.fields.clock_source = 1; /* the bench's oscillator */
}

/* The divider has 20 bits and is at least 16 (section 4.3.3). */
static uint32_t divider(uint32_t baud)
{
    const uint32_t nearest = (LMCU_BOARD_CLOCK_HZ + baud / 2u) / baud;
    return nearest < 16u ? 16u : nearest > 0xFFFFFu ? 0xFFFFFu : nearest;
}

static void set_divider(uint32_t baud)
{
    UART_BAUDDIV = divider(baud);
    lmcu_port_state.fields.baud = baud;
}

void lmcu_serial_init(void)
{
    set_divider(LMCU_BOARD_BAUD);
    UART_CTRL = UART_CTRL_TX | UART_CTRL_RX | UART_CTRL_RX_INTERRUPT;
    NVIC_ISER(LMCU_BOARD_UART_IRQ) = 1u << (LMCU_BOARD_UART_IRQ % 32u);
}

void lmcu_serial_interrupt(void)
{
    UART_INTCLEAR = UART_INT_RX;
    if ((UART_STATE & UART_STATE_RX_OVERRUN) != 0) {
        UART_STATE = UART_STATE_RX_OVERRUN; /* writing 1 clears it */
        lmcu_port_state.fields.rx_lost++;
    }
    if ((UART_STATE & UART_STATE_RX_FULL) != 0) {
        lmcu_ring_put((uint8_t)UART_DATA);
    }
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    return lmcu_ring_take(buffer, capacity);
}

static bool can_send(void)
{
    for (uint32_t reads = 0; reads < WAIT_READS; reads++) {
        if ((UART_STATE & UART_STATE_TX_FULL) == 0) {
            return true;
        }
    }
    return false;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && can_send(); i++) {
        UART_DATA = bytes[i];
    }
}

/* The buffer holds one byte; the one behind it is on the wire for ten bits more. */
void lmcu_serial_drain(void)
{
    (void)can_send();
    const uint64_t start = lmcu_port_ticks();
    while (lmcu_port_ticks() - start < 10u * (LMCU_BOARD_CLOCK_HZ / lmcu_port_state.fields.baud)) {
    }
}

/* The test benches have no generator. */
uint32_t lmcu_hardware_random(void)
{
    return 0;
}

uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return LMCU_BOARD_CLOCK_HZ / divider(baud);
}

void lmcu_port_baud_set(uint32_t baud)
{
    lmcu_serial_drain();
    set_divider(baud != 0 ? baud : LMCU_BOARD_BAUD);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, UART0, ticks, reset of an ESP32-C3. Nothing here uses interrupts: the host has one request in flight, so that bytes
 * only arrive while the main loop polls, and the UART itself holds 128 more. */
#include "esp32c3.h"
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

#define WAIT_READS 200000u /* more than ten characters at the slowest rate */
#define FIFO_BYTES 126u    /* of 128 */

/* The crystal, undivided; the ROM leaves it halved. The PLL needs analog settings that only Espressif's software knows. */
void lmcu_clock_init(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    SYSTEM_SYSCLK_CONF &= ~SYSTEM_SYSCLK_CONF_CHOICE;
    const bool reached = (SYSTEM_SYSCLK_CONF & SYSTEM_SYSCLK_CONF_CHOICE) == 0;
    port->clock_hz = reached ? LMCU_BOARD_CRYSTAL_HZ : LMCU_BOARD_CRYSTAL_HZ / 2u;
    port->clock_source = 1;
}

/* Sixteenths of the divider, which has 12 bits before the point. */
static uint32_t divider(uint32_t baud)
{
    const uint32_t nearest = (16u * LMCU_BOARD_CRYSTAL_HZ + baud / 2u) / baud; /* 640 million fits */
    return nearest < 16u ? 16u : nearest > 0xFFFFu ? 0xFFFFu : nearest;
}

static void set_divider(uint32_t baud)
{
    const uint32_t sixteenths = divider(baud);
    UART_CLKDIV = (sixteenths / 16u) | (sixteenths % 16u) << 20;
    UART_ID |= UART_ID_UPDATE;
    for (uint32_t reads = 0; reads < 1000 && (UART_ID & UART_ID_UPDATE) != 0; reads++) {
    }
    lmcu_port_state.fields.baud = baud;
}

/* The UART counts crystal periods, whatever the core runs at. The ROM has routed UART0 to its pins. */
void lmcu_serial_init(void)
{
    UART_CLK_CONF = (UART_CLK_CONF & ~(UART_CLK_CONF_DIVIDERS)) | UART_CLK_CONF_XTAL | UART_CLK_CONF_ENABLE;
    UART_CONF0 = (UART_CONF0 & ~UART_CONF0_FORMAT) | UART_CONF0_8N1;
    set_divider(LMCU_BOARD_BAUD);
}

void lmcu_port_init(void)
{
    lmcu_boot_count();
    lmcu_clock_init();
    lmcu_serial_init();
}

static void receive(void)
{
    for (uint32_t count = UART_STATUS_RX_COUNT(UART_STATUS); count > 0; count--) {
        lmcu_ring_put((uint8_t)UART_FIFO);
    }
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    receive();
    return lmcu_ring_take(buffer, capacity);
}

static bool can_send(void)
{
    for (uint32_t reads = 0; reads < WAIT_READS; reads++) {
        if (UART_STATUS_TX_COUNT(UART_STATUS) < FIFO_BYTES) {
            return true;
        }
        receive();
    }
    return false;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && can_send(); i++) {
        UART_FIFO = bytes[i];
    }
}

/* The count reaches 0 when the last byte goes to the wire, where it takes ten bits' time. */
void lmcu_serial_drain(void)
{
    for (uint32_t reads = 0; reads < WAIT_READS && UART_STATUS_TX_COUNT(UART_STATUS) != 0; reads++) {
    }
    const uint64_t start = lmcu_port_ticks();
    while (lmcu_port_ticks() - start < 10u * (LMCU_BOARD_CLOCK_HZ / lmcu_port_state.fields.baud)) {
    }
}

void lmcu_port_idle(void)
{
}

/* Core clocks, made from the system timer: the part's own cycle counter is not the standard one. */
uint64_t lmcu_port_ticks(void)
{
    SYSTIMER_OP = SYSTIMER_OP_UPDATE;
    for (uint32_t reads = 0; reads < 1000 && (SYSTIMER_OP & SYSTIMER_OP_VALID) == 0; reads++) {
    }
    const uint64_t count = (uint64_t)SYSTIMER_HIGH << 32 | SYSTIMER_LOW;
    return count * (lmcu_port_state.fields.clock_hz / (SYSTIMER_HZ / 4u)) / 4u;
}

/* Weak without radio, which is why the time of the first question goes into the boot id too. */
uint32_t lmcu_hardware_random(void)
{
    return RNG_DATA;
}

void lmcu_port_reset(void)
{
    lmcu_serial_drain();
    lmcu_port_state.fields.reset_note = LMCU_RESET_NOTE | LMCU_RESET_REQUEST;
    RTC_OPTIONS0 = RTC_OPTIONS0_RESET;
    for (;;) {
    }
}

uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return 16u * LMCU_BOARD_CRYSTAL_HZ / divider(baud);
}

void lmcu_port_baud_set(uint32_t baud)
{
    lmcu_serial_drain();
    set_divider(baud != 0 ? baud : LMCU_BOARD_BAUD);
}

/* No interrupt: what arrives while the core computes waits in the UART itself. */
uint32_t lmcu_port_rx_bytes(void)
{
    return FIFO_BYTES;
}

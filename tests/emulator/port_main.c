/* SPDX-License-Identifier: Apache-2.0 */
/* A program for the ports alone: one letter is one question to lmcu_port.h, anything else comes back as it is. */
#include "lmcu_board.h"
#include "lmcu_port.h"

#define SCAN_READS 1000000

static void answer(uint64_t value)
{
    uint8_t text[17];
    for (int i = 15; i >= 0; i--, value >>= 4) {
        text[i] = (uint8_t)"0123456789abcdef"[value & 15u];
    }
    text[16] = '\n';
    lmcu_port_write(text, sizeof text);
}

/* How often the tick count went back between two reads. */
static uint64_t tick_faults(void)
{
    uint64_t faults = 0;
    uint64_t last = lmcu_port_ticks();
    for (uint32_t i = 0; i < SCAN_READS; i++) {
        const uint64_t now = lmcu_port_ticks();
        faults += now < last;
        last = now;
    }
    return faults;
}

static uint64_t loop_ticks(void)
{
    const uint64_t start = lmcu_port_ticks();
    for (volatile uint32_t i = 0; i < 100000; i++) {
    }
    return lmcu_port_ticks() - start;
}

/* Reads nothing for a while, so that the receive ring fills up. */
static void be_busy(void)
{
    const uint64_t start = lmcu_port_ticks();
    while (lmcu_port_ticks() - start < 2ull * LMCU_BOARD_CLOCK_HZ) {
    }
}

static uint32_t use_stack(void)
{
    volatile uint8_t room[1500];
    for (uint32_t i = 0; i < sizeof room; i++) {
        room[i] = (uint8_t)i;
    }
    return room[7];
}

/* Starts the watchdog, feeds it through three periods, then hangs. */
static void hang(void)
{
    const uint32_t ms = lmcu_port_watchdog_start(300);
    const uint64_t start = lmcu_port_ticks();
    const uint64_t period = (uint64_t)LMCU_BOARD_CLOCK_HZ / 1000u * ms;
    while (lmcu_port_ticks() - start < 3u * period) {
        lmcu_port_watchdog_feed();
    }
    lmcu_port_write((const uint8_t *)"hung\n", 5);
    for (;;) {
    }
}

static void serve(uint8_t byte)
{
    switch (byte) {
    case 'T': answer(lmcu_port_ticks()); break;
    case 'I': answer(lmcu_port_boot_id()); break;
    case 'C': answer(lmcu_port_clock_hz()); break;
    case 'E': answer(lmcu_port_clock_source()); break;
    case 'S': answer(lmcu_port_stack_used()); break;
    case 'U': answer(use_stack()); break;
    case 'M': answer(tick_faults()); break;
    case 'L': answer(loop_ticks()); break;
    case 'B': be_busy(); break;
    case 'W': hang(); break;
    case 'Q': answer(lmcu_port_reset_cause()); break;
    case 'R': lmcu_port_reset(); break;
    case 'F': __builtin_trap(); break; /* an undefined instruction */
    default: lmcu_port_write(&byte, 1); break;
    }
}

int lmcu_main(void)
{
    lmcu_port_init();
    lmcu_port_write((const uint8_t *)"boot\n", 5);
    for (;;) {
        uint8_t bytes[64];
        const uint32_t count = lmcu_port_read(bytes, sizeof bytes);
        for (uint32_t i = 0; i < count; i++) {
            serve(bytes[i]);
        }
        if (count == 0) {
            lmcu_port_idle();
        }
    }
}

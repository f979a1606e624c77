/* SPDX-License-Identifier: Apache-2.0 */
/* The port's state, and what is answered from it: clock, boot id, cause of the reset. */
#include "lmcu_port.h"
#include "port_state.h"

lmcu_port_state_t lmcu_port_state LMCU_ALIGNED(8) __attribute__((section(".noinit.port")));

typedef char lmcu_port_state_has_its_size[sizeof(lmcu_port_state_t) == LMCU_PORT_BYTES ? 1 : -1];

/* The hardware knows the watchdog and power-on; that a reset was asked for or followed a fault only the note tells. */
static uint32_t reset_cause(uint32_t note)
{
    const uint32_t hardware = lmcu_hardware_reset_cause();
    const bool noted = (note & ~0xFFu) == LMCU_RESET_NOTE;
    return noted && hardware != LMCU_RESET_POWER && hardware != LMCU_RESET_WATCHDOG ? note & 0xFFu : hardware;
}

void lmcu_boot_count(void)
{
    const uint32_t boots = lmcu_port_state.fields.boot_count, note = lmcu_port_state.fields.reset_note;
    volatile uint64_t *words = lmcu_port_state.bytes; /* volatile: no call of memset, which a port alone does not have */
    for (uint32_t i = 0; i < LMCU_PORT_BYTES / 8; i++) {
        words[i] = 0;
    }
    lmcu_port_state.fields.boot_count = boots + 1;
    lmcu_port_state.fields.reset_cause = reset_cause(note);
}

uint32_t lmcu_port_reset_cause(void)
{
    return lmcu_port_state.fields.reset_cause;
}

uint32_t lmcu_port_clock_hz(void)
{
    return lmcu_port_state.fields.clock_hz;
}

uint32_t lmcu_port_clock_source(void)
{
    return lmcu_port_state.fields.clock_source;
}

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

/* Made at the first question, whose moment is the host's: true random bits where there are any, else that moment and a
 * counter that survives a reset. */
uint32_t lmcu_port_boot_id(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    if (port->boot_id == 0) {
        port->boot_id = mix(port->boot_count ^ mix((uint32_t)lmcu_port_ticks() ^ mix(lmcu_hardware_random()))) | 1u;
    }
    return port->boot_id;
}

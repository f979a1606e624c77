/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that the port keeps in RAM, in one object whose size the memory report knows. */
#ifndef LMCU_PORT_STATE_H
#define LMCU_PORT_STATE_H

#include "lmcu.h"

typedef struct {
    volatile uint32_t rx_head;  /* bytes ever put into the ring, by the interrupt */
    volatile uint32_t rx_tail;  /* bytes ever taken out */
    volatile uint32_t rx_lost;  /* bytes that found the ring or the data register full */
    volatile uint32_t tick_wraps;
    uint32_t clock_hz;
    uint32_t clock_source;
    uint32_t boot_id;           /* 0: not made yet */
    uint32_t boot_count;        /* survives a reset, random after power-on: never initialised */
} lmcu_port_fields_t;

typedef union {
    lmcu_port_fields_t fields;
    uint64_t bytes[LMCU_PORT_BYTES / 8];
} lmcu_port_state_t;

extern lmcu_port_state_t lmcu_port_state;
extern uint8_t lmcu_rx_ring[LMCU_RX_RING_BYTES];
extern uint8_t lmcu_stack[LMCU_STACK_BYTES];

void lmcu_clock_init(void);
void lmcu_serial_init(void);
void lmcu_serial_drain(void); /* waits, bounded, until the last byte has left the wire */
void lmcu_serial_interrupt(void);
void lmcu_tick_init(void);
void lmcu_tick_interrupt(void);
void lmcu_reset_handler(void);

#endif

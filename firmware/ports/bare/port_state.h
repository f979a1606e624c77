/* SPDX-License-Identifier: Apache-2.0 */
/* What the ports of bare parts share: everything that they keep in RAM, in one object whose size the memory report knows,
 * and the pieces that a family must bring. */
#ifndef LMCU_PORT_STATE_H
#define LMCU_PORT_STATE_H

#include "lmcu_port.h"

#define LMCU_FLASH_FILE_BYTES 32u

/* What whoever resets the part leaves for the next boot, with a cause in the low byte; a plain number, for assembly too. */
#define LMCU_RESET_NOTE 0x5EED0000

typedef struct {
    volatile uint32_t reset_note; /* first, where assembly finds it; survives a reset */
    volatile uint32_t rx_head;  /* bytes ever put into the ring */
    volatile uint32_t rx_tail;  /* bytes ever taken out */
    volatile uint32_t rx_lost;  /* bytes that found the ring or the data register full */
    volatile uint32_t tick_wraps;
    uint32_t clock_hz;
    uint32_t clock_source;
    uint32_t boot_id;           /* 0: not made yet */
    uint32_t boot_count;        /* survives a reset, random after power-on: never initialised */
    uint32_t reset_cause;
    uint32_t baud;              /* of the line */
    volatile uint32_t flash_torn; /* the flash reported a torn unit (STM32L4) */
    uint32_t flash_file;        /* in an emulator: handle of the file that is the flash; 0: not opened yet */
} lmcu_port_fields_t;

typedef union {
    lmcu_port_fields_t fields;
    uint64_t bytes[LMCU_PORT_BYTES / 8];
} lmcu_port_state_t;

extern lmcu_port_state_t lmcu_port_state;
extern uint8_t lmcu_rx_ring[LMCU_RX_RING_BYTES];
extern uint8_t lmcu_stack[LMCU_STACK_BYTES];

/* bare/ */
void lmcu_boot_count(void); /* all fields 0 but the count, which rises, and the cause of the reset */
void lmcu_ring_put(uint8_t byte);
uint32_t lmcu_ring_take(uint8_t *buffer, uint32_t capacity);
void lmcu_zero_bss(void);
void lmcu_paint_stack(void);

/* cortex_m/: a file as flash, in emulators. The interface is lmcu_port.h's. */
extern const char lmcu_flash_file[LMCU_FLASH_FILE_BYTES];
const char *lmcu_flash_file_name(void); /* empty: there is none */
bool lmcu_file_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count);
bool lmcu_file_flash_erase(uint32_t half);
bool lmcu_file_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit);

/* the family: its flash driver, as lmcu_port.h describes it; without one, cortex_m/no_flash.c stands in */
lmcu_flash_t lmcu_hardware_flash(void);
bool lmcu_hardware_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count);
bool lmcu_hardware_flash_erase(uint32_t half);
bool lmcu_hardware_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit);

/* the family */
void lmcu_clock_init(void); /* sets clock_hz and clock_source */
void lmcu_serial_init(void);
void lmcu_serial_drain(void); /* waits, bounded, until the last byte has left the wire */
void lmcu_serial_interrupt(void);
uint32_t lmcu_hardware_reset_cause(void); /* LMCU_RESET_*, read once; UNKNOWN where there is no register for it */
uint32_t lmcu_hardware_random(void); /* 0 where there is no generator or it does not answer */

void lmcu_memory_init(void); /* before RAM is touched; weak in cortex_m/ */

/* the core */
void lmcu_tick_init(void);
void lmcu_tick_interrupt(void);
void lmcu_reset_handler(void);
void lmcu_nmi(void);
void lmcu_fault(void); /* resets the part */

#endif

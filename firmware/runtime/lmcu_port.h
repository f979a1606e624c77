/* SPDX-License-Identifier: Apache-2.0 */
/* All that a board must provide. A port implements these functions; nothing else in the runtime touches hardware. */
#ifndef LMCU_PORT_H
#define LMCU_PORT_H

#include "lmcu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Clocks, UART, tick; returns when bytes can flow. */
void lmcu_port_init(void);

/* Moves up to `capacity` received bytes into `buffer`; returns how many (0: none waiting). Never blocks. */
uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity);

/* Sends `count` bytes; returns when they are queued or sent. Bounded: gives up on a dead line. */
void lmcu_port_write(const uint8_t *bytes, uint32_t count);

/* Nothing to do: sleep until the next interrupt (WFI). May return at any time. */
void lmcu_port_idle(void);

/* A counter that rises with executed instructions or cycles as well as the core can tell (SysTick), 64-bit, from boot. */
uint64_t lmcu_port_ticks(void);

/* Core clock in Hz that was really reached; which source (0 internal, 1 external crystal). */
uint32_t lmcu_port_clock_hz(void);
uint32_t lmcu_port_clock_source(void);

/* A number that differs from boot to boot as well as the board can make it (HELLO's boot id). */
uint32_t lmcu_port_boot_id(void);

/* Reset of the whole part. Does not return. */
void lmcu_port_reset(void);

/* Why the part was reset: LMCU_RESET_*, the same for the whole boot; UNKNOWN where nothing tells. */
uint32_t lmcu_port_reset_cause(void);

/* Starts the watchdog with a period of at least `ms`, for good. Returns the shortest period that the part's tolerances allow,
 * 0 where there is no watchdog. Nothing starts it but this call. */
uint32_t lmcu_port_watchdog_start(uint32_t ms);

/* Starts the period anew; harmless where it never began. The runtime calls it between two layers and in the main loop; a
 * driver that waits long (an erase of several areas) calls it between two waits. */
void lmcu_port_watchdog_feed(void);

/* Bytes that the port takes from the line while the core computes: the ring where an interrupt fills it. The host keeps no
 * more than that in flight behind the request that is being run. */
uint32_t lmcu_port_rx_bytes(void);

/* The rate nearest to `baud` that the line can have; 0: this port has one speed, or none so near that asking makes sense. */
uint32_t lmcu_port_baud_near(uint32_t baud);

/* Changes the line's speed once all bytes are out; 0: back to the board's own. Only rates that lmcu_port_baud_near gave. */
void lmcu_port_baud_set(uint32_t baud);

/* Lowest stack pointer seen, as bytes used of LMCU_STACK_BYTES (painted stack); 0 where unknown. */
uint32_t lmcu_port_stack_used(void);

/* Flash for the adapter store: two halves of `half_bytes`, programmed in whole units of `unit_bytes` (4, 8, 16 or 32), each
 * unit once between erases. half_bytes 0: this port has none, and the functions below are never called. */
typedef struct {
    uint32_t half_bytes, unit_bytes;
} lmcu_flash_t;
lmcu_flash_t lmcu_port_flash(void);

/* Reads from half 0 or 1. False: a unit is torn and reads as an ECC error; it must not fault. */
bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count);

/* Erased bytes are 0xFF. False: it failed. */
bool lmcu_port_flash_erase(uint32_t half);

/* The longest that one such erase stalls the core, ms, by the part's data sheet: the host is told before (BUSY). */
uint32_t lmcu_port_flash_erase_ms(void);

/* Programs one unit and reads it back. False: it failed, or reads otherwise. */
bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit);

/* The image's entry after start-up code: lmcu_main never returns on a board. */
int lmcu_main(void);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* lora_mcu inside a program that owns its start-up and its serial line (Arduino, ESP-IDF, STM32Cube, a host process): the
 * host tool's protocol over any byte stream.
 *
 *     lmcu_begin(&stream);               once
 *     while (...) { lmcu_poll(); ... }   as often as the program can
 *
 * Programs that want no protocol leave this file alone and call lmcu.h: lmcu_init, lmcu_infer, lmcu_train_sample, ... */
#ifndef LMCU_STREAM_H
#define LMCU_STREAM_H

#include "lmcu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the program lends. `user` is handed to every function; those that may be NULL say so. */
typedef struct {
    /* Moves up to `capacity` received bytes into `buffer`; returns how many (0: none waiting). Must not block. The
     * receiver behind it holds `rx_bytes`: a training step takes many characters' time. */
    uint32_t (*read)(void *user, uint8_t *buffer, uint32_t capacity);
    void (*write)(void *user, const uint8_t *bytes, uint32_t count);
    uint32_t (*ticks)(void *user); /* rises and wraps at 2^32, read at least once a wrap; NULL: all durations are 0 */
    void (*reset)(void *user);     /* resets the part; NULL, or returning: REBOOT starts lora_mcu anew, not the part */
    void *user;
    uint32_t rx_bytes;             /* that the program's receiver holds meanwhile; 0: the host sends one request at a time */
    uint32_t ticks_hz;             /* what HELLO calls the clock */
    uint32_t boot_id;              /* differs from boot to boot as well as the program can make it */
} lmcu_stream_t;

/* Keeps a copy of *stream and initializes everything. FLOAT_ENV: this core does not compute as promised; inference works,
 * training is refused. BAD_ARGUMENT: no read or write. */
lmcu_status_t lmcu_begin(const lmcu_stream_t *stream);

/* Takes waiting bytes, answers complete requests, trains on one stored sample while a run is in progress. Returns true
 * when there was something to do. Needs up to LMCU_STACK_BYTES of the caller's stack. */
bool lmcu_poll(void);

/* A program that has flash for saved adapters defines the lmcu_port_flash functions of lmcu_port.h; the ones here are weak
 * and say that there is none. */

#ifdef __cplusplus
}
#endif
#endif

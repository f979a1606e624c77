/* SPDX-License-Identifier: Apache-2.0 */
/* The port of a library: everything comes from the program's lmcu_stream_t. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "lmcu_stream.h"
#include "protocol.h"
#include "store.h"

#if defined(__GNUC__)
#define WEAK __attribute__((weak))
#else
#define WEAK
#endif

typedef struct {
    lmcu_stream_t stream;
    uint64_t ticks;
} lmcu_port_fields_t;

typedef union {
    lmcu_port_fields_t fields;
    uint64_t bytes[LMCU_PORT_BYTES / 8];
} lmcu_port_state_t;

lmcu_port_state_t lmcu_port_state LMCU_ALIGNED(8);
typedef char lmcu_port_state_has_its_size[sizeof(lmcu_port_state_t) == LMCU_PORT_BYTES ? 1 : -1];

#define STREAM (lmcu_port_state.fields.stream)

static lmcu_status_t begin(void)
{
    lmcu_port_init();
    const lmcu_status_t status = lmcu_init();
    lmcu_slot_boot();
    lmcu_link_init();
    return status;
}

lmcu_status_t lmcu_begin(const lmcu_stream_t *stream)
{
    if (stream == NULL || stream->read == NULL || stream->write == NULL) {
        return LMCU_BAD_ARGUMENT;
    }
    memset(&lmcu_port_state, 0, sizeof lmcu_port_state);
    STREAM = *stream;
    return begin();
}

bool lmcu_poll(void)
{
    return STREAM.read != NULL && lmcu_link_poll();
}

void lmcu_port_init(void)
{
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    return STREAM.read(STREAM.user, buffer, capacity);
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    STREAM.write(STREAM.user, bytes, count);
}

void lmcu_port_idle(void)
{
}

uint64_t lmcu_port_ticks(void)
{
    uint64_t *ticks = &lmcu_port_state.fields.ticks;
    if (STREAM.ticks != NULL) {
        *ticks += (uint32_t)(STREAM.ticks(STREAM.user) - (uint32_t)*ticks);
    }
    return *ticks;
}

uint32_t lmcu_port_clock_hz(void)
{
    return STREAM.ticks_hz;
}

uint32_t lmcu_port_clock_source(void)
{
    return 0;
}

uint32_t lmcu_port_boot_id(void)
{
    return STREAM.boot_id;
}

void lmcu_port_reset(void)
{
    if (STREAM.reset != NULL) {
        STREAM.reset(STREAM.user);
    }
    STREAM.boot_id++;
    (void)begin();
}

uint32_t lmcu_port_stack_used(void)
{
    return 0; /* the program's stack, not ours */
}

/* Only the program can know. */
WEAK uint32_t lmcu_port_reset_cause(void)
{
    return LMCU_RESET_UNKNOWN;
}

/* A watchdog is the program's, which may feed it in lmcu_layer_done. */
uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
    (void)ms;
    return 0;
}

void lmcu_port_watchdog_feed(void)
{
}

uint32_t lmcu_port_rx_bytes(void)
{
    return STREAM.rx_bytes;
}

/* The line is the program's too. */
uint32_t lmcu_port_baud_near(uint32_t baud)
{
    (void)baud;
    return 0;
}

void lmcu_port_baud_set(uint32_t baud)
{
    (void)baud;
}

WEAK uint32_t lmcu_port_flash_erase_ms(void)
{
    return 0;
}

WEAK lmcu_flash_t lmcu_port_flash(void)
{
    return (lmcu_flash_t){0, 0};
}

WEAK bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    (void)half;
    (void)offset;
    (void)to;
    (void)count;
    return false;
}

WEAK bool lmcu_port_flash_erase(uint32_t half)
{
    (void)half;
    return false;
}

WEAK bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    (void)half;
    (void)offset;
    (void)unit;
    return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A flash that loses power at any operation, around the adapter store. Built into a library by test_store.py. */
#include <setjmp.h>
#include <string.h>

#include "lmcu_port.h"
#include "store.h"

#define MAX_HALF 16384
#define ALL_UNITS (2 * MAX_HALF / 4)

/* How an operation that the cut hits ends. */
enum { UNTOUCHED, ECC, SOME_BITS, SEEMS_BLANK, DONE };

typedef struct {
    uint8_t bytes[2][MAX_HALF];
    uint8_t ecc[ALL_UNITS];  /* reads as an ECC error */
    uint8_t used[ALL_UNITS]; /* programmed since the last erase */
} flash_t;

static flash_t flash, kept;
static lmcu_flash_t geometry;
static uint32_t erases, operations, cut_at, ending, noise, violations;
static jmp_buf power;

static uint8_t identity[2][32];
static uint16_t factors[FAKE_PARAMETERS];
static uint8_t received[2 * FAKE_PARAMETERS];
const lmcu_model_t lmcu_model = {
    .model_sha256 = identity[0], .layout_sha256 = identity[1], .param_count = FAKE_PARAMETERS, .factors = factors,
};

static uint32_t next_noise(void)
{
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return noise;
}

static uint32_t unit_at(uint32_t half, uint32_t offset)
{
    return (half * MAX_HALF + offset) / geometry.unit_bytes;
}

/* Counts an operation; true: this is the one that the cut hits. */
static bool is_cut(void)
{
    return operations++ == cut_at;
}

lmcu_flash_t lmcu_port_flash(void)
{
    return geometry;
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    if (half > 1 || offset > geometry.half_bytes || count > geometry.half_bytes - offset) {
        violations |= 1;
        return false;
    }
    for (uint32_t at = offset; at < offset + count; ++at) {
        if (flash.ecc[unit_at(half, at)]) {
            return false;
        }
    }
    memcpy(to, flash.bytes[half] + offset, count);
    return true;
}

/* Every unit on its own: as it was, blank, noise, or unreadable. */
static void half_erased(uint32_t half)
{
    for (uint32_t at = 0; at < geometry.half_bytes; at += geometry.unit_bytes) {
        const uint32_t unit = unit_at(half, at), kind = next_noise() % 4;
        flash.used[unit] = 1;
        flash.ecc[unit] = kind == 3;
        for (uint32_t i = 0; kind != 0 && i < geometry.unit_bytes; ++i) {
            flash.bytes[half][at + i] = kind == 1 ? 0xff : (uint8_t)next_noise();
        }
    }
}

static void blank(uint32_t half)
{
    memset(flash.bytes[half], 0xff, geometry.half_bytes);
    for (uint32_t at = 0; at < geometry.half_bytes; at += geometry.unit_bytes) {
        flash.used[unit_at(half, at)] = flash.ecc[unit_at(half, at)] = 0;
    }
}

bool lmcu_port_flash_erase(uint32_t half)
{
    const bool cut = is_cut();
    ++erases;
    if (!cut || ending == DONE) {
        blank(half);
    } else if (ending != UNTOUCHED) {
        half_erased(half);
    }
    if (cut) {
        longjmp(power, 1);
    }
    return true;
}

uint32_t lmcu_port_flash_erase_ms(void)
{
    return 0;
}

static void torn(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    flash.used[unit_at(half, offset)] = 1;
    flash.ecc[unit_at(half, offset)] = ending == ECC;
    for (uint32_t i = 0; ending != SEEMS_BLANK && i < geometry.unit_bytes; ++i) {
        flash.bytes[half][offset + i] &= (uint8_t)(unit[i] | next_noise());
    }
}

bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    const bool cut = is_cut();
    if (half > 1 || offset % geometry.unit_bytes != 0 || offset >= geometry.half_bytes) {
        violations |= 2;
        return false;
    }
    uint8_t *place = flash.bytes[half] + offset;
    for (uint32_t i = 0; i < geometry.unit_bytes; ++i) {
        violations |= place[i] != 0xff ? 4 : 0; /* what can be seen to be used must not be programmed again */
    }
    const bool again = flash.used[unit_at(half, offset)];
    if (cut && ending != DONE && ending != UNTOUCHED && !again) {
        torn(half, offset, unit);
    } else if ((!cut || ending == DONE) && !again) {
        memcpy(place, unit, geometry.unit_bytes);
        flash.used[unit_at(half, offset)] = 1;
    }
    if (cut) {
        longjmp(power, 1);
    }
    return !again;
}

/* ---- the adapter in use ---- */

uint32_t lmcu_adapter_crc32(void)
{
    return lmcu_crc32(0, factors, sizeof factors);
}

lmcu_status_t lmcu_adapter_begin(void)
{
    return LMCU_OK;
}

lmcu_status_t lmcu_adapter_data(uint32_t offset, const uint8_t *bytes, uint32_t count)
{
    if (offset > sizeof received || count > sizeof received - offset) {
        violations |= 8;
        return LMCU_BAD_ARGUMENT;
    }
    memcpy(received + offset, bytes, count);
    return LMCU_OK;
}

lmcu_status_t lmcu_adapter_commit(uint32_t crc32)
{
    if (lmcu_crc32(0, received, sizeof received) != crc32) {
        return LMCU_BAD_CRC;
    }
    memcpy(factors, received, sizeof factors);
    return LMCU_OK;
}

void lmcu_adapter_abort(void)
{
}

/* ---- for the test ---- */

void emu_new(uint32_t unit_bytes, uint32_t half_bytes)
{
    geometry.unit_bytes = unit_bytes;
    geometry.half_bytes = half_bytes;
    erases = violations = 0;
    noise = 2463534242u;
    half_erased(0); /* nobody knows what a new part holds */
    half_erased(1);
}

void emu_keep(void)
{
    kept = flash;
}

void emu_back(void)
{
    flash = kept;
}

void emu_identity(uint32_t model, uint32_t layout)
{
    memset(identity[0], (int)model, 32);
    memset(identity[1], (int)layout, 32);
}

/* An adapter that is known by one number. */
void emu_factors(uint32_t value)
{
    for (uint32_t i = 0; i < FAKE_PARAMETERS; ++i) {
        factors[i] = (uint16_t)(value * 257 + i);
    }
}

uint32_t emu_value(void)
{
    const uint32_t value = (uint16_t)factors[0] / 257;
    for (uint32_t i = 0; i < FAKE_PARAMETERS; ++i) {
        if (factors[i] != (uint16_t)(value * 257 + i)) {
            return 0xffffffffu;
        }
    }
    return value;
}

uint32_t emu_operations(void)
{
    return operations;
}

uint32_t emu_erases(void)
{
    return erases;
}

uint32_t emu_violations(void)
{
    return violations;
}

/* 0 save, 1 load, 2 delete, 3 default. Returns the status, or -1 when the power was cut at operation `cut`. */
int emu_run(uint32_t what, const char *name, uint32_t cut, uint32_t how, uint32_t seed)
{
    operations = 0;
    cut_at = cut;
    ending = how;
    noise = seed * 2654435761u + 1u;
    if (setjmp(power) != 0) {
        return -1;
    }
    switch (what) {
    case 0:
        return (int)lmcu_slot_save(name);
    case 1:
        return (int)lmcu_slot_load(name);
    case 2:
        return (int)lmcu_slot_delete(name);
    default:
        return (int)lmcu_slot_set_default(name);
    }
}

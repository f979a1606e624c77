/* SPDX-License-Identifier: Apache-2.0 */
/* A flash that loses power at any operation, around the adapter store. Built into a library by test_store.py. */
#include <setjmp.h>
#include <string.h>

#include "lmcu_port.h"
#include "samples.h"
#include "store.h"
#include "train.h"

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

/* A sample store of its own: records of 8 bytes and a tag, three classes. */
enum { PART = 8, RECORD = PART + 4, CAPACITY = 4, CLASSES = 3 };
static uint8_t input[PART], records[CAPACITY * RECORD];
static uint32_t class_seen[CLASSES];
static const lmcu_part_t part = {input, PART};
lmcu_context_t lmcu_context;
const lmcu_model_t lmcu_model = {
    .model_sha256 = identity[0], .layout_sha256 = identity[1], .param_count = FAKE_PARAMETERS, .factors = factors,
    .logit_count = CLASSES, .store_capacity = CAPACITY, .record_bytes = RECORD, .parts = &part, .part_count = 1,
    .store = records, .class_seen = class_seen,
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

/* ---- the sample store ---- */

void lmcu_model_prefix(void)
{
}

void lmcu_run_stop(void)
{
}

bool lmcu_busy(void)
{
    return false;
}

lmcu_status_t lmcu_check_label(lmcu_label_t label)
{
    return label.class_index < CLASSES ? LMCU_OK : LMCU_BAD_LABEL;
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

/* A store that is known by one number: 0 is the empty one. */
void emu_samples(uint32_t value)
{
    const lmcu_store_policy_t policy = {value % 3, 0, value % 5};
    lmcu_store_clear();
    if (value != 0) {
        (void)!lmcu_store_configure(&policy);
    }
    for (uint32_t i = 0; value != 0 && i <= value % CAPACITY; ++i) {
        const lmcu_label_t label = {(value + i) % CLASSES};
        memset(input, (int)(value + i), sizeof input);
        (void)!lmcu_store_sample(label);
    }
}

/* Of what is stored; 0xffffffff: it is no such store. */
uint32_t emu_samples_value(void)
{
    static uint8_t found[sizeof records + sizeof class_seen];
    const lmcu_store_policy_t policy = lmcu_context.store_policy;
    const uint32_t stored = lmcu_context.stored, seen = lmcu_context.seen;
    if (stored == 0) {
        return 0;
    }
    const uint32_t value = records[0];
    memcpy(found, records, sizeof records);
    memcpy(found + sizeof records, class_seen, sizeof class_seen);
    emu_samples(value);
    const bool same = memcmp(found, records, stored * RECORD) == 0 && stored == lmcu_context.stored &&
                      memcmp(found + sizeof records, class_seen, sizeof class_seen) == 0 && seen == lmcu_context.seen &&
                      memcmp(&policy, &lmcu_context.store_policy, sizeof policy) == 0;
    return same ? value : 0xffffffffu;
}

/* As after a reset. */
void emu_forget_samples(void)
{
    memset(&lmcu_context, 0, sizeof lmcu_context);
    memset(records, 0, sizeof records);
    memset(class_seen, 0, sizeof class_seen);
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

/* 0 save, 1 load, 2 delete, 3 default, 4 keep the samples, 5 restore them. Returns the status, or -1 when the power was cut at operation `cut`. */
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
    case 4:
        return (int)lmcu_store_save();
    case 5:
        return (int)lmcu_store_restore();
    default:
        return (int)lmcu_slot_set_default(name);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter store. Each half of the flash holds a log: a header with a generation, then records {header, factors},
 * each followed by a commit of one program unit. The half with the highest committed generation counts. A change is
 * appended, or written with everything that lives into the other half, whose header comes last. So at any moment a cut
 * leaves the state before the change or after it, and nothing needs repair: what has no commit is not there. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "samples.h"
#include "store.h"
#include "train.h"

enum {
    SAVE = 1,
    DELETE = 2,
    DEFAULT = 3,
    SAMPLES = 4,       /* has no name; one without a payload says that none are kept */
    MAX_UNIT = 32,
    AREA_COMMIT = 32,  /* offset of the half's commit */
    FIRST_RECORD = 64,
    CHUNK = 32,
    MUCH = 8192        /* bytes that take long to write */
};

#define RECORD_MAGIC 0x524d4c00u /* with the kind in the low byte */
#define AREA_MAGIC 0x31534d4cu
#define COMMIT_MAGIC 0x5a3cc3a5u

typedef struct {
    uint32_t kind;
    uint32_t length; /* bytes of factors or samples; 0 but for SAVE and SAMPLES */
    char name[LMCU_SLOT_NAME];
    uint8_t model[32], layout[32];
    uint32_t payload_crc;
    uint32_t header_crc; /* of all before it */
} record_t;

typedef struct {
    uint32_t magic, generation;
    uint32_t unused[5];
    uint32_t crc; /* of all before it */
} area_t;

typedef char record_size_check_t[sizeof(record_t) == 96 ? 1 : -1];
typedef char area_size_check_t[sizeof(area_t) == AREA_COMMIT ? 1 : -1];

/* What a scan found: the half in use, and where its log ends. */
typedef struct {
    lmcu_flash_t flash;
    uint32_t half, generation; /* 0: neither half is committed */
    uint32_t end;
    bool clean; /* what follows is blank; false: a torn record, nothing can be appended */
} log_t;

typedef enum { BLANK, TORN, GOOD } found_t;

/* ---- reading ---- */

static bool equal_names(const char *a, const char *b)
{
    return memcmp(a, b, LMCU_SLOT_NAME) == 0;
}

static bool is_committed(const lmcu_flash_t *flash, uint32_t half, uint32_t offset, uint32_t mark)
{
    uint8_t unit[MAX_UNIT];
    if (!lmcu_port_flash_read(half, offset, unit, flash->unit_bytes)) {
        return false;
    }
    for (uint32_t i = 0; i < flash->unit_bytes; i += 4) {
        if (memcmp(unit + i, &mark, 4) != 0) {
            return false;
        }
    }
    return true;
}

static uint32_t record_mark(const record_t *record)
{
    return COMMIT_MAGIC ^ record->header_crc;
}

static uint32_t padded(const lmcu_flash_t *flash, uint32_t length)
{
    return (length + flash->unit_bytes - 1) & ~(flash->unit_bytes - 1);
}

static uint32_t record_bytes(const lmcu_flash_t *flash, uint32_t length)
{
    return (uint32_t)sizeof(record_t) + padded(flash, length) + flash->unit_bytes;
}

static bool is_blank(const record_t *record)
{
    const uint8_t *bytes = (const uint8_t *)record;
    for (uint32_t i = 0; i < sizeof *record; ++i) {
        if (bytes[i] != 0xff) {
            return false;
        }
    }
    return true;
}

static found_t read_record(const lmcu_flash_t *flash, uint32_t half, uint32_t at, record_t *record)
{
    if (flash->half_bytes - at < record_bytes(flash, 0) || !lmcu_port_flash_read(half, at, record, sizeof *record)) {
        return TORN;
    }
    if (is_blank(record)) {
        return BLANK;
    }
    const uint32_t kind = record->kind - RECORD_MAGIC;
    const uint32_t most = flash->half_bytes - at - record_bytes(flash, 0);
    if (kind < SAVE || kind > SAMPLES || record->length > most || padded(flash, record->length) > most ||
        record->header_crc != lmcu_crc32(0, record, offsetof(record_t, header_crc))) {
        return TORN;
    }
    const uint32_t commit = at + (uint32_t)sizeof *record + padded(flash, record->length);
    return is_committed(flash, half, commit, record_mark(record)) ? GOOD : TORN;
}

static uint32_t read_generation(const lmcu_flash_t *flash, uint32_t half)
{
    area_t area;
    if (!lmcu_port_flash_read(half, 0, &area, sizeof area) || area.magic != AREA_MAGIC ||
        area.crc != lmcu_crc32(0, &area, offsetof(area_t, crc)) ||
        !is_committed(flash, half, AREA_COMMIT, COMMIT_MAGIC ^ area.crc)) {
        return 0;
    }
    return area.generation;
}

/* False: the port has no flash for adapters. */
static bool open_log(log_t *log)
{
    record_t record;
    found_t found = TORN;
    log->flash = lmcu_port_flash();
    log->half = 0;
    log->generation = 0;
    log->end = FIRST_RECORD;
    log->clean = false;
    if (log->flash.half_bytes == 0) {
        return false;
    }
    for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t generation = read_generation(&log->flash, half);
        if (generation > log->generation) {
            log->generation = generation;
            log->half = half;
        }
    }
    while (log->generation != 0 && (found = read_record(&log->flash, log->half, log->end, &record)) == GOOD) {
        log->end += record_bytes(&log->flash, record.length);
    }
    log->clean = found == BLANK;
    return true;
}

/* The record after `*at`, which moves on; false at the end. Begin with *at = 0. */
static bool next_record(const log_t *log, uint32_t *at, record_t *record)
{
    const bool first = *at == 0;
    const uint32_t next = first ? (uint32_t)FIRST_RECORD : *at + record_bytes(&log->flash, record->length);
    if (next >= log->end) {
        return false;
    }
    *at = next;
    return read_record(&log->flash, log->half, next, record) == GOOD;
}

/* Where the slot's record stands, with its header; 0: there is none. */
static uint32_t find_slot(const log_t *log, const char *name, record_t *slot)
{
    record_t record;
    uint32_t at = 0, found = 0;
    while (next_record(log, &at, &record)) {
        const bool is_slot = record.kind == RECORD_MAGIC + SAVE || record.kind == RECORD_MAGIC + DELETE;
        if (is_slot && equal_names(record.name, name)) {
            found = record.kind == RECORD_MAGIC + SAVE ? at : 0;
            *slot = record;
        }
    }
    return found;
}

/* Likewise of the saved samples. */
static uint32_t find_samples(const log_t *log, record_t *samples)
{
    record_t record;
    uint32_t at = 0, found = 0;
    while (next_record(log, &at, &record)) {
        if (record.kind == RECORD_MAGIC + SAMPLES) {
            found = record.length != 0 ? at : 0;
            *samples = record;
        }
    }
    return found;
}

static bool is_live(const log_t *log, uint32_t at, const record_t *record)
{
    record_t last;
    if (record->kind == RECORD_MAGIC + SAMPLES) {
        return find_samples(log, &last) == at;
    }
    return record->kind == RECORD_MAGIC + SAVE && find_slot(log, record->name, &last) == at;
}

static void find_default(const log_t *log, char *name)
{
    record_t record;
    uint32_t at = 0;
    memset(name, 0, LMCU_SLOT_NAME);
    while (next_record(log, &at, &record)) {
        if (record.kind == RECORD_MAGIC + DEFAULT) {
            memcpy(name, record.name, LMCU_SLOT_NAME);
        }
    }
    if (find_slot(log, name, &record) == 0) {
        memset(name, 0, LMCU_SLOT_NAME);
    }
}

/* ---- writing ---- */

/* A payload in RAM, one part after another, or (no parts) in a half of the flash. */
typedef struct {
    uint32_t half, offset;
    uint32_t parts;
    lmcu_samples_part_t part[LMCU_SAMPLES_PARTS];
} source_t;

static source_t in_ram(const void *bytes, uint32_t count)
{
    source_t source = {0, 0, 1, {{NULL, 0}}};
    source.part[0].at = (uint8_t *)(uintptr_t)bytes; /* only read */
    source.part[0].bytes = count;
    return source;
}

static bool fetch(const source_t *from, uint32_t at, uint8_t *to, uint32_t count)
{
    if (from->parts == 0) {
        return lmcu_port_flash_read(from->half, from->offset + at, to, count);
    }
    for (uint32_t i = 0; i < from->parts && count > 0; ++i) {
        const lmcu_samples_part_t *part = &from->part[i];
        if (at >= part->bytes) {
            at -= part->bytes;
            continue;
        }
        const uint32_t here = part->bytes - at < count ? part->bytes - at : count;
        memcpy(to, part->at + at, here);
        to += here;
        count -= here;
        at = 0;
    }
    return true;
}

static bool program(const lmcu_flash_t *flash, uint32_t half, uint32_t offset, const source_t *from, uint32_t length)
{
    uint8_t unit[MAX_UNIT];
    for (uint32_t at = 0; at < length; at += flash->unit_bytes) {
        const uint32_t left = length - at;
        memset(unit, 0xff, sizeof unit);
        if (!fetch(from, at, unit, left < flash->unit_bytes ? left : flash->unit_bytes) ||
            !lmcu_port_flash_program(half, offset + at, unit)) {
            return false;
        }
    }
    return true;
}

static bool commit(uint32_t half, uint32_t offset, uint32_t mark)
{
    uint8_t unit[MAX_UNIT];
    for (uint32_t i = 0; i < sizeof unit; i += 4) {
        memcpy(unit + i, &mark, 4);
    }
    return lmcu_port_flash_program(half, offset, unit);
}

static bool write_record(const lmcu_flash_t *flash, uint32_t half, uint32_t at, const record_t *record,
                         const source_t *payload_from)
{
    const source_t header = in_ram(record, sizeof *record);
    const uint32_t payload = at + (uint32_t)sizeof *record;
    const bool done = program(flash, half, at, &header, sizeof *record) &&
                      program(flash, half, payload, payload_from, record->length) &&
                      commit(half, payload + padded(flash, record->length), record_mark(record));
    lmcu_layer_done(); /* the watchdog waits no longer than for one record */
    return done;
}

static bool write_area(const lmcu_flash_t *flash, uint32_t half, uint32_t generation)
{
    area_t area = {AREA_MAGIC, generation, {0, 0, 0, 0, 0}, 0};
    area.crc = lmcu_crc32(0, &area, offsetof(area_t, crc));
    const source_t header = in_ram(&area, sizeof area);
    return program(flash, half, 0, &header, sizeof area) && commit(half, AREA_COMMIT, COMMIT_MAGIC ^ area.crc);
}

/* `payload` of SAVE and SAMPLES; NULL otherwise. */
static record_t make_record(uint32_t kind, const char *name, const source_t *payload)
{
    record_t record;
    memset(&record, 0, sizeof record);
    record.kind = RECORD_MAGIC + kind;
    memcpy(record.name, name, LMCU_SLOT_NAME);
    for (uint32_t i = 0; payload != NULL && i < payload->parts; ++i) {
        record.length += payload->part[i].bytes;
        record.payload_crc = lmcu_crc32(record.payload_crc, payload->part[i].at, payload->part[i].bytes);
    }
    if (payload != NULL) {
        memcpy(record.model, lmcu_model.model_sha256, 32);
        memcpy(record.layout, lmcu_model.layout_sha256, 32);
    }
    record.header_crc = lmcu_crc32(0, &record, offsetof(record_t, header_crc));
    return record;
}

/* Whether the slot, or the samples, outlive the change. */
static bool stays(const log_t *log, uint32_t at, const record_t *record, const record_t *change)
{
    const bool samples = record->kind == RECORD_MAGIC + SAMPLES, other = change->kind == RECORD_MAGIC + SAMPLES;
    const bool replaced = change->kind != RECORD_MAGIC + DEFAULT && samples == other && equal_names(record->name, change->name);
    return !replaced && is_live(log, at, record);
}

/* Bytes of a half that holds what lives after the change, with room for the default's name. */
static uint32_t needed(const log_t *log, const record_t *change)
{
    record_t record;
    uint32_t at = 0;
    uint32_t bytes = FIRST_RECORD + record_bytes(&log->flash, 0);
    bytes += change->length != 0 ? record_bytes(&log->flash, change->length) : 0;
    while (next_record(log, &at, &record)) {
        bytes += stays(log, at, &record, change) ? record_bytes(&log->flash, record.length) : 0;
    }
    return bytes;
}

/* Copies the slots that stay to the other half; moves *to behind them. */
static bool copy_slots(const log_t *log, const record_t *change, uint32_t *to)
{
    record_t record;
    uint32_t at = 0;
    while (next_record(log, &at, &record)) {
        if (stays(log, at, &record, change)) {
            const source_t payload = {log->half, at + (uint32_t)sizeof record, 0, {{NULL, 0}}};
            if (!write_record(&log->flash, 1 - log->half, *to, &record, &payload)) {
                return false;
            }
            *to += record_bytes(&log->flash, record.length);
        }
    }
    return true;
}

/* The other half gets everything that lives after the change; its header makes it count. */
static bool compact(const log_t *log, const record_t *change, const source_t *payload)
{
    const uint32_t target = 1 - log->half;
    uint32_t to = FIRST_RECORD;
    char name[LMCU_SLOT_NAME];
    const uint32_t units = log->flash.half_bytes / log->flash.unit_bytes;
    lmcu_before_erase(lmcu_port_flash_erase_ms() + units / 10u); /* programming a unit takes 0.1 ms at most */
    if (!lmcu_port_flash_erase(target) || !copy_slots(log, change, &to)) {
        return false;
    }
    if (change->length != 0) {
        if (!write_record(&log->flash, target, to, change, payload)) {
            return false;
        }
        to += record_bytes(&log->flash, change->length);
    }
    find_default(log, name);
    if (change->kind == RECORD_MAGIC + DEFAULT) {
        memcpy(name, change->name, LMCU_SLOT_NAME);
    } else if (change->kind == RECORD_MAGIC + DELETE && equal_names(name, change->name)) {
        name[0] = 0;
    }
    if (name[0] != 0) {
        const record_t record = make_record(DEFAULT, name, NULL);
        if (!write_record(&log->flash, target, to, &record, payload)) {
            return false;
        }
    }
    return write_area(&log->flash, target, log->generation + 1);
}

static lmcu_status_t apply(const log_t *log, const record_t *change, const source_t *payload)
{
    const uint32_t most = log->flash.half_bytes - record_bytes(&log->flash, 0);
    if (change->length > most || needed(log, change) > log->flash.half_bytes) {
        return LMCU_NO_SPACE;
    }
    const uint32_t bytes = record_bytes(&log->flash, change->length);
    if (log->clean && bytes <= log->flash.half_bytes - log->end) {
        if (bytes > MUCH) {
            lmcu_before_erase(bytes / log->flash.unit_bytes / 10u);
        }
        if (write_record(&log->flash, log->half, log->end, change, payload)) {
            return LMCU_OK;
        }
    }
    return compact(log, change, payload) ? LMCU_OK : LMCU_STORAGE;
}

/* ---- what is offered ---- */

bool lmcu_slot_name_valid(const char name[LMCU_SLOT_NAME])
{
    uint32_t length = 0;
    while (length < LMCU_SLOT_NAME && name[length] > 0x20 && name[length] < 0x7f) {
        ++length;
    }
    for (uint32_t i = length; i < LMCU_SLOT_NAME; ++i) {
        if (name[i] != 0) {
            return false;
        }
    }
    return length > 0 && length < LMCU_SLOT_NAME;
}

lmcu_status_t lmcu_slot_save(const char name[LMCU_SLOT_NAME])
{
    log_t log;
    if (lmcu_model.param_count == 0) {
        return LMCU_NO_ADAPTERS;
    }
    if (!lmcu_slot_name_valid(name)) {
        return LMCU_BAD_ARGUMENT;
    }
    if (!open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    const source_t factors = in_ram(lmcu_model.factors, 2 * lmcu_model.param_count);
    const record_t record = make_record(SAVE, name, &factors);
    return apply(&log, &record, &factors);
}

/* DELETE, or DEFAULT of a slot that is there. */
static lmcu_status_t change_slot(uint32_t kind, const char *name)
{
    log_t log;
    record_t slot;
    if (!lmcu_slot_name_valid(name)) {
        return LMCU_BAD_ARGUMENT;
    }
    if (!open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    if (find_slot(&log, name, &slot) == 0) {
        return LMCU_NOT_FOUND;
    }
    const record_t record = make_record(kind, name, NULL);
    return apply(&log, &record, NULL);
}

lmcu_status_t lmcu_slot_delete(const char name[LMCU_SLOT_NAME])
{
    return change_slot(DELETE, name);
}

lmcu_status_t lmcu_slot_set_default(const char name[LMCU_SLOT_NAME])
{
    log_t log;
    char now[LMCU_SLOT_NAME];
    const char none[LMCU_SLOT_NAME] = {0};
    if (!equal_names(name, none)) {
        return change_slot(DEFAULT, name);
    }
    if (!open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    find_default(&log, now);
    const record_t record = make_record(DEFAULT, none, NULL);
    return now[0] == 0 ? LMCU_OK : apply(&log, &record, NULL);
}

void lmcu_slot_default(char name[LMCU_SLOT_NAME])
{
    log_t log;
    memset(name, 0, LMCU_SLOT_NAME);
    if (open_log(&log)) {
        find_default(&log, name);
    }
}

static lmcu_status_t read_factors(const log_t *log, uint32_t at, const record_t *record)
{
    uint8_t chunk[CHUNK];
    for (uint32_t done = 0; done < record->length; done += CHUNK) {
        const uint32_t left = record->length - done;
        const uint32_t count = left < CHUNK ? left : CHUNK;
        if (!lmcu_port_flash_read(log->half, at + (uint32_t)sizeof *record + done, chunk, count)) {
            return LMCU_STORAGE;
        }
        const lmcu_status_t status = lmcu_adapter_data(done, chunk, count);
        if (status != LMCU_OK) {
            return status;
        }
    }
    return lmcu_adapter_commit(record->payload_crc);
}

lmcu_status_t lmcu_slot_load(const char name[LMCU_SLOT_NAME])
{
    log_t log;
    record_t record;
    if (!lmcu_slot_name_valid(name)) {
        return LMCU_BAD_ARGUMENT;
    }
    if (!open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    const uint32_t at = find_slot(&log, name, &record);
    if (at == 0) {
        return LMCU_NOT_FOUND;
    }
    if (memcmp(record.model, lmcu_model.model_sha256, 32) != 0) {
        return LMCU_WRONG_MODEL;
    }
    if (memcmp(record.layout, lmcu_model.layout_sha256, 32) != 0 || record.length != 2 * lmcu_model.param_count) {
        return LMCU_WRONG_LAYOUT;
    }
    lmcu_status_t status = lmcu_adapter_begin();
    if (status == LMCU_OK) {
        status = read_factors(&log, at, &record);
        if (status != LMCU_OK) {
            lmcu_adapter_abort();
        }
    }
    return status;
}

/* ---- the samples ---- */

lmcu_status_t lmcu_store_save(void)
{
    log_t log;
    record_t record;
    lmcu_samples_head_t head;
    source_t samples = {0, 0, LMCU_SAMPLES_PARTS, {{NULL, 0}}};
    const char nameless[LMCU_SLOT_NAME] = {0};
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    if (lmcu_model.store_capacity == 0 || !open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    lmcu_samples_describe(&head, samples.part);
    if (lmcu_context.stored != 0) {
        record = make_record(SAMPLES, nameless, &samples);
        return apply(&log, &record, &samples);
    }
    const bool kept = find_samples(&log, &record) != 0;
    record = make_record(SAMPLES, nameless, NULL);
    return kept ? apply(&log, &record, NULL) : LMCU_OK;
}

/* Straight into the store's memory. */
static lmcu_status_t read_samples(const log_t *log, uint32_t at, const record_t *record, lmcu_samples_head_t *head)
{
    lmcu_samples_part_t part[LMCU_SAMPLES_PARTS];
    uint32_t crc = 0, from = at + (uint32_t)sizeof *record;
    if (record->length < sizeof *head || !lmcu_port_flash_read(log->half, from, head, sizeof *head)) {
        return LMCU_STORAGE;
    }
    if (!lmcu_samples_expect(head, part) || part[0].bytes + part[1].bytes + part[2].bytes != record->length) {
        return LMCU_WRONG_LAYOUT;
    }
    for (uint32_t i = 0; i < LMCU_SAMPLES_PARTS; ++i) {
        if (part[i].bytes != 0 && !lmcu_port_flash_read(log->half, from, part[i].at, part[i].bytes)) {
            return LMCU_STORAGE;
        }
        crc = lmcu_crc32(crc, part[i].at, part[i].bytes);
        from += part[i].bytes;
    }
    return crc == record->payload_crc ? LMCU_OK : LMCU_BAD_CRC;
}

lmcu_status_t lmcu_store_restore(void)
{
    log_t log;
    record_t record;
    lmcu_samples_head_t head;
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    if (lmcu_model.store_capacity == 0 || !open_log(&log)) {
        return LMCU_UNSUPPORTED;
    }
    const uint32_t at = find_samples(&log, &record);
    if (at == 0) {
        return LMCU_NOT_FOUND;
    }
    if (memcmp(record.model, lmcu_model.model_sha256, 32) != 0) {
        return LMCU_WRONG_MODEL;
    }
    if (lmcu_model.cached != 0 && memcmp(record.layout, lmcu_model.layout_sha256, 32) != 0) {
        return LMCU_WRONG_LAYOUT; /* the features may be those of another cut */
    }
    lmcu_status_t status = read_samples(&log, at, &record, &head);
    if (status == LMCU_OK && !lmcu_samples_accept(&head)) {
        status = LMCU_STORAGE;
    }
    if (status != LMCU_OK) {
        lmcu_samples_boot();
    }
    return status;
}

void lmcu_slot_boot(void)
{
    char name[LMCU_SLOT_NAME];
    lmcu_slot_default(name);
    if (name[0] != 0) {
        const lmcu_status_t status = lmcu_slot_load(name);
        (void)status; /* refused: HELLO's checksum of the factors tells */
    }
    const lmcu_status_t samples = lmcu_store_restore();
    (void)samples; /* refused: STATISTICS tells how many are stored */
}

bool lmcu_slot_at(uint32_t index, lmcu_slot_t *slot)
{
    log_t log;
    record_t record;
    uint32_t at = 0;
    if (!open_log(&log)) {
        return false;
    }
    while (next_record(&log, &at, &record)) {
        if (record.kind == RECORD_MAGIC + SAVE && is_live(&log, at, &record) && index-- == 0) {
            memcpy(slot->name, record.name, LMCU_SLOT_NAME);
            slot->crc32 = record.payload_crc;
            slot->right_model = memcmp(record.model, lmcu_model.model_sha256, 32) == 0;
            slot->right_layout = memcmp(record.layout, lmcu_model.layout_sha256, 32) == 0;
            return true;
        }
    }
    return false;
}

uint32_t lmcu_slot_capacity(void)
{
    const lmcu_flash_t flash = lmcu_port_flash();
    const uint32_t fixed = FIRST_RECORD + record_bytes(&flash, 0);
    if (flash.half_bytes <= fixed || lmcu_model.param_count == 0) {
        return 0;
    }
    return (flash.half_bytes - fixed) / record_bytes(&flash, 2 * lmcu_model.param_count);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that somebody else has written: the flash of a store in use with words changed, checksums of headers and factors made
 * right again or not, booted and used; samples likewise. hostile_flash ROUNDS; prints how many loads were served and how many
 * refused, and how many boots gave samples. */
#include "fuzz_checks.h"
#include "fuzz_random.h"

uint8_t *fake_flash(uint32_t half);
enum { LINE = 256, FLASH = 4096, AREA = 32, COMMIT = 8, HEADER = 96, USED = 1024 };

static const uint32_t extremes[] = {0, 1, 27, 29, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffc, 0xffffffff};

static uint32_t word_at(const uint8_t *flash, uint32_t at)
{
    return lmcu_get_u32(flash + at);
}

static void change(uint8_t *flash)
{
    const uint32_t at = 4 * below(USED / 4);
    const uint32_t flipped = word_at(flash, at) ^ 1u << below(32), extreme = extremes[below(sizeof extremes / sizeof extremes[0])];
    put_u32(flash + at, below(2) ? extreme : flipped);
}

/* The commit that stands behind an area's head and a record: its checksum, disguised, in each word of a unit. */
static void commit(uint8_t *at, uint32_t crc)
{
    put_u32(at, crc ^ 0x5a3cc3a5u);
    put_u32(at + 4, crc ^ 0x5a3cc3a5u);
}

/* Checksums that fit, so that what they cover is believed. */
static void sign(uint8_t *flash)
{
    if (word_at(flash, 0) == 0xffffffffu) {
        return; /* erased */
    }
    put_u32(flash + 28, lmcu_crc32(0, flash, 28));
    commit(flash + AREA, word_at(flash, 28));
    for (uint32_t at = AREA + COMMIT; at < USED; at += 4) {
        if ((word_at(flash, at) & 0xffffff00u) == 0x524d4c00u) {
            const uint32_t length = word_at(flash, at + 4);
            if (below(2) && length <= USED) {
                put_u32(flash + at + 88, lmcu_crc32(0, flash + at + HEADER, length));
            }
            put_u32(flash + at + 92, lmcu_crc32(0, flash + at, 92));
            commit(flash + at + HEADER + (length <= USED ? (length + 7) / 8 * 8 : 0), word_at(flash, at + 92));
        }
    }
}

static bool ask(uint32_t type, uint8_t name)
{
    static uint8_t line[LINE];
    uint8_t payload[16] = {name};
    const uint32_t words = type == LMCU_MSG_SLOT_LIST || type == LMCU_MSG_HELLO ? 4 : 16;
    const uint32_t size = type == LMCU_MSG_STORE_SAVE ? 0 : words;
    const uint32_t count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, type, lmcu_link.state.expected, payload, size);
    feed_and_check(line, count, 4);
    return before.ok[type];
}

int main(int argc, char **argv)
{
    static uint8_t good[2][FLASH];
    const uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
    uint32_t loaded = 0, turned_down = 0, restored = 0;
    state = 7;
    memset(fake_flash(0), 0xff, FLASH);
    memset(fake_flash(1), 0xff, FLASH);
    fake_boot();
    ask(LMCU_MSG_HELLO, 1);
    for (uint8_t i = 0; i < 3; ++i) {
        require(ask(LMCU_MSG_SLOT_SAVE, (uint8_t)('a' + i)), "a slot cannot be saved");
    }
    require(ask(LMCU_MSG_SLOT_DEFAULT, 'b'), "a slot cannot be chosen");
    for (uint32_t i = 0; i < 2; ++i) {
        const lmcu_label_t label = {i};
        lmcu_model.input[0] = (uint8_t)i;
        require(lmcu_store_sample(label) == LMCU_OK, "a sample cannot be stored");
    }
    require(ask(LMCU_MSG_STORE_SAVE, 0), "samples cannot be saved");
    for (uint32_t half = 0; half < 2; ++half) {
        memcpy(good[half], fake_flash(half), FLASH);
    }
    for (uint32_t round = 0; round < rounds; ++round) {
        for (uint32_t half = 0; half < 2; ++half) {
            memcpy(fake_flash(half), good[half], FLASH);
            for (uint32_t changes = below(4); changes > 0; --changes) {
                change(fake_flash(half));
            }
            if (below(4)) {
                sign(fake_flash(half));
            }
        }
        fake_boot();
        check_state(); /* of what was loaded at boot */
        restored += lmcu_context.stored != 0;
        require(ask(LMCU_MSG_HELLO, 1), "the device does not boot");
        ask(LMCU_MSG_SLOT_LIST, (uint8_t)below(3));
        for (uint8_t i = 0; i < 3; ++i) {
            *(ask(LMCU_MSG_SLOT_LOAD, (uint8_t)('a' + i)) ? &loaded : &turned_down) += 1;
        }
        if (below(4) == 0) { /* a save, and the compaction that it may need */
            (void)ask(LMCU_MSG_SLOT_SAVE, (uint8_t)('a' + below(5)));
            (void)ask(LMCU_MSG_SLOT_DELETE, 'c');
            (void)ask(LMCU_MSG_STORE_SAVE, 0);
        }
    }
    printf("loaded %u refused %u restored %u\n", loaded, turned_down, restored);
    return 0;
}

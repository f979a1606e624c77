/* SPDX-License-Identifier: Apache-2.0 */
/* Every message, known or not, with every short length, lengths around every limit, and extreme values in every field, to a
 * device in each of its conditions. A request that is refused must have changed nothing; sanitizers watch the bounds.
 * Prints how many frames were refused and how many served. */
#include "fuzz_payloads.h"

enum { LINE = 8192 };

extern uint32_t fake_half_bytes;
static uint32_t frames_refused, frames_served;
static uint8_t line[LINE];

static uint32_t durable_crc(void)
{
    const lmcu_link_state_t *link = &lmcu_link.state;
    const uint32_t fields[] = {link->nonce, link->session, link->reboot, link->other_baud, fake_flash_crc()};
    uint32_t crc = lmcu_crc32(lmcu_adapter_crc32(), &lmcu_context, sizeof lmcu_context);
    crc = lmcu_crc32(crc, fake_store, lmcu_model.store_capacity * lmcu_model.record_bytes);
    crc = lmcu_crc32(crc, lmcu_model.state, lmcu_model.state_bytes);
    return lmcu_crc32(crc, fields, sizeof fields);
}

static uint32_t sample_crc(void)
{
    const uint32_t fields[] = {lmcu_link.state.staged, lmcu_link.state.target_staged, lmcu_link.state.output_ready};
    const uint32_t crc = lmcu_crc32(0, fake_input(), lmcu_model.input_bytes);
    return lmcu_crc32(crc, fields, sizeof fields);
}

/* A whole sample is used up also where it is refused (docs/protocol.md). */
static bool takes_a_sample(uint32_t type)
{
    return type == LMCU_MSG_TRAIN || type == LMCU_MSG_EVALUATE || type == LMCU_MSG_STORE || type == LMCU_MSG_INFER
        || type == LMCU_MSG_ADVANCE;
}

static bool ask(uint32_t type, const uint8_t *payload, uint32_t count)
{
    const uint32_t sequence = type == LMCU_MSG_HELLO ? 0 : lmcu_link.state.expected;
    const uint32_t length = line_of(line, LINE, LMCU_PROTOCOL_VERSION, type, sequence, payload, count);
    feed_and_check(line, length, 1 + length / 64);
    return before.ok[type & 127u];
}

static const struct {
    const char *name;
    uint8_t steps[6]; /* messages, each with a payload that it may have */
} conditions[] = {
    {"greeted", {0}},
    {"a sample staged", {LMCU_MSG_SAMPLE_DATA}},
    {"trained and stored", {LMCU_MSG_STORE, LMCU_MSG_TARGET_DATA, LMCU_MSG_STORE, LMCU_MSG_TARGET_DATA, LMCU_MSG_TRAIN}},
    {"an output to be read", {LMCU_MSG_SLOT_SAVE, LMCU_MSG_INFER}},
    {"a transfer open", {LMCU_MSG_ADAPTER_BEGIN, LMCU_MSG_ADAPTER_DATA}},
    {"a run in progress", {LMCU_MSG_TARGET_DATA, LMCU_MSG_STORE, LMCU_MSG_RUN_EPOCHS}},
};
enum { CONDITIONS = sizeof conditions / sizeof conditions[0] };

static void enter(uint32_t condition)
{
    uint8_t payload[LMCU_MAX_PAYLOAD] = {1};
    fake_boot();
    ask(LMCU_MSG_HELLO, payload, 4);
    for (uint32_t i = 0; i < 6 && conditions[condition].steps[i] != 0; ++i) {
        const uint8_t type = conditions[condition].steps[i];
        for (uint32_t tries = 0; tries < 200; ++tries) {
            uint32_t count = sensible(type, payload);
            if (type == LMCU_MSG_RUN_EPOCHS) {
                put_u32(payload, 0x7fffffff);
            }
            const bool none = type == LMCU_MSG_TARGET_DATA && lmcu_model.loss != LMCU_LOSS_MSE;
            if (none || ask(type, payload, count)) {
                break;
            }
        }
    }
}

/* One frame; a request that was served, or that ended the condition, is followed by a fresh device. */
static void probe(uint32_t condition, uint32_t type, const uint8_t *payload, uint32_t count)
{
    const bool runs = lmcu_run_in_progress(), ends = type == LMCU_MSG_ADAPTER_COMMIT && count == 4 && lmcu_context.transfer_open;
    const uint32_t durable = durable_crc(), sample = sample_crc();
    if (ask(type, payload, count)) {
        frames_served++;
        enter(condition);
        return;
    }
    frames_refused++;
    if (ends) {
        require(!lmcu_context.transfer_open, "a refused commit has not ended the transfer");
    } else if (!runs) { /* which changes factors and counters by itself */
        require(durable_crc() == durable, "a refused request has changed the device");
        require(takes_a_sample(type) || sample_crc() == sample, "a refused request has changed the staged sample");
    } else {
        require(lmcu_run_in_progress(), "a refused request has ended a run");
    }
    if (takes_a_sample(type) || ends) {
        enter(condition);
    }
}

static void sweep_lengths(uint32_t condition, uint32_t type)
{
    static const uint8_t fills[] = {0x00, 0x01, 0x7f, 0xff};
    const uint32_t limits[] = {255, 256, LMCU_MAX_PAYLOAD - 1, LMCU_MAX_PAYLOAD};
    uint8_t payload[LMCU_MAX_PAYLOAD];
    for (uint32_t fill = 0; fill < sizeof fills; ++fill) {
        memset(payload, fills[fill], sizeof payload);
        for (uint32_t count = 0; count <= 70; ++count) {
            probe(condition, type, payload, count);
        }
        for (uint32_t i = 0; i < sizeof limits / sizeof limits[0]; ++i) {
            probe(condition, type, payload, limits[i]);
        }
    }
}

/* Zeros, ends of the signed and unsigned ranges, infinities, NaNs, the smallest numbers above 0. */
static void sweep_fields(uint32_t condition, uint32_t type)
{
    static const uint32_t extremes[] = {0, 1, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
                                        0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff, 0x00800000, 0xfffffffc};
    uint8_t payload[LMCU_MAX_PAYLOAD];
    for (uint32_t offset = 0; offset < 68; offset += 4) {
        for (uint32_t i = 0; i < sizeof extremes / sizeof extremes[0]; ++i) {
            const uint32_t count = sensible(type, payload);
            if (offset + 2 > count) {
                return;
            }
            uint8_t word[4];
            put_u32(word, extremes[i]);
            memcpy(payload + offset, word, count - offset < 4 ? count - offset : 4);
            probe(condition, type, payload, count);
        }
    }
}

int main(void)
{
    static const uint8_t unknown[] = {0, 7, 15, 34, 47, 60, 64, 127};
    static const uint8_t known[] = {
#define LMCU_X(name, number, text) number,
        LMCU_MESSAGE_TABLE(LMCU_X)
#undef LMCU_X
    };
    state = 1;
    fake_half_bytes = 512;
    for (uint32_t condition = 0; condition < CONDITIONS; ++condition) {
        enter(condition);
        for (uint32_t i = 0; i < sizeof known; ++i) {
            sweep_lengths(condition, known[i]);
            sweep_fields(condition, known[i]);
        }
        for (uint32_t i = 0; i < sizeof unknown; ++i) {
            sweep_lengths(condition, unknown[i]);
        }
        require(lmcu_run_in_progress() == (condition == CONDITIONS - 1), "the last condition is the run, and no other");
    }
    printf("refused %u served %u\n", frames_refused, frames_served);
    for (uint32_t i = 0; i < sizeof known; ++i) {
        printf("%u %u %u\n", known[i], answered_ok[known[i]], refused[known[i]]);
    }
    return 0;
}

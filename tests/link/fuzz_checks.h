/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold whatever comes over the line; for fuzz.c and fuzz_coverage.c. */
#ifndef FUZZ_CHECKS_H
#define FUZZ_CHECKS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "lmcu_port.h"
#include "protocol.h"

void fake_boot(void);
void fake_feed(const uint8_t *bytes, uint32_t count);
void fake_poll(uint32_t turns);
uint32_t fake_take(uint8_t *buffer, uint32_t capacity);
extern uint64_t fake_ticks;

static uint32_t answered_ok[128], refused[128];

static void require(int condition, const char *what)
{
    if (!condition) {
        printf("broken: %s\n", what);
        fflush(stdout);
        abort();
    }
}

/* The device before some bytes were fed to it, and which messages it answered OK since. */
static struct {
    lmcu_context_t context;
    uint32_t factors_crc, nonce, boot;
    uint16_t expected;
    uint8_t session;
    bool ok[128];
    uint32_t all; /* with a key: checksum of all that a stranger must not change */
} before;

extern uint8_t fake_store[];
uint8_t *fake_input(void);
uint32_t fake_flash_crc(void);

static uint32_t all_crc(void)
{
    const lmcu_link_state_t *link = &lmcu_link.state;
    const uint32_t fields[] = {link->staged, link->target_staged, link->nonce, link->expected, link->session,
                               link->output_ready, link->reboot, link->baud_wanted, lmcu_auth.laps, fake_flash_crc()};
    uint32_t crc = lmcu_crc32(lmcu_adapter_crc32(), &lmcu_context, sizeof lmcu_context);
    crc = lmcu_crc32(crc, fake_store, lmcu_model.store_capacity * lmcu_model.record_bytes);
    crc = lmcu_crc32(crc, fake_input(), lmcu_model.input_bytes);
    crc = lmcu_crc32(crc, link->kept, sizeof link->kept);
    crc = lmcu_crc32(crc, &lmcu_auth.session, sizeof lmcu_auth.session);
    return lmcu_crc32(crc, fields, sizeof fields);
}

static void remember(void)
{
    before.context = lmcu_context;
    before.factors_crc = lmcu_adapter_crc32();
    before.nonce = lmcu_link.state.nonce;
    before.boot = lmcu_port_boot_id();
    before.expected = lmcu_link.state.expected;
    before.session = lmcu_link.state.session;
    if (LMCU_KEYED) {
        before.all = all_crc();
    }
    memset(before.ok, 0, sizeof before.ok);
}

static void read_answers(void)
{
    static lmcu_decoder_t decoder;
    static uint8_t line[1 << 16];
    const uint32_t count = fake_take(line, sizeof line);
    for (uint32_t i = 0; i < count; ++i) {
        const int pushed = lmcu_decoder_push(&decoder, line[i]);
        require(pushed != LMCU_PUSH_BAD, "the device sent a bad frame");
        if (pushed == LMCU_PUSH_FRAME) {
            const uint32_t type = decoder.bytes[1] & 127u;
            const bool is_ok = decoder.bytes[LMCU_FRAME_HEADER] == LMCU_OK;
            require(decoder.bytes[1] & LMCU_RESPONSE, "an answer without the response bit");
            require(decoder.count >= LMCU_FRAME_HEADER + 1 + LMCU_FRAME_CRC, "an answer without a status");
            *(is_ok ? &answered_ok[type] : &refused[type]) += 1;
            before.ok[type] |= is_ok;
        }
    }
}

/* Messages that may change the factors, where they were answered OK. */
static bool factors_may_change(void)
{
    static const uint8_t types[] = {LMCU_MSG_TRAIN, LMCU_MSG_PASS_END, LMCU_MSG_ADAPTER_COMMIT, LMCU_MSG_ADAPTER_RESET,
                                    LMCU_MSG_SLOT_LOAD, LMCU_MSG_RUN_EPOCHS};
    for (uint32_t i = 0; i < sizeof types; ++i) {
        if (before.ok[types[i]]) {
            return true;
        }
    }
    return false;
}

static void check_changes(void)
{
    const bool same_session = lmcu_link.state.nonce == before.nonce && lmcu_link.state.session == before.session;
    const uint16_t ran = (uint16_t)(lmcu_link.state.expected - before.expected);
    if (lmcu_port_boot_id() != before.boot || before.context.run_epochs_left != 0 || lmcu_run_in_progress()) {
        return; /* a run and a REBOOT change everything by themselves */
    }
    if (lmcu_adapter_crc32() != before.factors_crc) {
        require(factors_may_change(), "a frame that was refused has changed the adapter");
    }
    if (same_session) {
        const uint32_t steps = lmcu_context.total_steps - before.context.total_steps;
        require(before.ok[LMCU_MSG_RUN_EPOCHS] || steps <= ran, "more steps than requests: one ran twice");
        require(ran != 0 || memcmp(&lmcu_context, &before.context, sizeof before.context) == 0,
                "nothing was run, and the training state has changed");
    }
}

static void check_state(void)
{
    const lmcu_link_state_t *link = &lmcu_link.state;
    for (uint32_t i = 0; i < lmcu_model.param_count; ++i) {
        require((lmcu_model.factors[i] & 0x7C00u) != 0x7C00u, "a factor is not finite");
    }
    require(lmcu_context.stored <= lmcu_model.store_capacity, "more stored than fits");
    for (uint32_t i = 0; lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY && i < lmcu_context.stored; ++i) {
        const uint8_t *record = lmcu_model.store + i * lmcu_model.record_bytes;
        const uint32_t tag = lmcu_get_u32(record + (lmcu_model.parts[0].bytes + 3) / 4 * 4);
        require((tag & 0xffffff) < lmcu_class_count(), "a stored label is none");
    }
    require(lmcu_context.settings.batch_size >= 1 && lmcu_context.settings.lr > 0, "settings out of range");
    require(link->staged <= lmcu_model.input_bytes, "more staged than the input holds");
    require(link->target_staged <= 4 * lmcu_model.logit_count, "more staged than the target holds");
    require(link->tx_count <= LMCU_FRAME_BYTES, "an answer longer than its buffer");
}

/* Feeds bytes and looks at all that has happened. */
static void feed_and_check(const uint8_t *bytes, uint32_t count, uint32_t turns)
{
    remember();
    fake_feed(bytes, count);
    fake_poll(turns);
    read_answers();
    check_changes();
    check_state();
}

/* A frame as it goes over the line; returns its length. */
static uint32_t line_of(uint8_t *line, uint32_t room, uint32_t version, uint32_t type, uint32_t sequence,
                        const uint8_t *payload, uint32_t count)
{
    uint8_t frame[LMCU_FRAME_BYTES];
    frame[0] = (uint8_t)version;
    frame[1] = (uint8_t)type;
    frame[2] = (uint8_t)sequence;
    frame[3] = (uint8_t)(sequence >> 8);
    memcpy(frame + LMCU_FRAME_HEADER, payload, count);
    lmcu_frame_send(frame, lmcu_frame_seal(frame, LMCU_FRAME_HEADER + count));
    return fake_take(line, room);
}

#endif

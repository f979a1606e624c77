/* SPDX-License-Identifier: Apache-2.0 */
/* Session, sequence rule, response cache and dispatch. Every byte that comes in here is untrusted. */
#include "lmcu_strict.h"

#include "auth.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "protocol.h"

typedef char lmcu_link_size_check[sizeof(lmcu_link_t) == LMCU_LINK_BYTES && LMCU_LINK_BYTES % 8 == 0 ? 1 : -1];
typedef char lmcu_window_check[LMCU_WINDOW >= 1 && LMCU_WINDOW <= 16 ? 1 : -1];

lmcu_link_t lmcu_link LMCU_ALIGNED(8);

#define LINK (lmcu_link.state)

static const lmcu_entry_t entries[] = {
    {LMCU_MSG_INFO, 1, lmcu_on_info},
    {LMCU_MSG_STATISTICS, 1, lmcu_on_statistics},
    {LMCU_MSG_REBOOT, 1, lmcu_on_reboot},
    {LMCU_MSG_BAUD, 1, lmcu_on_baud},
    {LMCU_MSG_CONFIGURE, 0, lmcu_on_configure},
    {LMCU_MSG_SAMPLE_DATA, 0, lmcu_on_sample_data},
    {LMCU_MSG_TARGET_DATA, 0, lmcu_on_target_data},
    {LMCU_MSG_PASS_BEGIN, 0, lmcu_on_pass_begin},
    {LMCU_MSG_TRAIN, 0, lmcu_on_train},
    {LMCU_MSG_PASS_END, 0, lmcu_on_pass_end},
    {LMCU_MSG_EVALUATE_BEGIN, 0, lmcu_on_evaluate_begin},
    {LMCU_MSG_EVALUATE, 0, lmcu_on_evaluate},
    {LMCU_MSG_EVALUATE_END, 0, lmcu_on_evaluate_end},
    {LMCU_MSG_INFER, 0, lmcu_on_infer},
    {LMCU_MSG_OUTPUT_READ, 0, lmcu_on_output_read},
    {LMCU_MSG_ADVANCE, 0, lmcu_on_advance},
    {LMCU_MSG_STATE_RESET, 0, lmcu_on_state_reset},
    {LMCU_MSG_STORE, 0, lmcu_on_store},
    {LMCU_MSG_STORE_CLEAR, 0, lmcu_on_store_clear},
    {LMCU_MSG_STORE_POLICY, 0, lmcu_on_store_policy},
    {LMCU_MSG_STORE_SAVE, 0, lmcu_on_store_save},
    {LMCU_MSG_RUN_EPOCHS, 0, lmcu_on_run_epochs},
    {LMCU_MSG_RUN_STOP, 1, lmcu_on_run_stop},
    {LMCU_MSG_ADAPTER_READ, 0, lmcu_on_adapter_read},
    {LMCU_MSG_ADAPTER_BEGIN, 0, lmcu_on_adapter_begin},
    {LMCU_MSG_ADAPTER_DATA, 0, lmcu_on_adapter_data},
    {LMCU_MSG_ADAPTER_COMMIT, 0, lmcu_on_adapter_commit},
    {LMCU_MSG_ADAPTER_RESET, 0, lmcu_on_adapter_reset},
    {LMCU_MSG_SLOT_SAVE, 0, lmcu_on_slot_save},
    {LMCU_MSG_SLOT_LOAD, 0, lmcu_on_slot_load},
    {LMCU_MSG_SLOT_LIST, 0, lmcu_on_slot_list},
    {LMCU_MSG_SLOT_DELETE, 0, lmcu_on_slot_delete},
    {LMCU_MSG_SLOT_DEFAULT, 0, lmcu_on_slot_default},
#if LMCU_SRAM_WEIGHTS
    {LMCU_MSG_MERGE, 0, lmcu_on_merge},
    {LMCU_MSG_UNMERGE, 0, lmcu_on_unmerge},
#endif
};

bool lmcu_run_in_progress(void)
{
    return lmcu_context.run_epochs_left != 0;
}

void lmcu_staging_clear(void)
{
    LINK.staged = 0;
    LINK.target_staged = 0;
    LINK.output_ready = 0;
}

void lmcu_link_init(void)
{
    memset(&lmcu_link, 0, sizeof lmcu_link);
    if (LMCU_KEYED) {
        lmcu_auth_init();
    }
}

/* Builds header | status | fields | crc in `frame`, where the fields stand already; returns the frame's length. */
static uint32_t finish(uint8_t *frame, uint32_t type, uint32_t sequence, lmcu_status_t status, uint32_t fields)
{
    frame[0] = LMCU_PROTOCOL_VERSION;
    frame[1] = (uint8_t)(type | LMCU_RESPONSE);
    frame[2] = (uint8_t)sequence;
    frame[3] = (uint8_t)(sequence >> 8);
    frame[LMCU_FRAME_HEADER] = (uint8_t)status;
    return lmcu_frame_seal(frame, LMCU_FRAME_HEADER + 1 + fields);
}

/* An answer outside the sequence: built over the request, so that the cached response stays. */
static void answer(uint32_t type, uint32_t sequence, lmcu_status_t status, uint32_t fields)
{
    uint8_t *frame = LINK.rx.bytes;
    lmcu_frame_send(frame, finish(frame, type, sequence, status, fields));
}

static lmcu_reply_t outside_reply(void)
{
    const lmcu_reply_t reply = {LINK.rx.bytes + LMCU_FRAME_HEADER + 1, 0};
    return reply;
}

static void nak(uint32_t type, uint32_t sequence)
{
    lmcu_reply_t reply = outside_reply();
    lmcu_put_u16(&reply, LINK.expected);
    LINK.naks++;
    answer(type, sequence, LMCU_NAK, reply.count);
}

static void wrong_version(uint32_t type, uint32_t sequence)
{
    lmcu_reply_t reply = outside_reply();
    lmcu_put_u8(&reply, LMCU_PROTOCOL_VERSION);
    lmcu_put_u8(&reply, LMCU_FIRMWARE_MAJOR);
    lmcu_put_u8(&reply, LMCU_FIRMWARE_MINOR);
    lmcu_put_u8(&reply, LMCU_FIRMWARE_PATCH);
    answer(type, sequence, LMCU_VERSION, reply.count);
}

static void open_session(uint32_t nonce)
{
    if (LINK.session && LINK.nonce == nonce) {
        return; /* the same HELLO again: its answer was lost */
    }
    lmcu_adapter_abort();
    LINK.nonce = nonce;
    LINK.session = 1;
    LINK.expected = 1;
    LINK.tx_count = 0;
    memset(LINK.kept, 0, sizeof LINK.kept);
    lmcu_staging_clear();
}

static void hello(uint32_t sequence, const uint8_t *in, uint32_t count)
{
    lmcu_reply_t reply = outside_reply();
    if (count != 4) {
        answer(LMCU_MSG_HELLO, sequence, LMCU_BAD_LENGTH, 0);
        return;
    }
    const uint32_t nonce = lmcu_get_u32(in);
    if (!LMCU_KEYED) {
        open_session(nonce);
    }
    const lmcu_status_t status = lmcu_on_hello(in, count, &reply);
    if (LMCU_KEYED) { /* nothing has changed yet: AUTH opens the session */
        lmcu_put_u8(&reply, LMCU_AUTH_HMAC);
        lmcu_put_bytes(&reply, lmcu_auth_offer(nonce, LINK.session && nonce == LINK.nonce), LMCU_CHALLENGE_BYTES);
    }
    answer(LMCU_MSG_HELLO, sequence, status, reply.count);
}

static void prove(uint32_t sequence, const uint8_t *in, uint32_t count)
{
    uint8_t tag[LMCU_TAG_BYTES];
    lmcu_reply_t reply = outside_reply();
    const lmcu_proof_t proof = lmcu_auth_prove(in, count, LINK.session);
    if (proof == LMCU_PROOF_WRONG) {
        answer(LMCU_MSG_AUTH, sequence, LMCU_AUTH, 0);
        return;
    }
    if (proof == LMCU_PROOF_OPENS) {
        open_session(lmcu_auth.session.nonce);
    }
    lmcu_auth_answer(tag);
    lmcu_put_bytes(&reply, tag, sizeof tag);
    answer(LMCU_MSG_AUTH, sequence, LMCU_OK, reply.count);
}

/* Keeps what a window needs; a longer response is only ever the last one, and that stays in tx. */
static void keep(uint32_t type, uint32_t sequence, const uint8_t *payload, uint32_t count)
{
    lmcu_kept_t *kept = &LINK.kept[LINK.kept_next];
    LINK.kept_next = (uint8_t)((LINK.kept_next + 1) % LMCU_WINDOW);
    kept->sequence = (uint16_t)sequence;
    kept->type = (uint8_t)type;
    kept->count = count <= LMCU_SMALL_PAYLOAD ? (uint8_t)count : 0;
    memcpy(kept->payload, payload, kept->count);
}

static lmcu_status_t run(uint32_t type, const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    for (uint32_t i = 0; i < sizeof entries / sizeof entries[0]; ++i) {
        if (entries[i].type == type) {
            const bool refused = lmcu_run_in_progress() && !entries[i].in_run;
            return refused ? LMCU_BUSY : entries[i].run(in, count, reply);
        }
    }
    return LMCU_UNSUPPORTED;
}

static void run_next(uint32_t type, uint32_t sequence, const uint8_t *in, uint32_t count)
{
    lmcu_reply_t reply = {LINK.tx + LMCU_FRAME_HEADER + 1, 0};
    LINK.running = (uint8_t)type;
    const lmcu_status_t status = run(type, in, count, &reply);
    LINK.running = 0;
    const uint32_t fields = status == LMCU_OK ? reply.count : 0;
    LINK.tx_count = finish(LINK.tx, type, sequence, status, fields);
    keep(type, sequence, LINK.tx + LMCU_FRAME_HEADER, fields + 1);
    LINK.expected = (uint16_t)(sequence + 1);
    if (LMCU_KEYED && LINK.expected == 0) {
        lmcu_auth.laps++;
    }
    lmcu_frame_send(LINK.tx, LINK.tx_count);
}

/* Built apart from the request, which is still being run. */
void lmcu_notice(uint32_t ms)
{
    uint8_t frame[LMCU_FRAME_HEADER + 1 + 4 + LMCU_FRAME_CRC];
    lmcu_reply_t reply = {frame + LMCU_FRAME_HEADER + 1, 0};
    if (LINK.running != 0) {
        lmcu_put_u32(&reply, ms);
        lmcu_frame_send(frame, finish(frame, LINK.running, LINK.expected, LMCU_BUSY, reply.count));
    }
}

/* The core stands still while flash is erased. */
void lmcu_before_erase(uint32_t ms)
{
    lmcu_port_watchdog_feed();
    lmcu_notice(ms);
}

static const lmcu_kept_t *find_kept(uint32_t sequence)
{
    for (uint32_t i = 0; i < LMCU_WINDOW; ++i) {
        if (LINK.kept[i].count != 0 && LINK.kept[i].sequence == sequence) {
            return &LINK.kept[i];
        }
    }
    return NULL;
}

static void repeat(uint32_t type, uint32_t sequence, int32_t distance)
{
    const lmcu_kept_t *kept = find_kept(sequence);
    if (distance == -1 && LINK.tx_count != 0) {
        LINK.repeats++;
        lmcu_frame_send(LINK.tx, LINK.tx_count);
    } else if (kept != NULL) {
        LINK.repeats++;
        memcpy(LINK.rx.bytes + LMCU_FRAME_HEADER, kept->payload, kept->count);
        answer(kept->type, sequence, (lmcu_status_t)kept->payload[0], kept->count - 1u);
    } else {
        nak(type, sequence);
    }
}

static void on_frame(const uint8_t *frame, uint32_t count)
{
    const uint32_t type = frame[1];
    const uint32_t sequence = lmcu_get_u16(frame + 2);
    const uint8_t *in = frame + LMCU_FRAME_HEADER;
    const uint32_t in_count = count - LMCU_FRAME_HEADER;
    const int32_t distance = (int16_t)(uint16_t)(sequence - LINK.expected);
    LINK.frames++;
    LINK.waiting = 0;
    if (type & LMCU_RESPONSE) {
        return; /* an echo of ourselves */
    }
    if (frame[0] != LMCU_PROTOCOL_VERSION) {
        wrong_version(type, sequence);
    } else if (type == LMCU_MSG_HELLO) {
        hello(sequence, in, in_count);
    } else if (LMCU_KEYED && type == LMCU_MSG_AUTH) {
        prove(sequence, in, in_count);
    } else if (!LINK.session) {
        answer(type, sequence, LMCU_NO_SESSION, 0);
    } else if (distance > 0 || distance < -LMCU_WINDOW) {
        nak(type, sequence);
    } else if (LMCU_KEYED && !lmcu_auth_fits(LINK.expected, distance, type, in, in_count)) {
        answer(type, sequence, LMCU_AUTH, 0); /* and the sequence stays: the request that it stands for may still come */
    } else if (distance == 0) {
        run_next(type, sequence, in, LMCU_KEYED ? in_count - LMCU_TAG_BYTES : in_count);
    } else {
        repeat(type, sequence, distance);
    }
}

void lmcu_link_receive(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; ++i) {
        const int pushed = lmcu_decoder_push(&LINK.rx, bytes[i]);
        if (pushed == LMCU_PUSH_FRAME) {
            on_frame(LINK.rx.bytes, (uint32_t)LINK.rx.count - LMCU_FRAME_CRC);
        } else if (pushed == LMCU_PUSH_BAD) {
            LINK.bad_frames++;
        }
    }
}

/* ---- the line's speed ---- */

static void wait_from_now(void)
{
    LINK.waiting = 1;
    LINK.waiting_since = lmcu_port_ticks();
}

/* The host has the time that noise or a host at the board's own rate has: a whole frame must come, or that rate it is. */
static void change_baud(void)
{
    lmcu_port_baud_set(LINK.baud_wanted);
    LINK.baud_wanted = 0;
    LINK.other_baud = 1;
    wait_from_now();
}

static void keep_baud_while_it_serves(bool bytes_came)
{
    if (LINK.waiting == 0) {
        if (bytes_came) {
            wait_from_now();
        }
    } else if (lmcu_port_ticks() - LINK.waiting_since > (uint64_t)lmcu_port_clock_hz() * LMCU_BAUD_WAIT_MS / 1000u) {
        lmcu_port_baud_set(0);
        LINK.other_baud = 0;
    }
}

bool lmcu_link_poll(void)
{
    uint8_t bytes[64];
    const uint32_t count = lmcu_port_read(bytes, sizeof bytes);
    if (LINK.other_baud != 0) {
        keep_baud_while_it_serves(count != 0);
    }
    lmcu_link_receive(bytes, count);
    if (LINK.baud_wanted != 0) {
        change_baud();
    }
    if (LINK.reboot) {
        lmcu_port_reset();
    }
    if (!lmcu_run_in_progress()) {
        return count != 0;
    }
    const uint64_t start = lmcu_port_ticks();
    (void)lmcu_run_poll();
    LINK.work_ticks = lmcu_port_ticks() - start;
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The device's end of the wire protocol: session, sequence rule, response cache, dispatch. docs/protocol.md is the
 * description; the handlers stand in protocol_*.c. */
#ifndef LMCU_PROTOCOL_H
#define LMCU_PROTOCOL_H

#include "frame.h"

enum {
    LMCU_RESPONSE = 0x80,     /* a response has its request's type with this bit */
    LMCU_SMALL_PAYLOAD = 32,  /* the longest response of a request that may be pipelined */
    LMCU_REPLY_BYTES = LMCU_MAX_PAYLOAD - 1 /* fields of one response, after the status */
};

/* One response kept for the window: enough to build its frame again. */
typedef struct {
    uint16_t sequence;
    uint8_t type;
    uint8_t count; /* of payload; 0: nothing kept */
    uint8_t payload[LMCU_SMALL_PAYLOAD];
} lmcu_kept_t;

typedef struct {
    uint64_t work_ticks;     /* of the last infer, evaluate, train or stored sample */
    uint64_t waiting_since;  /* at another rate: ticks at the first byte after the last whole frame */
    lmcu_decoder_t rx;       /* also where answers outside the sequence are built, so that tx stays as it is */
    uint8_t tx[LMCU_FRAME_BYTES]; /* the last response of the sequence, sealed */
    lmcu_kept_t kept[LMCU_WINDOW];
    uint32_t tx_count;       /* 0: none */
    uint32_t baud_wanted;    /* to be set once the answer is out; 0: none */
    uint32_t nonce;
    uint32_t staged;         /* bytes of the sample in lmcu_model.input, from its start */
    uint32_t target_staged;  /* bytes of lmcu_model.target, likewise */
    lmcu_stats_t evaluation;
    uint32_t frames, bad_frames, repeats, naks; /* counters since boot */
    uint16_t expected;       /* sequence of the next request to run */
    uint8_t session;         /* a HELLO was answered */
    uint8_t output_ready;    /* lmcu_model.output holds the last inference */
    uint8_t reboot;          /* reset once the answer is out */
    uint8_t kept_next;       /* place in kept of the next response */
    uint8_t running;         /* type of the request being run; 0: none */
    uint8_t other_baud;      /* the line has another rate than the board's own */
    uint8_t waiting;         /* for the end of a frame, since waiting_since */
    uint8_t pad_[3];
} lmcu_link_state_t;

typedef union {
    lmcu_link_state_t state;
    uint8_t bytes[LMCU_LINK_BYTES];
} lmcu_link_t;

extern lmcu_link_t lmcu_link;

/* Forgets session, cache and staging: call once at boot. */
void lmcu_link_init(void);

/* One turn of the main loop: takes waiting bytes, answers complete frames, trains on one stored sample while a run is in
 * progress. False: nothing to do until the next interrupt. */
bool lmcu_link_poll(void);

/* The same for bytes that arrived some other way. */
void lmcu_link_receive(const uint8_t *bytes, uint32_t count);

/* ---- for the handlers ---- */

/* Fields of a response, after its status; at most LMCU_REPLY_BYTES. */
typedef struct {
    uint8_t *bytes;
    uint32_t count;
} lmcu_reply_t;

/* Runs one request. The fields are sent only with LMCU_OK; nothing may have changed otherwise. */
typedef lmcu_status_t (*lmcu_handler_t)(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);

typedef struct {
    uint8_t type;
    uint8_t in_run; /* 0: answers BUSY while a run is in progress, which owns the arena and the factors */
    lmcu_handler_t run;
} lmcu_entry_t;

uint32_t lmcu_get_u16(const uint8_t *in);
uint32_t lmcu_get_u32(const uint8_t *in);
float lmcu_get_f32(const uint8_t *in);
void lmcu_put_u8(lmcu_reply_t *reply, uint32_t value);
void lmcu_put_u16(lmcu_reply_t *reply, uint32_t value);
void lmcu_put_u32(lmcu_reply_t *reply, uint32_t value);
void lmcu_put_u64(lmcu_reply_t *reply, uint64_t value);
void lmcu_put_f32(lmcu_reply_t *reply, float value);
void lmcu_put_bytes(lmcu_reply_t *reply, const void *bytes, uint32_t count);
void lmcu_put_stats(lmcu_reply_t *reply, const lmcu_stats_t *stats);

bool lmcu_run_in_progress(void);
/* BUSY: not the answer, but that it will take up to `ms`. */
void lmcu_notice(uint32_t ms);
/* Forgets staged sample, target and output: the arena is about to be used otherwise. */
void lmcu_staging_clear(void);

/* protocol_hello.c */
lmcu_status_t lmcu_on_hello(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_info(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_statistics(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_baud(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_reboot(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
/* protocol_train.c */
lmcu_status_t lmcu_on_configure(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_pass_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_train(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_pass_end(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_store(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_store_clear(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_store_policy(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_run_epochs(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_run_stop(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
/* protocol_sample.c */
lmcu_status_t lmcu_on_sample_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_target_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_evaluate_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_evaluate(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_evaluate_end(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_infer(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_advance(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_state_reset(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_output_read(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
/* Takes the label of TRAIN, STORE and EVALUATE and the sample behind it or staged before: on LMCU_OK both are complete. */
lmcu_status_t lmcu_take_sample(const uint8_t *in, uint32_t count, lmcu_label_t *label) LMCU_MUST_USE;
/* protocol_adapter.c */
lmcu_status_t lmcu_on_adapter_read(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_adapter_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_adapter_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_adapter_commit(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_adapter_reset(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_merge(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_unmerge(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
/* protocol_slot.c */
lmcu_status_t lmcu_on_slot_save(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_slot_load(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_slot_list(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_slot_delete(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_store_save(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);
lmcu_status_t lmcu_on_slot_default(const uint8_t *in, uint32_t count, lmcu_reply_t *reply);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* lora_mcu runtime: int8 inference and on-device LoRA training. The public API, for products that embed it without
 * the serial protocol. One model is linked into a program (lmcu_model, generated); its state is lmcu_context. */
#ifndef LMCU_H
#define LMCU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lmcu_codes.h"
#include "lmcu_config.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LMCU_MUST_USE __attribute__((warn_unused_result))
#define LMCU_ALIGNED(n) __attribute__((aligned(n)))
#else
#define LMCU_MUST_USE
#define LMCU_ALIGNED(n)
#endif

typedef enum lmcu_status lmcu_status_t;

enum { LMCU_LOSS_CROSS_ENTROPY = 0, LMCU_LOSS_MSE = 1 };
enum { LMCU_ROUND_STOCHASTIC = 0, LMCU_ROUND_NEAREST = 1 };

/* One adapted layer: where its factors stand in lmcu_factors, lmcu_gradients and lmcu_momentum (element offsets).
 * A is [rank][k] row-major, B is [m][rank] row-major; parameter order is layers in operator order, A then B. */
typedef struct {
    uint32_t a_offset, a_count; /* a_count = rank * k */
    uint32_t b_offset, b_count; /* b_count = m * rank */
} lmcu_adapter_t;

/* A tensor that a stored sample holds, and where it stands when the pass over that sample begins. */
typedef struct {
    uint8_t *at;
    uint32_t bytes;
} lmcu_part_t;

/* A compiled model: constants, and the memory that the planner laid out. Generated as `lmcu_model`. */
typedef struct {
    const char *info;             /* JSON: names, shapes, quantization, layers (sent by INFO) */
    uint32_t info_bytes;
    const uint8_t *model_sha256;  /* [32] of the .tflite file */
    const uint8_t *layout_sha256; /* [32] of the adapter layout */
    uint32_t input_bytes;         /* one sample in the model's own dtype */
    uint32_t output_bytes;        /* one output in the model's own dtype */
    uint32_t loss;                /* LMCU_LOSS_* */
    uint32_t logit_count;         /* classes, or elements of a regression target */
    float logit_scale;            /* quantization of the int8 tensor that the loss sees */
    int32_t logit_zero_point;
    uint32_t param_count;         /* elements of factors, gradients, momentum */
    uint32_t adapter_count;
    uint32_t max_batch;           /* 0: any; 1: the gradients share memory with the forward pass */
    const lmcu_adapter_t *adapters;
    const uint16_t *initial_a;    /* fp16, the A factors one after another, without the B */
    uint32_t store_capacity;      /* samples */
    uint32_t record_bytes;        /* of one stored sample: its parts, each rounded up to 4, a tag, a target */
    const lmcu_part_t *parts;     /* [part_count]: the input, or all that the prefix hands on to the suffix */
    uint32_t part_count;
    uint32_t cached;              /* stored samples hold what comes out of the prefix, and epochs run the suffix only */
    uint8_t *input;               /* in the arena; staging for SAMPLE_DATA; its content is gone after a forward pass */
    const uint8_t *output;        /* in the arena, valid after lmcu_infer */
    const int8_t *logits;         /* in the arena, valid after the forward pass */
    float *logit_gradient;        /* in the arena, input of the backward pass; NULL when nothing is adapted */
    uint16_t *factors;            /* [param_count] IEEE binary16 */
    float *gradients;             /* [param_count] sums over the open batch; in the arena where max_batch is 1 */
    float *momentum;              /* [param_count]; NULL: compiled without, only momentum 0 is there */
    uint8_t *store;               /* [store_capacity * record_bytes] */
    uint16_t *order;              /* [store_capacity] */
    uint32_t *class_seen;         /* [lmcu_class_count()] samples offered of each class; cross entropy only */
    float *target;                /* [logit_count] staging of TARGET_DATA; NULL unless the loss is MSE */
    uint8_t *state;               /* [state_bytes] of a streaming model: every forward pass reads and advances it */
    const int8_t *initial_state;  /* [state_bytes] */
    uint32_t state_bytes;         /* 0: the model keeps nothing from one inference to the next */
} lmcu_model_t;

extern const lmcu_model_t lmcu_model;
void lmcu_model_prefix(void);   /* input -> all that the suffix reads: no factor changes it; may be empty */
void lmcu_model_suffix(void);   /* the rest of the forward pass, to logits */
void lmcu_model_tail(void);     /* logits -> output (softmax, dequantize); nothing for most regressors */
void lmcu_model_backward(void); /* logit_gradient -> gradients += */

/* Called after each operator, forward and backward. A program may define its own (the firmware's feeds the watchdog); it
 * must not touch the model's memory. The one that comes along does nothing. */
void lmcu_layer_done(void);

/* Classes of a model trained on the cross entropy: one a logit; one logit alone decides between class 0 and class 1. */
static inline uint32_t lmcu_class_count(void)
{
    return lmcu_model.logit_count == 1u ? 2u : lmcu_model.logit_count;
}

/* What a label is on the device. Cross entropy: a class index, 4 bytes little-endian u32 on the wire, in the store the low
 * 24 bits of the record's tag. MSE: logit_count float32 in real units, in the store behind the tag. */
typedef union {
    uint32_t class_index;
    const float *target;
} lmcu_label_t;

typedef struct {
    float lr;            /* of A */
    float lr_b_ratio;    /* lr of B = lr_b_ratio * lr (LoRA+, arXiv 2402.12354) */
    float momentum;      /* mu, 0 <= mu < 1 */
    float weight_decay;
    float clip_norm;     /* 0: no clipping */
    uint32_t batch_size; /* >= 1 */
    uint32_t seed;
    uint32_t rounding;   /* LMCU_ROUND_* */
} lmcu_settings_t;

/* What a full sample store does with the next sample, and which samples are kept for judging. */
enum { LMCU_STORE_STOP = 0, LMCU_STORE_RING = 1, LMCU_STORE_RESERVOIR = 2 };
typedef struct {
    uint32_t policy;   /* STOP: refuses it; RING: drops the oldest; RESERVOIR: keeps a fair draw of all that were offered */
    uint32_t balance;  /* 1: the class with the most samples gives way (cross entropy; not with STOP) */
    uint32_t hold_out; /* every hold_out-th sample offered is kept for lmcu_guard_*, not trained on; 0: none */
} lmcu_store_policy_t;

/* Sums over samples since they were last cleared; loss and accuracy are loss_sum / samples and correct / samples. */
typedef struct {
    float loss_sum;
    uint32_t samples;
    uint32_t correct; /* cross entropy only */
    uint32_t steps;   /* executed steps, skipped ones not counted */
    uint32_t skipped;
} lmcu_stats_t;

typedef struct {
    lmcu_settings_t settings;
    lmcu_stats_t pass;     /* of the streamed pass that is open: cleared by lmcu_pass_begin */
    lmcu_stats_t epoch;    /* of the current or, between epochs, the last epoch of a run */
    uint32_t step;         /* executed steps since configure/load/reset: index of the random stream */
    uint32_t total_steps;  /* since boot, never cleared: HELLO reports it */
    uint32_t batch_fill;   /* samples in the open batch */
    uint32_t epoch_index;  /* epochs run since configure/load/reset: index of the shuffle stream */
    uint32_t run_epochs_left;
    uint32_t run_position; /* next index into order */
    uint32_t run_steps, run_skipped; /* totals of the run in progress or last finished */
    uint32_t stored;       /* samples in the store */
    uint32_t float_ok;     /* result of the boot self-test */
    uint32_t transfer_open; /* an adapter is being received into the gradient buffer */
    uint32_t transfer_received; /* bytes so far */
    lmcu_store_policy_t store_policy;
    uint32_t seen;         /* samples offered to the store since it was cleared */
    uint32_t run_count;    /* samples of the current epoch: those that are not held out */
    uint32_t merged;       /* the weights hold the adapter too */
    uint32_t pad_[28];     /* to LMCU_CONTEXT_BYTES */
} lmcu_context_t;

extern lmcu_context_t lmcu_context;

/* Always false unless compiled with weights = "sram". */
static inline bool lmcu_is_merged(void)
{
    return LMCU_SRAM_WEIGHTS != 0 && lmcu_context.merged != 0u;
}

/* Boot: self-test of the float environment, default settings, initial factors. Call once before anything else.
 * Returns FLOAT_ENV when this core cannot train with the promised bytes (inference still works). */
lmcu_status_t lmcu_init(void) LMCU_MUST_USE;

/* Default settings: lr 0.01, ratio 1, momentum 0, weight decay 0, clip 0, batch 8 (1 where max_batch is 1), seed 0,
 * stochastic. */
lmcu_settings_t lmcu_default_settings(void);

/* Checks ranges (finite, lr > 0, ratio > 0, 0 <= momentum < 1, decay >= 0, clip >= 0, batch >= 1): BAD_ARGUMENT or
 * NOT_FINITE and no change otherwise; NO_MOMENTUM and BATCH_LIMIT where the model was compiled without. Keeps factors and stored samples, zeroes momentum, step, epoch and open batch. */
lmcu_status_t lmcu_configure(const lmcu_settings_t *settings) LMCU_MUST_USE;

/* Back to the base: initial A, B = 0, the base's weights, initial state; zeroes momentum, step, open batch; keeps settings and stored samples. */
void lmcu_reset(void);

/* Runs the model on lmcu_model.input; the result is at lmcu_model.output. Changes no training state. */
void lmcu_infer(void);

/* Streaming models. Every forward pass (infer, advance, evaluate, train) reads the state and leaves the next one there.
 * advance is an infer whose output nobody wants. The state is reset at boot, by lmcu_reset and when an adapter is loaded. A
 * labelled sequence of frames is state_reset, advance for all frames but the last, train_sample or evaluate_sample. */
void lmcu_advance(void);
void lmcu_state_reset(void);

/* Forward and loss of the sample in lmcu_model.input; adds to *stats (loss_sum, samples, correct). Changes no training
 * state. BAD_LABEL: class_index >= lmcu_class_count(), or a target that is not finite. */
lmcu_status_t lmcu_evaluate_sample(lmcu_label_t label, lmcu_stats_t *stats) LMCU_MUST_USE;

/* Streamed training. pass_begin clears context.pass; train_sample runs forward and backward on lmcu_model.input and, when
 * the batch is full, one update; pass_end flushes a partial batch. */
lmcu_status_t lmcu_pass_begin(void) LMCU_MUST_USE;
lmcu_status_t lmcu_train_sample(lmcu_label_t label) LMCU_MUST_USE;
lmcu_status_t lmcu_pass_end(void) LMCU_MUST_USE;

/* Forward and backward of one sample without an update: lmcu_model.gradients holds that sample's gradients afterwards (the
 * open batch is lost; the host twin saves and restores it). */
lmcu_status_t lmcu_gradient_sample(lmcu_label_t label) LMCU_MUST_USE;

/* The sample store. store_sample takes lmcu_model.input and the label into the next free record; where the model is compiled
 * to cache features it runs the prefix and keeps those. The input's memory is used up. */
lmcu_status_t lmcu_store_sample(lmcu_label_t label) LMCU_MUST_USE;
void lmcu_store_clear(void);

/* Changes what a full store does from now on; keeps the samples. Boot: STOP, nothing held out. BAD_ARGUMENT: a value out of
 * range, or balance without classes. */
lmcu_status_t lmcu_store_configure(const lmcu_store_policy_t *policy) LMCU_MUST_USE;
uint32_t lmcu_store_held_out(void); /* how many of the stored samples */

/* Forward and loss of all held-out samples into *stats, without a pause. STORE_EMPTY: none is held out. */
lmcu_status_t lmcu_evaluate_held_out(lmcu_stats_t *stats) LMCU_MUST_USE;

/* The guard: begin before training, end after it. `saved` [lmcu_model.param_count] is the caller's and stays his until end.
 * end restores the adapter before (momentum and step are zeroed) and answers WORSE when the held-out samples say that the
 * trained one is worse than it or than the base: fewer right answers, or a larger loss where the loss is MSE. */
typedef struct {
    uint16_t *saved;
    lmcu_stats_t base, before, after;
} lmcu_guard_t;
lmcu_status_t lmcu_guard_begin(lmcu_guard_t *guard, uint16_t *saved) LMCU_MUST_USE;
lmcu_status_t lmcu_guard_end(lmcu_guard_t *guard) LMCU_MUST_USE;

/* Epochs over the stored samples, shuffled by the seed. run_begin starts; each run_poll trains on one sample and returns
 * true while the run goes on, so a main loop stays responsive; run_stop ends early (flushing nothing: the open batch is dropped). */
lmcu_status_t lmcu_run_begin(uint32_t epochs) LMCU_MUST_USE;
bool lmcu_run_poll(void);
void lmcu_run_stop(void);

/* Adapter transfer in, atomic: begin opens it (the gradient buffer becomes the receive buffer, the open batch is dropped),
 * data fills it, commit checks CRC-32 and finiteness and only then replaces the factors; training before a commit answers
 * BUSY; abort (or HELLO, reset, configure) forgets it. Offsets and sizes are in bytes of the fp16 array. */
lmcu_status_t lmcu_adapter_begin(void) LMCU_MUST_USE;
lmcu_status_t lmcu_adapter_data(uint32_t offset, const uint8_t *bytes, uint32_t count) LMCU_MUST_USE;
lmcu_status_t lmcu_adapter_commit(uint32_t crc32) LMCU_MUST_USE;
void lmcu_adapter_abort(void);
uint32_t lmcu_adapter_crc32(void); /* of the factors in use */

/* The adapter in use merged into the weights, which stand in SRAM (weights = "sram"; UNSUPPORTED otherwise): after it
 * inference costs what the base costs, and training and other adapters are refused (MERGED). unmerge, reset and boot give the
 * base's weights back bit for bit; the factors stay as they are. Both may be called again. FLOAT_ENV, BUSY; SCALE_RANGE: the
 * sum does not fit the scale of an output, and nothing has changed. */
lmcu_status_t lmcu_merge(void) LMCU_MUST_USE;
lmcu_status_t lmcu_unmerge(void) LMCU_MUST_USE;

/* CRC-32 as in zlib (polynomial 0xEDB88320): crc = lmcu_crc32(0, data, n), continued with crc = lmcu_crc32(crc, more, n). */
uint32_t lmcu_crc32(uint32_t crc, const void *data, size_t count);

#ifdef __cplusplus
}
#endif
#endif

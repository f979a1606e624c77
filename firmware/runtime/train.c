/* SPDX-License-Identifier: Apache-2.0 */
/* The training core: context, settings, passes, epochs over the sample store and adapter transfer. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_mem.h"
#include "lora.h"
#include "merge.h"
#include "random.h"
#include "samples.h"
#include "train.h"

LMCU_ALIGNED(8) lmcu_context_t lmcu_context;

typedef char lmcu_context_size_check_t[sizeof(lmcu_context_t) == LMCU_CONTEXT_BYTES ? 1 : -1];

/* ---- state ---- */

bool lmcu_busy(void)
{
    return lmcu_context.run_epochs_left > 0u || lmcu_context.transfer_open != 0u;
}

lmcu_status_t lmcu_training_status(void)
{
    if (lmcu_model.adapter_count == 0u) {
        return LMCU_NO_ADAPTERS;
    }
    if (lmcu_context.float_ok == 0u) {
        return LMCU_FLOAT_ENV;
    }
    if (lmcu_is_merged()) {
        return LMCU_MERGED;
    }
    return lmcu_busy() ? LMCU_BUSY : LMCU_OK;
}

/* With max_batch 1 the gradients share memory with the forward pass, and the generated backward pass zeroes them. */
static bool gradients_stay(void)
{
    return lmcu_model.max_batch == 0u;
}

static void zero_floats(float *values)
{
    for (uint32_t i = 0u; i < lmcu_model.param_count; ++i) {
        values[i] = 0.0f;
    }
}

void lmcu_restart(void)
{
    if (lmcu_model.momentum) {
        zero_floats(lmcu_model.momentum);
    }
    if (gradients_stay()) {
        zero_floats(lmcu_model.gradients);
    }
    lmcu_context.step = 0u;
    lmcu_context.epoch_index = 0u;
    lmcu_context.batch_fill = 0u;
    lmcu_context.transfer_open = 0u;
}

void lmcu_factors_changed(void)
{
#if LMCU_NUMERICS_I16
    lmcu_lora_tables();
#endif
}

void lmcu_state_reset(void)
{
    if (lmcu_model.state_bytes != 0u) {
        memcpy(lmcu_model.state, lmcu_model.initial_state, lmcu_model.state_bytes);
    }
}

void lmcu_initial_factors(void)
{
    const uint16_t *from = lmcu_model.initial_a;
    for (uint32_t i = 0u; i < lmcu_model.adapter_count; ++i) {
        const lmcu_adapter_t *a = &lmcu_model.adapters[i];
        memcpy(lmcu_model.factors + a->a_offset, from, 2u * (size_t)a->a_count);
        memset(lmcu_model.factors + a->b_offset, 0, 2u * (size_t)a->b_count);
        from += a->a_count;
    }
    lmcu_factors_changed();
}

lmcu_settings_t lmcu_default_settings(void)
{
    lmcu_settings_t settings = {0.01f, 1.0f, 0.0f, 0.0f, 0.0f, 8u, 0u, LMCU_ROUND_STOCHASTIC};
    if (lmcu_model.max_batch != 0u) {
        settings.batch_size = lmcu_model.max_batch;
    }
    return settings;
}

lmcu_status_t lmcu_init(void)
{
    memset(&lmcu_context, 0, sizeof lmcu_context);
    lmcu_context.settings = lmcu_default_settings();
    lmcu_context.float_ok = lmcu_self_test() ? 1u : 0u;
    lmcu_samples_boot();
    lmcu_reset();
    return lmcu_context.float_ok != 0u ? LMCU_OK : LMCU_FLOAT_ENV;
}

static lmcu_status_t check_settings(const lmcu_settings_t *s)
{
    if (!lmcu_is_finite(s->lr) || !lmcu_is_finite(s->lr_b_ratio) || !lmcu_is_finite(s->momentum) ||
        !lmcu_is_finite(s->weight_decay) || !lmcu_is_finite(s->clip_norm)) {
        return LMCU_NOT_FINITE;
    }
    const bool rates = s->lr > 0.0f && s->lr_b_ratio > 0.0f && s->momentum >= 0.0f && s->momentum < 1.0f;
    const bool limits = s->weight_decay >= 0.0f && s->clip_norm >= 0.0f && s->batch_size >= 1u;
    if (!rates || !limits || s->rounding > LMCU_ROUND_NEAREST) {
        return LMCU_BAD_ARGUMENT;
    }
    if (s->momentum > 0.0f && !lmcu_model.momentum) {
        return LMCU_NO_MOMENTUM;
    }
    return lmcu_model.max_batch != 0u && s->batch_size > lmcu_model.max_batch ? LMCU_BATCH_LIMIT : LMCU_OK;
}

lmcu_status_t lmcu_configure(const lmcu_settings_t *settings)
{
    if (lmcu_context.run_epochs_left > 0u) {
        return LMCU_BUSY;
    }
    const lmcu_status_t status = check_settings(settings);
    if (status == LMCU_OK) {
        lmcu_context.settings = *settings;
        lmcu_restart();
    }
    return status;
}

void lmcu_reset(void)
{
    lmcu_run_stop();
    if (LMCU_SRAM_WEIGHTS) {
        lmcu_weights_restore();
    }
    lmcu_initial_factors();
    lmcu_restart();
    lmcu_state_reset();
}

/* ---- one sample ---- */

lmcu_status_t lmcu_check_label(lmcu_label_t label)
{
    if (lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY) {
        return label.class_index < lmcu_class_count() ? LMCU_OK : LMCU_BAD_LABEL;
    }
    for (uint32_t i = 0u; i < lmcu_model.logit_count; ++i) {
        if (!lmcu_is_finite(label.target[i])) {
            return LMCU_BAD_LABEL;
        }
    }
    return LMCU_OK;
}

/* A forward pass over the memory that an adapter is being received into ends the transfer. */
static void claim_arena(void)
{
    if (!gradients_stay()) {
        lmcu_adapter_abort();
    }
}

void lmcu_advance(void)
{
    claim_arena();
    lmcu_model_prefix();
    lmcu_model_suffix();
}

void lmcu_infer(void)
{
    lmcu_advance();
    lmcu_model_tail();
}

/* Where a sample comes from: the input, or a stored record, whose parts stand in the arena already. */
typedef enum { FROM_INPUT, FROM_RECORD } from_t;

/* Forward and loss; `gradient` as in lmcu_loss. */
static void run_sample(from_t from, lmcu_label_t label, float *gradient, lmcu_stats_t *stats)
{
    claim_arena();
    if (from == FROM_INPUT || lmcu_model.cached == 0u) {
        lmcu_model_prefix();
    }
    lmcu_model_suffix();
    const lmcu_loss_t result = lmcu_loss(label, gradient);
    stats->loss_sum = stats->loss_sum + result.loss;
    stats->samples += 1u;
    stats->correct += result.correct ? 1u : 0u;
}

lmcu_status_t lmcu_evaluate_sample(lmcu_label_t label, lmcu_stats_t *stats)
{
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    const lmcu_status_t status = lmcu_check_label(label);
    if (status == LMCU_OK) {
        run_sample(FROM_INPUT, label, NULL, stats);
    }
    return status;
}

void lmcu_run_record(lmcu_label_t label, lmcu_stats_t *stats)
{
    run_sample(FROM_RECORD, label, NULL, stats);
}

lmcu_status_t lmcu_gradient_sample(lmcu_label_t label)
{
    lmcu_status_t status = lmcu_training_status();
    if (status == LMCU_OK) {
        status = lmcu_check_label(label);
    }
    if (status == LMCU_OK) {
        lmcu_stats_t unused = {0.0f, 0u, 0u, 0u, 0u};
        lmcu_context.batch_fill = 0u;
        if (gradients_stay()) {
            zero_floats(lmcu_model.gradients);
        }
        run_sample(FROM_INPUT, label, lmcu_model.logit_gradient, &unused);
        lmcu_model_backward();
    }
    return status;
}

/* ---- batches ---- */

/* Ends the open batch with one step, executed or skipped. */
static void finish_batch(lmcu_stats_t *stats)
{
    if (lmcu_context.batch_fill == 0u) {
        return;
    }
    if (lmcu_update(lmcu_context.batch_fill)) {
        lmcu_context.step += 1u;
        lmcu_context.total_steps += 1u;
        stats->steps += 1u;
    } else {
        stats->skipped += 1u;
    }
    lmcu_context.batch_fill = 0u;
}

static void train_one(from_t from, lmcu_label_t label, lmcu_stats_t *stats)
{
    if (lmcu_context.batch_fill == 0u && gradients_stay()) {
        zero_floats(lmcu_model.gradients);
    }
    run_sample(from, label, lmcu_model.logit_gradient, stats);
    lmcu_model_backward();
    lmcu_context.batch_fill += 1u;
    if (lmcu_context.batch_fill >= lmcu_context.settings.batch_size) {
        finish_batch(stats);
    }
}

lmcu_status_t lmcu_pass_begin(void)
{
    const lmcu_status_t status = lmcu_training_status();
    if (status == LMCU_OK) {
        const lmcu_stats_t none = {0.0f, 0u, 0u, 0u, 0u};
        lmcu_context.pass = none;
        lmcu_context.batch_fill = 0u;
    }
    return status;
}

lmcu_status_t lmcu_train_sample(lmcu_label_t label)
{
    lmcu_status_t status = lmcu_training_status();
    if (status == LMCU_OK) {
        status = lmcu_check_label(label);
    }
    if (status == LMCU_OK) {
        train_one(FROM_INPUT, label, &lmcu_context.pass);
    }
    return status;
}

lmcu_status_t lmcu_pass_end(void)
{
    const lmcu_status_t status = lmcu_training_status();
    if (status == LMCU_OK) {
        finish_batch(&lmcu_context.pass);
    }
    return status;
}

/* ---- epochs over the store ---- */

/* Fisher-Yates with one random number per place; depends on seed and epoch only. */
static void shuffle(void)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_SHUFFLE, lmcu_context.epoch_index);
    lmcu_context.run_count = lmcu_samples_order();
    for (uint32_t i = lmcu_context.run_count; i-- > 1u;) {
        const uint32_t j = (uint32_t)(((uint64_t)lmcu_rand_at(key, i) * (i + 1u)) >> 32);
        const uint16_t swapped = lmcu_model.order[i];
        lmcu_model.order[i] = lmcu_model.order[j];
        lmcu_model.order[j] = swapped;
    }
}

static void begin_epoch(void)
{
    const lmcu_stats_t none = {0.0f, 0u, 0u, 0u, 0u};
    lmcu_context.epoch = none;
    shuffle();
}

static void end_epoch(void)
{
    finish_batch(&lmcu_context.epoch);
    lmcu_context.run_steps += lmcu_context.epoch.steps;
    lmcu_context.run_skipped += lmcu_context.epoch.skipped;
    lmcu_context.epoch_index += 1u;
    lmcu_context.run_position = 0u;
    lmcu_context.run_epochs_left -= 1u;
}

lmcu_status_t lmcu_run_begin(uint32_t epochs)
{
    const lmcu_status_t status = lmcu_training_status();
    if (status != LMCU_OK) {
        return status;
    }
    if (epochs == 0u) {
        return LMCU_BAD_ARGUMENT;
    }
    if (lmcu_samples_order() == 0u) {
        return LMCU_STORE_EMPTY;
    }
    lmcu_context.batch_fill = 0u;
    lmcu_context.run_epochs_left = epochs;
    lmcu_context.run_position = 0u;
    lmcu_context.run_steps = 0u;
    lmcu_context.run_skipped = 0u;
    return LMCU_OK;
}

bool lmcu_run_poll(void)
{
    if (lmcu_context.run_epochs_left == 0u) {
        return false;
    }
    if (lmcu_context.run_position == 0u) {
        begin_epoch();
    }
    lmcu_label_t label;
    if (lmcu_samples_load(lmcu_model.order[lmcu_context.run_position], &label)) {
        train_one(FROM_RECORD, label, &lmcu_context.epoch);
    }
    lmcu_context.run_position += 1u;
    if (lmcu_context.run_position == lmcu_context.run_count) {
        end_epoch();
    }
    return lmcu_context.run_epochs_left > 0u;
}

/* The steps of the unfinished epoch count; its open batch is dropped. */
void lmcu_run_stop(void)
{
    if (lmcu_context.run_epochs_left == 0u) {
        return;
    }
    if (lmcu_context.run_position > 0u) {
        lmcu_context.run_steps += lmcu_context.epoch.steps;
        lmcu_context.run_skipped += lmcu_context.epoch.skipped;
        lmcu_context.epoch_index += 1u;
    }
    lmcu_context.run_epochs_left = 0u;
    lmcu_context.run_position = 0u;
    lmcu_context.batch_fill = 0u;
}

/* ---- adapter transfer: the gradient buffer receives, the factors change at the end ---- */

static uint8_t *received(void)
{
    return (uint8_t *)(void *)lmcu_model.gradients;
}

static uint32_t factor_bytes(void)
{
    return 2u * lmcu_model.param_count;
}

lmcu_status_t lmcu_adapter_begin(void)
{
    if (lmcu_model.adapter_count == 0u) {
        return LMCU_NO_ADAPTERS;
    }
    if (lmcu_context.run_epochs_left > 0u) {
        return LMCU_BUSY;
    }
    if (lmcu_is_merged()) {
        return LMCU_MERGED;
    }
    lmcu_context.batch_fill = 0u;
    lmcu_context.transfer_open = 1u;
    lmcu_context.transfer_received = 0u;
    return LMCU_OK;
}

lmcu_status_t lmcu_adapter_data(uint32_t offset, const uint8_t *bytes, uint32_t count)
{
    if (lmcu_context.transfer_open == 0u) {
        return LMCU_NO_TRANSFER;
    }
    if (offset != lmcu_context.transfer_received || count > factor_bytes() - offset) {
        return LMCU_BAD_ARGUMENT;
    }
    memcpy(received() + offset, bytes, count);
    lmcu_context.transfer_received += count;
    return LMCU_OK;
}

static lmcu_status_t check_received(uint32_t crc32)
{
    if (lmcu_context.transfer_received != factor_bytes()) {
        return LMCU_BAD_LENGTH;
    }
    if (lmcu_crc32(0u, received(), factor_bytes()) != crc32) {
        return LMCU_BAD_CRC;
    }
    for (uint32_t i = 0u; i < lmcu_model.param_count; ++i) {
        uint16_t half;
        memcpy(&half, received() + 2u * (size_t)i, 2u);
        if (!lmcu_half_is_finite(half)) {
            return LMCU_NOT_FINITE;
        }
    }
    return LMCU_OK;
}

lmcu_status_t lmcu_adapter_commit(uint32_t crc32)
{
    if (lmcu_context.transfer_open == 0u) {
        return LMCU_NO_TRANSFER;
    }
    const lmcu_status_t status = check_received(crc32);
    lmcu_adapter_abort();
    if (status == LMCU_OK) {
        memcpy(lmcu_model.factors, received(), factor_bytes());
        lmcu_factors_changed();
        lmcu_restart();
        lmcu_state_reset();
    }
    return status;
}

void lmcu_adapter_abort(void)
{
    lmcu_context.transfer_open = 0u;
}

uint32_t lmcu_adapter_crc32(void)
{
    return lmcu_crc32(0u, lmcu_model.factors, factor_bytes());
}

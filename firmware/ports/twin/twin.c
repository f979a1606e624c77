/* SPDX-License-Identifier: Apache-2.0 */
/* The twin: the generated model and the runtime as a library in a host process. Every call runs under the floating-point
 * environment that the devices have (nearest, no flush to zero) and gives the host's own back. */
#include <fenv.h>
#include <string.h>

#include "lmcu.h"

static fenv_t host;

static void enter(void)
{
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
}

static int leave(int status)
{
    fesetenv(&host);
    return status;
}

static lmcu_label_t label_of(const void *bytes)
{
    lmcu_label_t label;
    if (lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY) {
        memcpy(&label.class_index, bytes, sizeof label.class_index);
    } else {
        memcpy(lmcu_model.target, bytes, lmcu_model.logit_count * sizeof(float));
        label.target = lmcu_model.target;
    }
    return label;
}

static lmcu_label_t stage(const uint8_t *sample, const void *label)
{
    memcpy(lmcu_model.input, sample, lmcu_model.input_bytes);
    return label_of(label);
}

int twin_init(void)
{
    enter();
    return leave((int)lmcu_init());
}

int twin_configure(const lmcu_settings_t *settings)
{
    enter();
    return leave((int)lmcu_configure(settings));
}

int twin_reset(void)
{
    enter();
    lmcu_reset();
    return leave(LMCU_OK);
}

int twin_infer(const uint8_t *sample, uint8_t *output)
{
    enter();
    memcpy(lmcu_model.input, sample, lmcu_model.input_bytes);
    lmcu_infer();
    memcpy(output, lmcu_model.output, lmcu_model.output_bytes);
    return leave(LMCU_OK);
}

int twin_advance(const uint8_t *sample)
{
    enter();
    memcpy(lmcu_model.input, sample, lmcu_model.input_bytes);
    lmcu_advance();
    return leave(LMCU_OK);
}

int twin_state_reset(void)
{
    lmcu_state_reset();
    return LMCU_OK;
}

int twin_evaluate(const uint8_t *sample, const void *label, lmcu_stats_t *stats)
{
    enter();
    return leave((int)lmcu_evaluate_sample(stage(sample, label), stats));
}

int twin_pass_begin(void)
{
    enter();
    return leave((int)lmcu_pass_begin());
}

int twin_train(const uint8_t *sample, const void *label)
{
    enter();
    return leave((int)lmcu_train_sample(stage(sample, label)));
}

int twin_pass_end(lmcu_stats_t *stats)
{
    enter();
    lmcu_status_t status = lmcu_pass_end();
    *stats = lmcu_context.pass;
    return leave((int)status);
}

/* out [param_count] receives the sample's gradients; the open batch stays as it was */
int twin_gradient(const uint8_t *sample, const void *label, float *out)
{
    enter();
    uint32_t count = lmcu_model.param_count, batch_fill = lmcu_context.batch_fill;
    memcpy(out, lmcu_model.gradients, count * sizeof(float));
    lmcu_status_t status = lmcu_gradient_sample(stage(sample, label));
    for (uint32_t i = 0; i < count; i++) {
        float gradient = lmcu_model.gradients[i];
        lmcu_model.gradients[i] = out[i];
        out[i] = gradient;
    }
    lmcu_context.batch_fill = batch_fill;
    return leave((int)status);
}

int twin_store_policy(const lmcu_store_policy_t *policy)
{
    return (int)lmcu_store_configure(policy);
}

/* out: policy, balance, hold_out, stored, held out, seen */
int twin_store_state(uint32_t *out)
{
    memcpy(out, &lmcu_context.store_policy, sizeof lmcu_context.store_policy);
    out[3] = lmcu_context.stored;
    out[4] = lmcu_store_held_out();
    out[5] = lmcu_context.seen;
    return LMCU_OK;
}

/* The records as they stand in memory, for tests. */
int twin_records(uint8_t *out)
{
    memcpy(out, lmcu_model.store, (size_t)lmcu_context.stored * lmcu_model.record_bytes);
    return LMCU_OK;
}

int twin_evaluate_held_out(lmcu_stats_t *stats)
{
    enter();
    return leave((int)lmcu_evaluate_held_out(stats));
}

/* saved [param_count] */
int twin_guard_begin(lmcu_guard_t *guard, uint16_t *saved)
{
    enter();
    return leave((int)lmcu_guard_begin(guard, saved));
}

int twin_guard_end(lmcu_guard_t *guard)
{
    enter();
    return leave((int)lmcu_guard_end(guard));
}

int twin_factors(uint8_t *out)
{
    memcpy(out, lmcu_model.factors, lmcu_model.param_count * sizeof(uint16_t));
    return LMCU_OK;
}

int twin_store(const uint8_t *sample, const void *label)
{
    enter();
    return leave((int)lmcu_store_sample(stage(sample, label)));
}

int twin_store_clear(void)
{
    lmcu_store_clear();
    return LMCU_OK;
}

int twin_run_epoch(lmcu_stats_t *stats)
{
    enter();
    lmcu_status_t status = lmcu_run_begin(1);
    while (status == LMCU_OK && lmcu_run_poll()) {
    }
    *stats = lmcu_context.epoch;
    return leave((int)status);
}

int twin_load(const uint8_t *factors, uint32_t count, uint32_t crc32)
{
    lmcu_status_t status = lmcu_adapter_begin();
    if (status == LMCU_OK) {
        status = lmcu_adapter_data(0, factors, count);
    }
    if (status == LMCU_OK) {
        enter();
        status = lmcu_adapter_commit(crc32);
        leave(0);
    }
    if (status != LMCU_OK) {
        lmcu_adapter_abort();
    }
    return (int)status;
}

int twin_merge(void)
{
    enter();
    return leave((int)lmcu_merge());
}

int twin_unmerge(void)
{
    return (int)lmcu_unmerge();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Training: settings, streamed passes, the sample store, runs over it. */
#include "lmcu_strict.h"

#include "lmcu_port.h"
#include "protocol.h"

#define LINK (lmcu_link.state)

lmcu_status_t lmcu_on_configure(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (count != 32) {
        return LMCU_BAD_LENGTH;
    }
    const lmcu_settings_t settings = {
        .lr = lmcu_get_f32(in),
        .lr_b_ratio = lmcu_get_f32(in + 4),
        .momentum = lmcu_get_f32(in + 8),
        .weight_decay = lmcu_get_f32(in + 12),
        .clip_norm = lmcu_get_f32(in + 16),
        .batch_size = lmcu_get_u32(in + 20),
        .seed = lmcu_get_u32(in + 24),
        .rounding = lmcu_get_u32(in + 28),
    };
    return lmcu_configure(&settings);
}

lmcu_status_t lmcu_on_pass_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    return count == 0 ? lmcu_pass_begin() : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_train(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    lmcu_label_t label;
    lmcu_status_t status = lmcu_take_sample(in, count, &label);
    if (status != LMCU_OK) {
        return status;
    }
    const uint64_t start = lmcu_port_ticks();
    status = lmcu_train_sample(label);
    LINK.work_ticks = lmcu_port_ticks() - start;
    lmcu_staging_clear();
    lmcu_put_u32(reply, lmcu_context.total_steps);
    return status;
}

lmcu_status_t lmcu_on_pass_end(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    const lmcu_status_t status = lmcu_pass_end();
    lmcu_put_u32(reply, lmcu_context.total_steps);
    lmcu_put_stats(reply, &lmcu_context.pass);
    return status;
}

lmcu_status_t lmcu_on_store(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    lmcu_label_t label;
    lmcu_status_t status = lmcu_take_sample(in, count, &label);
    if (status != LMCU_OK) {
        return status;
    }
    status = lmcu_store_sample(label);
    lmcu_staging_clear();
    lmcu_put_u32(reply, lmcu_context.stored);
    return status;
}

lmcu_status_t lmcu_on_store_clear(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_store_clear();
    return LMCU_OK;
}

/* Sets with 12 bytes, reads with none. */
lmcu_status_t lmcu_on_store_policy(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    if (count != 12 && count != 0) {
        return LMCU_BAD_LENGTH;
    }
    if (count == 12) {
        const lmcu_store_policy_t policy = {lmcu_get_u32(in), lmcu_get_u32(in + 4), lmcu_get_u32(in + 8)};
        const lmcu_status_t status = lmcu_store_configure(&policy);
        if (status != LMCU_OK) {
            return status;
        }
    }
    lmcu_put_u32(reply, lmcu_context.store_policy.policy);
    lmcu_put_u32(reply, lmcu_context.store_policy.balance);
    lmcu_put_u32(reply, lmcu_context.store_policy.hold_out);
    lmcu_put_u32(reply, lmcu_context.stored);
    lmcu_put_u32(reply, lmcu_store_held_out());
    lmcu_put_u32(reply, lmcu_context.seen);
    return LMCU_OK;
}

lmcu_status_t lmcu_on_run_epochs(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (count != 4) {
        return LMCU_BAD_LENGTH;
    }
    const lmcu_status_t status = lmcu_run_begin(lmcu_get_u32(in));
    if (status == LMCU_OK) {
        lmcu_staging_clear();
    }
    return status;
}

lmcu_status_t lmcu_on_run_stop(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_run_stop();
    return LMCU_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Samples: staged in pieces or inline, evaluated, inferred. The arena reuses the input, so a sample serves once. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "protocol.h"

#define LINK (lmcu_link.state)

/* An adapter is being received into memory that a sample would use. */
static int arena_is_taken(void)
{
    return lmcu_model.max_batch != 0u && lmcu_context.transfer_open != 0u;
}

/* Writes a piece at its offset; pieces come in order, any of them may come again. */
static lmcu_status_t stage(uint8_t *area, uint32_t size, uint32_t *staged, const uint8_t *in, uint32_t count)
{
    if (count < 5) {
        return LMCU_BAD_LENGTH;
    }
    const uint32_t offset = lmcu_get_u32(in);
    const uint32_t bytes = count - 4;
    if (offset > size || bytes > size - offset || (offset != 0 && offset > *staged)) {
        return LMCU_BAD_ARGUMENT;
    }
    memcpy(area + offset, in + 4, bytes);
    *staged = offset + bytes;
    LINK.output_ready = 0;
    return LMCU_OK;
}

lmcu_status_t lmcu_on_sample_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (arena_is_taken()) {
        return LMCU_BUSY;
    }
    return stage(lmcu_model.input, lmcu_model.input_bytes, &LINK.staged, in, count);
}

lmcu_status_t lmcu_on_target_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (lmcu_model.loss != LMCU_LOSS_MSE) {
        return LMCU_UNSUPPORTED;
    }
    return stage((uint8_t *)lmcu_model.target, 4 * lmcu_model.logit_count, &LINK.target_staged, in, count);
}

/* `count` bytes of sample stand at `in`, or 0 where it was staged before. */
static lmcu_status_t take_input(const uint8_t *in, uint32_t count)
{
    if (arena_is_taken()) {
        return LMCU_BUSY;
    }
    if (count == 0) {
        return LINK.staged == lmcu_model.input_bytes ? LMCU_OK : LMCU_NO_SAMPLE;
    }
    if (count != lmcu_model.input_bytes) {
        return LMCU_BAD_LENGTH;
    }
    memcpy(lmcu_model.input, in, count);
    return LMCU_OK;
}

lmcu_status_t lmcu_take_sample(const uint8_t *in, uint32_t count, lmcu_label_t *label)
{
    if (lmcu_model.loss == LMCU_LOSS_MSE) {
        label->target = lmcu_model.target;
        return LINK.target_staged == 4 * lmcu_model.logit_count ? take_input(in, count) : LMCU_NO_SAMPLE;
    }
    if (count < 4) {
        return LMCU_BAD_LENGTH;
    }
    label->class_index = lmcu_get_u32(in);
    return label->class_index < lmcu_class_count() ? take_input(in + 4, count - 4) : LMCU_BAD_LABEL;
}

lmcu_status_t lmcu_on_evaluate_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    memset(&LINK.evaluation, 0, sizeof LINK.evaluation);
    return LMCU_OK;
}

lmcu_status_t lmcu_on_evaluate(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    lmcu_label_t label;
    lmcu_status_t status = lmcu_take_sample(in, count, &label);
    (void)reply;
    if (status != LMCU_OK) {
        return status;
    }
    const uint64_t start = lmcu_port_ticks();
    status = lmcu_evaluate_sample(label, &LINK.evaluation);
    LINK.work_ticks = lmcu_port_ticks() - start;
    lmcu_staging_clear();
    return status;
}

lmcu_status_t lmcu_on_evaluate_end(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_put_stats(reply, &LINK.evaluation);
    return LMCU_OK;
}

lmcu_status_t lmcu_on_infer(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    const lmcu_status_t status = take_input(in, count);
    if (status != LMCU_OK) {
        return status;
    }
    const uint64_t start = lmcu_port_ticks();
    lmcu_infer();
    LINK.work_ticks = lmcu_port_ticks() - start;
    lmcu_staging_clear();
    LINK.output_ready = 1;
    if (lmcu_model.output_bytes <= LMCU_REPLY_BYTES) {
        lmcu_put_bytes(reply, lmcu_model.output, lmcu_model.output_bytes);
    }
    return LMCU_OK;
}

lmcu_status_t lmcu_on_advance(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (lmcu_model.state_bytes == 0) {
        return LMCU_UNSUPPORTED;
    }
    const lmcu_status_t status = take_input(in, count);
    if (status != LMCU_OK) {
        return status;
    }
    const uint64_t start = lmcu_port_ticks();
    lmcu_advance();
    LINK.work_ticks = lmcu_port_ticks() - start;
    lmcu_staging_clear();
    return LMCU_OK;
}

lmcu_status_t lmcu_on_state_reset(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    if (lmcu_model.state_bytes == 0) {
        return LMCU_UNSUPPORTED;
    }
    lmcu_state_reset();
    return LMCU_OK;
}

lmcu_status_t lmcu_on_output_read(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    if (count != 6) {
        return LMCU_BAD_LENGTH;
    }
    if (!LINK.output_ready) {
        return LMCU_NO_OUTPUT;
    }
    const uint32_t offset = lmcu_get_u32(in);
    const uint32_t bytes = lmcu_get_u16(in + 4);
    if (bytes > LMCU_REPLY_BYTES || offset > lmcu_model.output_bytes || bytes > lmcu_model.output_bytes - offset) {
        return LMCU_BAD_ARGUMENT;
    }
    lmcu_put_bytes(reply, lmcu_model.output + offset, bytes);
    return LMCU_OK;
}

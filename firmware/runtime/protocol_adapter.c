/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter: read in pieces, replaced whole or not at all, reset. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "merge.h"
#include "protocol.h"

static uint32_t adapter_bytes(void)
{
    return 2 * lmcu_model.param_count;
}

lmcu_status_t lmcu_on_adapter_read(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    if (count != 6) {
        return LMCU_BAD_LENGTH;
    }
    const uint32_t offset = lmcu_get_u32(in);
    const uint32_t bytes = lmcu_get_u16(in + 4);
    if (bytes > LMCU_REPLY_BYTES || offset > adapter_bytes() || bytes > adapter_bytes() - offset) {
        return LMCU_BAD_ARGUMENT;
    }
    lmcu_put_bytes(reply, (const uint8_t *)lmcu_model.factors + offset, bytes);
    return LMCU_OK;
}

lmcu_status_t lmcu_on_adapter_begin(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (count != 32 + 32 + 4) {
        return LMCU_BAD_LENGTH;
    }
    if (memcmp(in, lmcu_model.model_sha256, 32) != 0) {
        return LMCU_WRONG_MODEL;
    }
    if (memcmp(in + 32, lmcu_model.layout_sha256, 32) != 0 || lmcu_get_u32(in + 64) != adapter_bytes()) {
        return LMCU_WRONG_LAYOUT;
    }
    const lmcu_status_t status = lmcu_adapter_begin();
    if (status == LMCU_OK && lmcu_model.max_batch != 0u) { /* the factors are received where samples and outputs lie */
        lmcu_staging_clear();
        lmcu_link.state.output_ready = 0;
    }
    return status;
}

lmcu_status_t lmcu_on_adapter_data(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    if (count < 5) {
        return LMCU_BAD_LENGTH;
    }
    return lmcu_adapter_data(lmcu_get_u32(in), in + 4, count - 4);
}

lmcu_status_t lmcu_on_adapter_commit(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    return count == 4 ? lmcu_adapter_commit(lmcu_get_u32(in)) : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_adapter_reset(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_reset();
    return LMCU_OK;
}

#if LMCU_SRAM_WEIGHTS
lmcu_status_t lmcu_on_merge(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_notice(1u + (uint32_t)(lmcu_merge_instructions() / (lmcu_port_clock_hz() / 1000u)));
    return lmcu_merge();
}

lmcu_status_t lmcu_on_unmerge(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    return count == 0 ? lmcu_unmerge() : LMCU_BAD_LENGTH;
}
#endif

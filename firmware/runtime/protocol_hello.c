/* SPDX-License-Identifier: Apache-2.0 */
/* What the device says about itself: HELLO, INFO, STATISTICS; and REBOOT, BAUD. */
#include "lmcu_strict.h"

#include "lmcu_port.h"
#include "protocol.h"

#define LINK (lmcu_link.state)

lmcu_status_t lmcu_on_hello(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)count;
    lmcu_put_u32(reply, lmcu_get_u32(in));
    lmcu_put_u32(reply, lmcu_port_boot_id());
    lmcu_put_u8(reply, LMCU_PROTOCOL_VERSION);
    lmcu_put_u8(reply, LMCU_FIRMWARE_MAJOR);
    lmcu_put_u8(reply, LMCU_FIRMWARE_MINOR);
    lmcu_put_u8(reply, LMCU_FIRMWARE_PATCH);
    lmcu_put_u8(reply, lmcu_context.float_ok != 0);
    lmcu_put_u8(reply, LMCU_WINDOW);
    lmcu_put_u16(reply, LMCU_MAX_PAYLOAD);
    lmcu_put_bytes(reply, lmcu_model.model_sha256, 32);
    lmcu_put_bytes(reply, lmcu_model.layout_sha256, 32);
    lmcu_put_u32(reply, lmcu_adapter_crc32());
    lmcu_put_u32(reply, lmcu_context.total_steps);
    lmcu_put_u32(reply, lmcu_model.store_capacity);
    lmcu_put_u32(reply, lmcu_model.info_bytes);
    lmcu_put_u32(reply, lmcu_port_clock_hz());
    lmcu_put_u8(reply, lmcu_port_clock_source());
    lmcu_put_u32(reply, lmcu_port_rx_bytes());
    return LMCU_OK;
}

lmcu_status_t lmcu_on_info(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    if (count != 4) {
        return LMCU_BAD_LENGTH;
    }
    const uint32_t offset = lmcu_get_u32(in);
    if (offset > lmcu_model.info_bytes) {
        return LMCU_BAD_ARGUMENT;
    }
    const uint32_t left = lmcu_model.info_bytes - offset;
    lmcu_put_bytes(reply, lmcu_model.info + offset, left < LMCU_REPLY_BYTES ? left : LMCU_REPLY_BYTES);
    return LMCU_OK;
}

static void put_settings(lmcu_reply_t *reply, const lmcu_settings_t *s)
{
    lmcu_put_f32(reply, s->lr);
    lmcu_put_f32(reply, s->lr_b_ratio);
    lmcu_put_f32(reply, s->momentum);
    lmcu_put_f32(reply, s->weight_decay);
    lmcu_put_f32(reply, s->clip_norm);
    lmcu_put_u32(reply, s->batch_size);
    lmcu_put_u32(reply, s->seed);
    lmcu_put_u32(reply, s->rounding);
}

lmcu_status_t lmcu_on_statistics(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    const lmcu_context_t *c = &lmcu_context;
    (void)in;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    lmcu_put_u32(reply, c->run_epochs_left);
    lmcu_put_u32(reply, c->epoch_index);
    lmcu_put_u32(reply, c->run_position);
    lmcu_put_u32(reply, c->run_steps);
    lmcu_put_u32(reply, c->run_skipped);
    lmcu_put_stats(reply, &c->pass);
    lmcu_put_stats(reply, &c->epoch);
    lmcu_put_u32(reply, c->stored);
    lmcu_put_u32(reply, c->step);
    lmcu_put_u32(reply, c->total_steps);
    lmcu_put_u32(reply, c->batch_fill);
    put_settings(reply, &c->settings);
    lmcu_put_u32(reply, lmcu_port_stack_used());
    lmcu_put_u64(reply, lmcu_port_ticks());
    lmcu_put_u64(reply, LINK.work_ticks);
    lmcu_put_u32(reply, LINK.frames);
    lmcu_put_u32(reply, LINK.bad_frames);
    lmcu_put_u32(reply, LINK.repeats);
    lmcu_put_u32(reply, LINK.naks);
    lmcu_put_u8(reply, lmcu_port_reset_cause());
    if (LMCU_SRAM_WEIGHTS) {
        lmcu_put_u8(reply, lmcu_is_merged());
    }
    return LMCU_OK;
}

lmcu_status_t lmcu_on_reboot(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    if (count != 0) {
        return LMCU_BAD_LENGTH;
    }
    LINK.reboot = 1;
    return LMCU_OK;
}

/* 9600 is the slowest at which a frame comes whole within LMCU_BAUD_WAIT_MS. 2 % is what a receiver of 8N1 bears. */
lmcu_status_t lmcu_on_baud(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    if (count != 4) {
        return LMCU_BAD_LENGTH;
    }
    const uint32_t baud = lmcu_get_u32(in);
    if (baud < 9600 || baud > 20000000) {
        return LMCU_BAD_ARGUMENT;
    }
    const uint32_t near = lmcu_port_baud_near(baud);
    if (near == 0) {
        return LMCU_UNSUPPORTED;
    }
    if ((near > baud ? near - baud : baud - near) > baud / 50) {
        return LMCU_BAD_ARGUMENT;
    }
    LINK.baud_wanted = baud;
    lmcu_put_u32(reply, near);
    return LMCU_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of payloads: little-endian, unaligned. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "protocol.h"

uint32_t lmcu_get_u16(const uint8_t *in)
{
    return in[0] | (uint32_t)in[1] << 8;
}

uint32_t lmcu_get_u32(const uint8_t *in)
{
    return lmcu_get_u16(in) | lmcu_get_u16(in + 2) << 16;
}

float lmcu_get_f32(const uint8_t *in)
{
    const uint32_t bits = lmcu_get_u32(in);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void lmcu_put_bytes(lmcu_reply_t *reply, const void *bytes, uint32_t count)
{
    memcpy(reply->bytes + reply->count, bytes, count);
    reply->count += count;
}

void lmcu_put_u8(lmcu_reply_t *reply, uint32_t value)
{
    reply->bytes[reply->count++] = (uint8_t)value;
}

void lmcu_put_u16(lmcu_reply_t *reply, uint32_t value)
{
    lmcu_put_u8(reply, value);
    lmcu_put_u8(reply, value >> 8);
}

void lmcu_put_u32(lmcu_reply_t *reply, uint32_t value)
{
    lmcu_put_u16(reply, value);
    lmcu_put_u16(reply, value >> 16);
}

void lmcu_put_u64(lmcu_reply_t *reply, uint64_t value)
{
    lmcu_put_u32(reply, (uint32_t)value);
    lmcu_put_u32(reply, (uint32_t)(value >> 32));
}

void lmcu_put_f32(lmcu_reply_t *reply, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    lmcu_put_u32(reply, bits);
}

void lmcu_put_stats(lmcu_reply_t *reply, const lmcu_stats_t *stats)
{
    lmcu_put_f32(reply, stats->loss_sum);
    lmcu_put_u32(reply, stats->samples);
    lmcu_put_u32(reply, stats->correct);
    lmcu_put_u32(reply, stats->steps);
    lmcu_put_u32(reply, stats->skipped);
}

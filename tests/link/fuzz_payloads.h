/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads that a message may have. */
#ifndef FUZZ_PAYLOADS_H
#define FUZZ_PAYLOADS_H

#include "fuzz_checks.h"
#include "fuzz_random.h"

/* Fields that mean something, so that more than the length checks are reached. */
static uint32_t sensible(uint32_t type, uint8_t *p)
{
    static const float lr = 0.01f;
    const uint32_t bytes = 2 * lmcu_model.param_count;
    const uint32_t label = lmcu_model.loss == LMCU_LOSS_MSE ? 0 : 4;
    memset(p, 0, 256);
    switch (type) {
    case LMCU_MSG_HELLO:
        put_u32(p, below(3));
        return 4;
    case LMCU_MSG_CONFIGURE:
        memcpy(p, &lr, 4);
        memcpy(p + 4, &lr, 4);
        put_u32(p + 20, 1 + below(4));
        return 32;
    case LMCU_MSG_SAMPLE_DATA:
    case LMCU_MSG_TARGET_DATA:
        put_u32(p, below(3) ? 0 : below(6));
        return 4 + (type == LMCU_MSG_TARGET_DATA ? 4 * lmcu_model.logit_count : 1 + below(2 * lmcu_model.input_bytes));
    case LMCU_MSG_TRAIN:
    case LMCU_MSG_EVALUATE:
    case LMCU_MSG_STORE:
        put_u32(p, below(lmcu_model.logit_count + 1));
        return label + (below(3) ? lmcu_model.input_bytes : 0);
    case LMCU_MSG_INFER:
        return below(3) ? lmcu_model.input_bytes : 0;
    case LMCU_MSG_BAUD:
        put_u32(p, below(2) ? 115200 : below(4000000));
        return 4;
    case LMCU_MSG_INFO:
        put_u32(p, below(700));
        return 4;
    case LMCU_MSG_STORE_POLICY:
        put_u32(p, below(4));
        put_u32(p + 4, below(2));
        put_u32(p + 8, below(4));
        return below(4) ? 12 : 0;
    case LMCU_MSG_RUN_EPOCHS:
        put_u32(p, below(3));
        return 4;
    case LMCU_MSG_OUTPUT_READ:
    case LMCU_MSG_ADAPTER_READ:
        put_u32(p, below(8));
        p[4] = (uint8_t)below(32);
        return 6;
    case LMCU_MSG_ADAPTER_BEGIN:
        memcpy(p, lmcu_model.model_sha256, 32);
        memcpy(p + 32, lmcu_model.layout_sha256, 32);
        put_u32(p + 64, bytes - (below(4) == 0));
        return 68;
    case LMCU_MSG_ADAPTER_DATA:
        memset(p + 4, 0, bytes);
        return 4 + bytes;
    case LMCU_MSG_ADAPTER_COMMIT:
        memset(p, 0, bytes);
        put_u32(p, lmcu_crc32(0, p, bytes) ^ (below(4) == 0));
        return 4;
    case LMCU_MSG_SLOT_LIST:
        put_u32(p, below(3));
        return 4;
    case LMCU_MSG_SLOT_SAVE:
    case LMCU_MSG_SLOT_LOAD:
    case LMCU_MSG_SLOT_DELETE:
    case LMCU_MSG_SLOT_DEFAULT:
        p[0] = (uint8_t)('a' + below(3));
        return 16;
    default: /* also STORE_SAVE */
        return 0;
    }
}

#endif

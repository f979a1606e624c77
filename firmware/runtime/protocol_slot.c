/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in flash: slots of the adapter store, by name, and the samples. */
#include "lmcu_strict.h"

#include "protocol.h"
#include "store.h"

enum { SLOT_BYTES = LMCU_SLOT_NAME + 4 + 1 };

lmcu_status_t lmcu_on_slot_save(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    return count == LMCU_SLOT_NAME ? lmcu_slot_save((const char *)in) : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_slot_load(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    return count == LMCU_SLOT_NAME ? lmcu_slot_load((const char *)in) : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_slot_delete(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    return count == LMCU_SLOT_NAME ? lmcu_slot_delete((const char *)in) : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_slot_default(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)reply;
    return count == LMCU_SLOT_NAME ? lmcu_slot_set_default((const char *)in) : LMCU_BAD_LENGTH;
}

lmcu_status_t lmcu_on_slot_list(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    char name[LMCU_SLOT_NAME];
    lmcu_slot_t slot;
    if (count != 4) {
        return LMCU_BAD_LENGTH;
    }
    if (lmcu_slot_capacity() == 0) {
        return LMCU_UNSUPPORTED;
    }
    lmcu_slot_default(name);
    lmcu_put_bytes(reply, name, sizeof name);
    lmcu_put_u32(reply, lmcu_slot_capacity());
    for (uint32_t i = lmcu_get_u32(in); reply->count + SLOT_BYTES <= LMCU_REPLY_BYTES && lmcu_slot_at(i, &slot); ++i) {
        lmcu_put_bytes(reply, slot.name, sizeof slot.name);
        lmcu_put_u32(reply, slot.crc32);
        lmcu_put_u8(reply, (slot.right_model ? 1u : 0u) | (slot.right_layout ? 2u : 0u));
    }
    return LMCU_OK;
}

lmcu_status_t lmcu_on_store_save(const uint8_t *in, uint32_t count, lmcu_reply_t *reply)
{
    (void)in;
    (void)reply;
    return count == 0 ? lmcu_store_save() : LMCU_BAD_LENGTH;
}

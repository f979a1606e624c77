/* SPDX-License-Identifier: Apache-2.0 */
/* Builds with a key: what a stranger sends, and what a host with the key does. */
#ifndef FUZZ_STRANGER_H
#define FUZZ_STRANGER_H

#include "fuzz_checks.h"

/* The same for bytes of a stranger: none of them may change anything, whatever they are. */
static void feed_from_stranger(const uint8_t *bytes, uint32_t count, uint32_t turns)
{
    const bool runs = lmcu_run_in_progress(); /* changes everything by itself */
    feed_and_check(bytes, count, turns);
    for (uint32_t type = 0; type < 128; ++type) {
        require(type == LMCU_MSG_HELLO || !before.ok[type], "a stranger was served");
    }
    require(runs || all_crc() == before.all, "a stranger has changed something");
}

/* Appends the tag that a host with the key sends; AUTH's is that of the session on offer. Returns the new length. */
static uint32_t add_tag(uint32_t type, uint32_t sequence, uint8_t *payload, uint32_t count)
{
    const lmcu_auth_t *auth = &lmcu_auth;
    const bool proof = type == LMCU_MSG_AUTH;
    const uint64_t counter = proof ? 0 : (uint64_t)auth->laps << 16 | sequence;
    const uint8_t *key = proof && auth->is_offered ? auth->offered.key : auth->session.key;
    uint8_t head[9] = {0}, digest[LMCU_SHA256_BYTES];
    lmcu_hmac_t hmac;
    if (type == LMCU_MSG_HELLO || count > LMCU_MAX_PAYLOAD - LMCU_TAG_BYTES) {
        return count;
    }
    for (uint32_t i = 0; i < 8; ++i) {
        head[i] = (uint8_t)(counter >> (8 * i));
    }
    head[8] = (uint8_t)type;
    count = proof ? 0 : count;
    lmcu_hmac_begin(&hmac, key, LMCU_SHA256_BYTES);
    lmcu_hmac_add(&hmac, head, sizeof head);
    lmcu_hmac_add(&hmac, payload, count);
    lmcu_hmac_end(&hmac, digest);
    memcpy(payload + count, digest, LMCU_TAG_BYTES);
    return count + LMCU_TAG_BYTES;
}

#endif

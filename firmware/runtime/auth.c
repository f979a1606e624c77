/* SPDX-License-Identifier: Apache-2.0 */
/* Challenge, session key and tags: HMAC-SHA-256 of the device's key. Nothing here tells a stranger more than right or wrong. */
#include "lmcu_strict.h"

#include "auth.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "protocol.h"

enum { CHALLENGE = 'C', SESSION = 'S' }; /* first byte of what the device's key signs */

lmcu_auth_t lmcu_auth LMCU_ALIGNED(8);
typedef char lmcu_auth_size_check[sizeof(lmcu_auth_t) == LMCU_AUTH_BYTES ? 1 : -1];

void lmcu_auth_init(void)
{
    memset(&lmcu_auth, 0, sizeof lmcu_auth);
}

static void add_u32(lmcu_hmac_t *hmac, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    lmcu_hmac_add(hmac, bytes, sizeof bytes);
}

static void begin(lmcu_hmac_t *hmac, uint8_t purpose)
{
    lmcu_hmac_begin(hmac, lmcu_key, sizeof lmcu_key);
    lmcu_hmac_add(hmac, &purpose, 1);
}

/* Never the same within a boot, because of the count; from boot to boot as different as the boot id and the moment. */
static void make_offer(lmcu_offer_t *offer, uint32_t nonce)
{
    lmcu_hmac_t hmac;
    const uint64_t ticks = lmcu_port_ticks();
    begin(&hmac, CHALLENGE);
    add_u32(&hmac, lmcu_port_boot_id());
    add_u32(&hmac, ++lmcu_auth.offers);
    add_u32(&hmac, (uint32_t)ticks);
    add_u32(&hmac, (uint32_t)(ticks >> 32));
    add_u32(&hmac, nonce);
    lmcu_hmac_end(&hmac, offer->key);
    memcpy(offer->challenge, offer->key, sizeof offer->challenge);
    begin(&hmac, SESSION);
    lmcu_hmac_add(&hmac, offer->challenge, sizeof offer->challenge);
    add_u32(&hmac, nonce);
    lmcu_hmac_end(&hmac, offer->key);
    offer->nonce = nonce;
    lmcu_auth.is_offered = 1;
}

const uint8_t *lmcu_auth_offer(uint32_t nonce, bool is_session)
{
    lmcu_offer_t *offered = &lmcu_auth.offered;
    if (is_session) {
        return lmcu_auth.session.challenge;
    }
    if (!lmcu_auth.is_offered || offered->nonce != nonce) {
        make_offer(offered, nonce);
    }
    return offered->challenge;
}

/* HMAC(session key, counter u64 | type u8 | payload), cut to its first bytes. */
static void make_tag(const uint8_t *key, uint64_t counter, uint32_t type, const uint8_t *payload, uint32_t count,
                     uint8_t tag[LMCU_TAG_BYTES])
{
    lmcu_hmac_t hmac;
    uint8_t digest[LMCU_SHA256_BYTES];
    const uint8_t type_byte = (uint8_t)type;
    lmcu_hmac_begin(&hmac, key, LMCU_SHA256_BYTES);
    add_u32(&hmac, (uint32_t)counter);
    add_u32(&hmac, (uint32_t)(counter >> 32));
    lmcu_hmac_add(&hmac, &type_byte, 1);
    lmcu_hmac_add(&hmac, payload, count);
    lmcu_hmac_end(&hmac, digest);
    memcpy(tag, digest, LMCU_TAG_BYTES);
}

/* The time that it takes depends on the lengths alone. */
static bool ends_in_tag(const uint8_t *key, uint64_t counter, uint32_t type, const uint8_t *in, uint32_t count)
{
    uint8_t tag[LMCU_TAG_BYTES], difference = 0;
    if (count < LMCU_TAG_BYTES) {
        return false;
    }
    make_tag(key, counter, type, in, count - LMCU_TAG_BYTES, tag);
    for (uint32_t i = 0; i < LMCU_TAG_BYTES; ++i) {
        difference |= (uint8_t)(tag[i] ^ in[count - LMCU_TAG_BYTES + i]);
    }
    return difference == 0;
}

lmcu_proof_t lmcu_auth_prove(const uint8_t *in, uint32_t count, bool in_session)
{
    lmcu_auth_t *a = &lmcu_auth;
    if (count != LMCU_TAG_BYTES) {
        return LMCU_PROOF_WRONG;
    }
    if (a->is_offered && ends_in_tag(a->offered.key, 0, LMCU_MSG_AUTH, in, count)) {
        a->session = a->offered;
        a->is_offered = 0;
        a->laps = 0;
        return LMCU_PROOF_OPENS;
    }
    const bool again = in_session && ends_in_tag(a->session.key, 0, LMCU_MSG_AUTH, in, count);
    return again ? LMCU_PROOF_AGAIN : LMCU_PROOF_WRONG;
}

void lmcu_auth_answer(uint8_t tag[LMCU_TAG_BYTES])
{
    make_tag(lmcu_auth.session.key, 0, LMCU_MSG_AUTH | LMCU_RESPONSE, NULL, 0, tag);
}

bool lmcu_auth_fits(uint32_t expected, int32_t distance, uint32_t type, const uint8_t *in, uint32_t count)
{
    const uint64_t counter = ((uint64_t)lmcu_auth.laps << 16) + expected + (uint64_t)(int64_t)distance;
    return ends_in_tag(lmcu_auth.session.key, counter, type, in, count);
}

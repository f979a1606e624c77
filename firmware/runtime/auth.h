/* SPDX-License-Identifier: Apache-2.0 */
/* Builds with a key (LMCU_KEYED): HELLO offers a challenge, AUTH opens the session, and every request after it carries a
 * tag. docs/protocol.md describes it, docs/security.md what it is worth. */
#ifndef LMCU_AUTH_H
#define LMCU_AUTH_H

#include "sha256.h"

enum { LMCU_CHALLENGE_BYTES = 16, LMCU_TAG_BYTES = 8, LMCU_AUTH_HMAC = 1 };

/* key.c, made by `lora-mcu compile --key`. */
extern const uint8_t lmcu_key[LMCU_SHA256_BYTES];

typedef struct {
    uint32_t nonce; /* the host's, of its HELLO */
    uint8_t challenge[LMCU_CHALLENGE_BYTES];
    uint8_t key[LMCU_SHA256_BYTES]; /* of the session */
} lmcu_offer_t;

typedef struct {
    lmcu_offer_t session; /* in use */
    lmcu_offer_t offered; /* by the last HELLO; becomes the session when an AUTH proves it */
    uint32_t is_offered;  /* 0: what stands in `offered` is no offer */
    uint32_t offers;      /* made since boot */
    uint32_t laps;        /* of the session's 16-bit sequence */
    uint32_t pad_;
} lmcu_auth_t;

extern lmcu_auth_t lmcu_auth;

void lmcu_auth_init(void);

/* The challenge that answers a HELLO: a new one, or the same one for the same nonce. */
const uint8_t *lmcu_auth_offer(uint32_t nonce, bool is_session);

/* AUTH's payload is a tag alone. Makes the offered session the one in use where it fits; the same AUTH may come again. */
typedef enum { LMCU_PROOF_WRONG, LMCU_PROOF_OPENS, LMCU_PROOF_AGAIN } lmcu_proof_t;
lmcu_proof_t lmcu_auth_prove(const uint8_t *in, uint32_t count, bool in_session);

/* The device's own proof, for AUTH's answer. */
void lmcu_auth_answer(uint8_t tag[LMCU_TAG_BYTES]);

/* Whether the last LMCU_TAG_BYTES of the payload are the tag of this request at `expected` + `distance`. */
bool lmcu_auth_fits(uint32_t expected, int32_t distance, uint32_t type, const uint8_t *in, uint32_t count);

#endif

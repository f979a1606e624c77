/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), for builds with a key. Messages of up to 512 MB. */
#ifndef LMCU_SHA256_H
#define LMCU_SHA256_H

#include "lmcu.h"

enum { LMCU_SHA256_BYTES = 32, LMCU_SHA256_BLOCK = 64 };

typedef struct {
    uint32_t state[8];
    uint32_t count; /* bytes so far */
    uint8_t block[LMCU_SHA256_BLOCK];
} lmcu_sha256_t;

void lmcu_sha256_begin(lmcu_sha256_t *hash);
void lmcu_sha256_add(lmcu_sha256_t *hash, const void *bytes, uint32_t count);
void lmcu_sha256_end(lmcu_sha256_t *hash, uint8_t digest[LMCU_SHA256_BYTES]);

typedef struct {
    lmcu_sha256_t hash;
    uint8_t key[LMCU_SHA256_BLOCK]; /* padded with zeros */
} lmcu_hmac_t;

void lmcu_hmac_begin(lmcu_hmac_t *hmac, const uint8_t *key, uint32_t count);
void lmcu_hmac_add(lmcu_hmac_t *hmac, const void *bytes, uint32_t count);
void lmcu_hmac_end(lmcu_hmac_t *hmac, uint8_t digest[LMCU_SHA256_BYTES]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4, section 6.2) and HMAC (RFC 2104). */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "sha256.h"

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t constants[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

static uint32_t rotate(uint32_t x, uint32_t n)
{
    return x >> n | x << (32u - n);
}

/* The message schedule of the next 16 rounds, in place of the last one's. */
static void extend(uint32_t w[16])
{
    for (uint32_t i = 0; i < 16; ++i) {
        const uint32_t x = w[(i + 1) & 15u], y = w[(i + 14) & 15u];
        w[i] += (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + w[(i + 9) & 15u] + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
}

static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[16];
    for (uint32_t i = 0; i < 16; ++i) {
        const uint8_t *in = block + 4 * i;
        w[i] = (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (uint32_t i = 0; i < 64; ++i) {
        if (i != 0 && i % 16 == 0) {
            extend(w);
        }
        const uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i & 15u];
        const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    const uint32_t more[8] = {a, b, c, d, e, f, g, h};
    for (uint32_t i = 0; i < 8; ++i) {
        state[i] += more[i];
    }
}

void lmcu_sha256_begin(lmcu_sha256_t *hash)
{
    /* The same of the square roots of the first 8 primes. */
    static const uint32_t initial[8] = {
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    };
    memcpy(hash->state, initial, sizeof hash->state);
    hash->count = 0;
}

void lmcu_sha256_add(lmcu_sha256_t *hash, const void *bytes, uint32_t count)
{
    const uint8_t *in = bytes;
    while (count != 0) {
        const uint32_t used = hash->count % LMCU_SHA256_BLOCK, room = LMCU_SHA256_BLOCK - used;
        const uint32_t piece = count < room ? count : room;
        memcpy(hash->block + used, in, piece);
        hash->count += piece;
        in += piece;
        count -= piece;
        if (piece == room) {
            compress(hash->state, hash->block);
        }
    }
}

static void put_big_endian(uint8_t *to, uint32_t value)
{
    for (uint32_t i = 0; i < 4; ++i) {
        to[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

void lmcu_sha256_end(lmcu_sha256_t *hash, uint8_t digest[LMCU_SHA256_BYTES])
{
    static const uint8_t padding[LMCU_SHA256_BLOCK] = {0x80};
    uint8_t bits[8];
    put_big_endian(bits, hash->count >> 29);
    put_big_endian(bits + 4, hash->count << 3);
    lmcu_sha256_add(hash, padding, 1 + (119u - hash->count % LMCU_SHA256_BLOCK) % LMCU_SHA256_BLOCK);
    lmcu_sha256_add(hash, bits, sizeof bits);
    for (uint32_t i = 0; i < 8; ++i) {
        put_big_endian(digest + 4 * i, hash->state[i]);
    }
}

/* Opens a hash with the key's block, every byte of it changed by `mask`. */
static void begin_with_key(lmcu_hmac_t *hmac, uint8_t mask)
{
    uint8_t block[LMCU_SHA256_BLOCK];
    for (uint32_t i = 0; i < sizeof block; ++i) {
        block[i] = hmac->key[i] ^ mask;
    }
    lmcu_sha256_begin(&hmac->hash);
    lmcu_sha256_add(&hmac->hash, block, sizeof block);
}

void lmcu_hmac_begin(lmcu_hmac_t *hmac, const uint8_t *key, uint32_t count)
{
    memset(hmac->key, 0, sizeof hmac->key);
    if (count <= LMCU_SHA256_BLOCK) {
        memcpy(hmac->key, key, count);
    } else {
        lmcu_sha256_begin(&hmac->hash);
        lmcu_sha256_add(&hmac->hash, key, count);
        lmcu_sha256_end(&hmac->hash, hmac->key);
    }
    begin_with_key(hmac, 0x36);
}

void lmcu_hmac_add(lmcu_hmac_t *hmac, const void *bytes, uint32_t count)
{
    lmcu_sha256_add(&hmac->hash, bytes, count);
}

void lmcu_hmac_end(lmcu_hmac_t *hmac, uint8_t digest[LMCU_SHA256_BYTES])
{
    uint8_t inner[LMCU_SHA256_BYTES];
    lmcu_sha256_end(&hmac->hash, inner);
    begin_with_key(hmac, 0x5c);
    lmcu_sha256_add(&hmac->hash, inner, sizeof inner);
    lmcu_sha256_end(&hmac->hash, digest);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random bits: a value depends on (seed, stream, step, index) only, never on the order of calls. */
#ifndef LMCU_RANDOM_H
#define LMCU_RANDOM_H

#include "lmcu_strict.h"

#include <stdint.h>

enum { LMCU_STREAM_INIT = 0, LMCU_STREAM_UPDATE = 1, LMCU_STREAM_GRADIENT = 2, LMCU_STREAM_SHUFFLE = 3,
       LMCU_STREAM_STORE = 4 };

/* The constants of the formulas below. */
#define LMCU_MIX_1 0x7feb352du
#define LMCU_MIX_2 0x846ca68bu
#define LMCU_RAND_STEP 0x9E3779B9u

LMCU_INLINE uint32_t lmcu_mix_by(uint32_t x, uint32_t first, uint32_t second)
{
    x ^= x >> 16;
    x *= first;
    x ^= x >> 15;
    x *= second;
    x ^= x >> 16;
    return x;
}

LMCU_INLINE uint32_t lmcu_mix(uint32_t x)
{
    return lmcu_mix_by(x, LMCU_MIX_1, LMCU_MIX_2);
}

/* The part of rand that does not depend on the index. */
LMCU_INLINE uint32_t lmcu_rand_key(uint32_t seed, uint32_t stream, uint32_t step)
{
    return lmcu_mix(step ^ lmcu_mix(seed ^ stream * 0x85EBCA6Bu));
}

LMCU_INLINE uint32_t lmcu_rand_at(uint32_t key, uint32_t index)
{
    return lmcu_mix(index * LMCU_RAND_STEP + key);
}

/* The values of neighbouring indices, one after another; with its constants, which GCC otherwise makes anew for each. */
typedef struct {
    uint32_t next, step, first, second;
} lmcu_random_t;

LMCU_INLINE lmcu_random_t lmcu_rand_from(uint32_t key, uint32_t index)
{
    lmcu_random_t r = {index * LMCU_RAND_STEP + key, LMCU_RAND_STEP, LMCU_MIX_1, LMCU_MIX_2};
#if defined(__GNUC__)
    __asm__("" : "+r"(r.step), "+r"(r.first), "+r"(r.second));
#endif
    return r;
}

LMCU_INLINE uint32_t lmcu_rand_next(lmcu_random_t *r)
{
    const uint32_t x = r->next;
    r->next += r->step;
    return lmcu_mix_by(x, r->first, r->second);
}

#endif

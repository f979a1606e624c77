/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random bits: a value depends on (seed, stream, step, index) only, never on the order of calls. */
#ifndef LMCU_RANDOM_H
#define LMCU_RANDOM_H

#include "lmcu_strict.h"

#include <stdint.h>

enum { LMCU_STREAM_INIT = 0, LMCU_STREAM_UPDATE = 1, LMCU_STREAM_GRADIENT = 2, LMCU_STREAM_SHUFFLE = 3,
       LMCU_STREAM_STORE = 4 };

LMCU_INLINE uint32_t lmcu_mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

/* The part of rand that does not depend on the index. */
LMCU_INLINE uint32_t lmcu_rand_key(uint32_t seed, uint32_t stream, uint32_t step)
{
    return lmcu_mix(step ^ lmcu_mix(seed ^ stream * 0x85EBCA6Bu));
}

LMCU_INLINE uint32_t lmcu_rand_at(uint32_t key, uint32_t index)
{
    return lmcu_mix(index * 0x9E3779B9u + key);
}

#endif

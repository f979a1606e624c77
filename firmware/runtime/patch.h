/* SPDX-License-Identifier: Apache-2.0 */
/* Patches: K values x - z_x as int16 in groups of four, zeros up to a whole group. A group starts `step` values after the
 * one before: 4 for one patch, 8 where the groups of two positions alternate. With DSP instructions the values of a group
 * stand in the order 0, 2, 1, 3, as SXTB16 yields them, so that SMLAD finds its pairs. */
#ifndef LMCU_PATCH_H
#define LMCU_PATCH_H

#include "lmcu_strict.h"

#include <stdint.h>

/* LMCU_PORTABLE: the portable bodies, which are the definition, on a core that has the instructions (tests). With MVE, GCC
 * keeps LR for its own loops, and the inner loops here need every register. */
/* Clang keeps a register for the frame pointer, and the loops need all there are. */
#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_FEATURE_MVE) && !defined(LMCU_PORTABLE) && !defined(__clang__)
#define LMCU_DSP 1
#else
#define LMCU_DSP 0
#endif

enum { LMCU_GROUP = 4, LMCU_PAIR = 8 };

#if LMCU_DSP
/* where value i of a group stands in it */
#define LMCU_PLACE(i) (((i) & 1) << 1 | ((i) >> 1 & 1))

LMCU_INLINE uint32_t lmcu_load_word(const void *from)
{
    uint32_t word;
    __builtin_memcpy(&word, from, 4);
    return word;
}

/* the signed bytes 0 and 2, or 1 and 3, of a word as a pair of int16 */
LMCU_INLINE uint32_t lmcu_even(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

LMCU_INLINE uint32_t lmcu_odd(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

#else
#define LMCU_PLACE(i) (i)
#endif

LMCU_INLINE int32_t lmcu_patch_length(int32_t k)
{
    return (k + LMCU_GROUP - 1) & ~(LMCU_GROUP - 1);
}

/* The groups from x on, values x - zero_point; returns the end of what was written. */
int16_t *lmcu_patch_values(int16_t *patch, int32_t step, const int8_t *x, int32_t zero_point, int32_t count);
/* `count` zeros, a multiple of 4 */
int16_t *lmcu_patch_zeros(int16_t *patch, int32_t step, int32_t count);

#endif

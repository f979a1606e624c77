/* SPDX-License-Identifier: Apache-2.0 */
/* Float32 and binary16 arithmetic that gives the same bytes on every core: no libm. */
#ifndef LMCU_MATH_H
#define LMCU_MATH_H

#include "lmcu_strict.h"

#include <stdbool.h>
#include <stdint.h>

LMCU_INLINE uint32_t lmcu_float_bits(float value)
{
    union { float f; uint32_t u; } pun;
    pun.f = value;
    return pun.u;
}

LMCU_INLINE float lmcu_float_from_bits(uint32_t bits)
{
    union { float f; uint32_t u; } pun;
    pun.u = bits;
    return pun.f;
}

LMCU_INLINE float lmcu_abs(float value)
{
#if defined(__GNUC__)
    return __builtin_fabsf(value); /* one instruction, or the mask below */
#else
    return lmcu_float_from_bits(lmcu_float_bits(value) & 0x7fffffffu);
#endif
}

LMCU_INLINE bool lmcu_is_finite(float value)
{
    return (lmcu_float_bits(value) & 0x7f800000u) != 0x7f800000u;
}

/* The nearest integer, halves away from zero, of abs(value) < 2^31: the float below 1/2 is added with the value's sign, and the
 * fraction cut off. Of n + 1/2 that sum is a tie, which goes to n + 1; of no smaller value does it reach n + 1. (Compared
 * with the definition for every float below 2^30.) */
LMCU_INLINE int32_t lmcu_nearest(float value)
{
    return (int32_t)(value + lmcu_float_from_bits((lmcu_float_bits(value) & 0x80000000u) | 0x3effffffu));
}

/* A core without an FPU: integers are quick, a float product or sum is a call of some eighty instructions. */
#if (defined(__riscv) && !defined(__riscv_flen)) || (defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && !defined(__ARM_FP))
#define LMCU_SOFT_FLOAT 1
#else
#define LMCU_SOFT_FLOAT 0
#endif

LMCU_INLINE bool lmcu_half_is_finite(uint16_t half)
{
    return (half & 0x7c00u) != 0x7c00u;
}

/* binary16 -> float32, exact for every value (infinities and NaN included). */
LMCU_INLINE float lmcu_half_to_float_portable(uint16_t half)
{
    const uint32_t magnitude = half & 0x7fffu;
#if LMCU_SOFT_FLOAT
    if (magnitude < 0x0400u && magnitude != 0u) { /* the same by hand: shifted until its first bit stands in front */
        uint32_t fraction = magnitude << 13, exponent = 113u;
        for (; (fraction & 0x800000u) == 0u; fraction <<= 1) {
            --exponent;
        }
        return lmcu_float_from_bits((fraction & 0x7fffffu) | exponent << 23 | (uint32_t)(half & 0x8000u) << 16);
    }
#endif
    const uint32_t rebias = magnitude >= 0x7c00u ? 224u << 23 : 112u << 23;
    /* Of a subnormal, the integer itself times 2^-24 is exact. */
    const uint32_t bits = magnitude < 0x0400u ? lmcu_float_bits((float)(int32_t)magnitude * 0x1p-24f)
                                              : (magnitude << 13) + rebias;
    return lmcu_float_from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

/* Every M-profile FPU converts binary16, whether or not the compiler was told of the type. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && defined(__ARM_FP) && (__ARM_FP & 4) && !defined(LMCU_PORTABLE)
#define LMCU_HALF_HARDWARE 1
#else
#define LMCU_HALF_HARDWARE 0
#endif

LMCU_INLINE float lmcu_half_to_float(uint16_t half)
{
#if LMCU_HALF_HARDWARE
    float value;
    __asm__("vmov %0, %1\n\tvcvtb.f32.f16 %0, %0" : "=t"(value) : "r"(half));
    return value;
#else
    return lmcu_half_to_float_portable(half);
#endif
}

/* Two neighbours, at any address that binary16 may have. */
LMCU_INLINE void lmcu_halves_to_floats(const uint16_t *half, float *first, float *second)
{
#if LMCU_HALF_HARDWARE
    uint32_t word;
    __builtin_memcpy(&word, half, 4);
    __asm__("vmov %0, %2\n\tvcvtt.f32.f16 %1, %0\n\tvcvtb.f32.f16 %0, %0" : "=&t"(*first), "=&t"(*second) : "r"(word));
#else
    *first = lmcu_half_to_float_portable(half[0]);
    *second = lmcu_half_to_float_portable(half[1]);
#endif
}

/* float32 -> binary16. Both saturate at 65504; value must not be NaN. The sign of a result that becomes zero is kept. */
uint16_t lmcu_half_nearest(float value);                      /* ties to even */
uint16_t lmcu_half_stochastic(float value, uint32_t random16); /* up with probability = discarded fraction; random16 < 65536 */

/* The same as lmcu_half_stochastic. Of a normal result 13 bits are cut off, and random bits below them cannot carry. A
 * subnormal's units are 2^-24, so that value * 2^40 is the result and 16 bits of its fraction. */
LMCU_INLINE uint32_t lmcu_half_stochastic_quick(float value, uint32_t random16)
{
    const uint32_t bits = lmcu_float_bits(value);
    if ((bits << 1) - (0x38800000u << 1) < (0x477fe000u - 0x38800000u) << 1) {
        const uint32_t half = ((bits + (random16 >> 3)) >> 13) - (112u << 10);
        return (half + (bits >> 31 << 15)) & 0xffffu;
    }
    if (bits << 1 < 0x38800000u << 1) {
#if LMCU_SOFT_FLOAT
        const uint32_t fraction = (bits & 0x7fffffu) | 0x800000u; /* of a subnormal nothing is left in any case */
        const int32_t down = 110 - (int32_t)(bits >> 23 & 255u);
        const uint32_t units = down > 31 ? 0u : down >= 0 ? fraction >> down : fraction << -down;
#else
        const uint32_t units = (uint32_t)(int32_t)(lmcu_abs(value) * 0x1p40f);
#endif
        return ((units + random16) >> 16) + (bits >> 16 & 0x8000u);
    }
    return lmcu_half_stochastic(value, random16);
}

/* The bits of the largest magnitude; those of its lower half may be 0. Infinities and NaN are larger than numbers. */
uint32_t lmcu_largest(const float *values, int32_t count);

float lmcu_exp(float x);  /* +0 where the result would be below 2^-126; +infinity above the range */
float lmcu_log(float x);  /* x > 0, finite */
float lmcu_sqrt(float x); /* correctly rounded; x >= 0, finite */

#endif

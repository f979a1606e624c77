/* SPDX-License-Identifier: Apache-2.0 */
/* From the int32 accumulator to int8, in integers. Right shifts of negative numbers are arithmetic (GCC, Clang, IAR). */
#ifndef LMCU_REQUANT_H
#define LMCU_REQUANT_H

#include "lmcu_strict.h"

#include "lmcu_ops.h"

LMCU_INLINE int32_t lmcu_clamp_i32(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* The arguments below may be int32 (most are): then this costs nothing. */
LMCU_INLINE int32_t lmcu_saturate(int64_t value)
{
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

/* round(a * b / 2^31), ties towards plus infinity: equal to gemmlowp's SaturatingRoundingDoublingHighMul for b >= 0. */
LMCU_INLINE int32_t lmcu_high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* x / 2^exponent, ties away from zero; 0 <= exponent <= 31 */
LMCU_INLINE int32_t lmcu_divide_by_power(int32_t x, int32_t exponent)
{
    const uint32_t mask = (1u << exponent) - 1u;
    const uint32_t rest = (uint32_t)x & mask;
    const uint32_t threshold = (mask >> 1) + (x < 0 ? 1u : 0u);
    return (x >> exponent) + (rest > threshold ? 1 : 0);
}

/* x * multiplier / 2^31 * 2^shift with both of gemmlowp's roundings; x * 2^shift fits where shift > 0 */
LMCU_INLINE int32_t lmcu_multiply(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    return lmcu_divide_by_power(lmcu_high_mul(x * (int32_t)(1u << left), multiplier), right);
}

/* Double rounding: where it must be shifted left, acc is limited first; the output is saturated there. */
LMCU_INLINE int32_t lmcu_requant(int64_t acc, int32_t multiplier, int32_t shift)
{
    const int32_t x = lmcu_saturate(acc);
    if (shift <= 0) {
        return lmcu_divide_by_power(lmcu_high_mul(x, multiplier), -shift);
    }
    const int32_t limit = INT32_MAX >> shift;
    return lmcu_multiply(lmcu_clamp_i32(x, -limit, limit), multiplier, shift);
}

/* RQ of output o of a convolution */
LMCU_INLINE int32_t lmcu_requant_output(const lmcu_requant_t *requant, int32_t o, int32_t acc)
{
    return lmcu_requant(acc, (int32_t)((uint32_t)requant->fraction[o] >> 1), -1 - requant->right[o]);
}

LMCU_INLINE int lmcu_clamps_to_int8(const lmcu_clamp_t *clamp)
{
    return clamp->act_min == -128 && clamp->act_max == 127;
}

/* Whether lmcu_plain_output serves a whole convolution: it shifts every output to the right and clamps to int8 only. */
LMCU_INLINE int lmcu_is_plain(const lmcu_conv2d_t *p)
{
    int plain = lmcu_clamps_to_int8(&p->clamp);
    for (int32_t o = 0; o < p->out_c; ++o) {
        plain = plain && p->requant.fraction[o] < 0 && p->requant.right[o] > 0;
    }
    return plain;
}

/* x >> 1, limited to int8 */
LMCU_INLINE int8_t lmcu_halve_to_int8(int32_t x)
{
#if defined(__ARM_FEATURE_SAT) && !defined(LMCU_PORTABLE)
    __asm__("ssat %0, #8, %0, asr #1" : "+r"(x));
#else
    x = lmcu_clamp_i32(x >> 1, -128, 127);
#endif
    return (int8_t)x;
}

/* The int8 output for fraction < 0 and right > 0, where nothing can overflow and no side needs a test; `offset` is
 * 2 * zero_point + 1. Half of the rounding and the zero point are added one bit below the result's last. */
LMCU_INLINE int8_t lmcu_plain_output(int32_t acc, int32_t fraction, int32_t right, int32_t offset)
{
#if defined(__ARM_FEATURE_SIMD32) && !defined(LMCU_PORTABLE)
    int32_t x;
    __asm__("smmlar %0, %1, %2, %1" : "=r"(x) : "r"(acc), "r"(fraction));
#else
    int32_t x = lmcu_high_mul(acc, (int32_t)((uint32_t)fraction >> 1));
#endif
    x += x >> 31; /* ties away from zero */
    return lmcu_halve_to_int8((x >> right) + offset);
}

/* The quick form of lmcu_round_t; `offset` is 2 * zero_point + 1. */
LMCU_INLINE int8_t lmcu_quick_output(int32_t acc, uint64_t pair, int32_t offset)
{
    const int32_t multiplier = (int32_t)(uint32_t)pair;
    const uint32_t shift = (uint32_t)(pair >> 32);
    offset = (int32_t)((uint32_t)offset << shift);
#if defined(__ARM_FEATURE_SIMD32) && !defined(LMCU_PORTABLE)
    int32_t x;
    __asm__("smmla %0, %1, %2, %3" : "=r"(x) : "r"(acc), "r"(multiplier), "r"(offset));
#else
    const int32_t x = (int32_t)((int64_t)acc * multiplier >> 32) + offset;
#endif
    return lmcu_halve_to_int8(x >> shift);
}

/* RQ of dense layers: sign(acc) * floor((|acc| * multiplier + 2^(shift-1)) / 2^shift). The low 32 bits of the product
 * cannot reach the result because shift >= 33. */
LMCU_INLINE int64_t lmcu_round_half_away(int64_t acc, uint64_t multiplier, uint32_t shift)
{
    const int32_t x = lmcu_saturate(acc);
    const uint32_t a = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
    const uint64_t low = (uint64_t)a * (uint32_t)multiplier;
    const uint64_t high = (uint64_t)a * (uint32_t)(multiplier >> 32) + (low >> 32);
    const int64_t magnitude = (int64_t)((high + ((uint64_t)1 << (shift - 33u))) >> (shift - 32u));
    return x < 0 ? -magnitude : magnitude;
}

/* The same for shift >= 65: below 2^30, and what is below bit 64 of the product cannot carry. */
LMCU_INLINE int32_t lmcu_round_half_away_small(int32_t acc, uint64_t multiplier, uint32_t shift)
{
    const uint32_t sign = acc < 0 ? ~0u : 0u, a = ((uint32_t)acc ^ sign) - sign;
    const uint64_t low = (uint64_t)a * (uint32_t)multiplier;
    const uint32_t high = (uint32_t)(((uint64_t)a * (uint32_t)(multiplier >> 32) + (low >> 32)) >> 32);
    const uint32_t magnitude = ((high >> (shift - 65u)) + 1u) >> 1;
    return (int32_t)((magnitude ^ sign) - sign);
}

/* value + zero_point into [act_min, act_max], whatever the value */
LMCU_INLINE int8_t lmcu_to_output(int64_t value, int32_t zero_point, const lmcu_clamp_t *clamp)
{
    const int32_t x = lmcu_saturate(value);
    return (int8_t)(lmcu_clamp_i32(x, clamp->act_min - zero_point, clamp->act_max - zero_point) + zero_point);
}

/* Straight-through: what a clamped output lets back. An activation's bound stops every gradient, the bare int8 rail only
 * one that would push further out. */
LMCU_INLINE float lmcu_masked(float g, int32_t y, const lmcu_clamp_t *clamp)
{
    const int high = y >= clamp->act_max && (clamp->max_is_bound != 0 || g < 0.0f);
    const int low = y <= clamp->act_min && (clamp->min_is_bound != 0 || g > 0.0f);
    return high || low ? 0.0f : g;
}

#endif

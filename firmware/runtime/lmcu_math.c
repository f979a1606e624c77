/* SPDX-License-Identifier: Apache-2.0 */
/* binary16 rounding in integers; exp, log and sqrt in float32. docs/numerics.md has the formulas. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "patch.h"

/* |value| truncated to binary16, and what was cut off as a fraction of one unit in the last place. */
typedef struct {
    uint32_t half;     /* may reach 0x7c00: the caller saturates after rounding up */
    uint32_t fraction; /* in 2^-32; itself truncated only where it is below 2^-8, so never at one half */
} truncated_t;

static truncated_t truncate(uint32_t magnitude)
{
    truncated_t result = {0x7c00u, 0u};
    if (magnitude >= 0x47800000u) { /* 65536 and above */
        return result;
    }
    const uint32_t raw_exponent = magnitude >> 23;
    const uint32_t exponent = raw_exponent == 0u ? 1u : raw_exponent;
    const uint32_t mantissa = (magnitude & 0x7fffffu) | (raw_exponent == 0u ? 0u : 0x800000u);
    /* binary16 keeps 11 of 24 bits from 2^-14 (exponent 113) up, fewer below */
    const uint32_t cut = exponent >= 113u ? 13u : 126u - exponent;
    if (cut < 32u) {
        result.half = (mantissa >> cut) + (exponent > 113u ? (exponent - 113u) << 10 : 0u);
        result.fraction = mantissa << (32u - cut);
    } else {
        result.half = 0u;
        result.fraction = cut < 64u ? mantissa >> (cut - 32u) : 0u;
    }
    return result;
}

static uint16_t saturate(uint32_t half, uint32_t bits)
{
    return (uint16_t)((half > 0x7bffu ? 0x7bffu : half) | (bits >> 16 & 0x8000u));
}

uint16_t lmcu_half_nearest(float value)
{
    const uint32_t bits = lmcu_float_bits(value);
    const truncated_t t = truncate(bits & 0x7fffffffu);
    const bool tie = t.fraction == 0x80000000u;
    const bool up = t.fraction > 0x80000000u || (tie && (t.half & 1u) != 0u);
    return saturate(t.half + (up ? 1u : 0u), bits);
}

uint16_t lmcu_half_stochastic(float value, uint32_t random16)
{
    const uint32_t bits = lmcu_float_bits(value);
    const truncated_t t = truncate(bits & 0x7fffffffu);
    return saturate(t.half + (((t.fraction >> 16) + random16) >> 16), bits);
}

#if LMCU_DSP
/* The same of whole groups of four, whose upper halves are compared in pairs. */
static uint32_t largest_of_fours(const float *values, int32_t count)
{
    const float *const end = values + (count & ~3);
    const uint32_t mask = 0x7fff7fffu;
    uint32_t most = 0u;
#define TWO(a, b)                                                                                                      \
    "pkhtb " a ", " a ", " b ", asr #16\n\tand " a ", " a ", %[mask]\n\tuqsub16 " a ", " a ", %[most]\n\t"              \
    "uadd16 %[most], %[most], " a "\n\t"
    if (values != end) {
        __asm__ volatile("1:\n\tldmia %[values]!, {r8, r9, r10, r11}\n\t" TWO("r8", "r9") TWO("r10", "r11")
                         "cmp %[values], %[end]\n\tbne 1b"
                         : [values] "+&r"(values), [most] "+&r"(most)
                         : [mask] "r"(mask), [end] "r"(end)
                         : "r8", "r9", "r10", "r11", "cc", "memory");
    }
#undef TWO
    return (most & 0xffff0000u) > most << 16 ? most & 0xffff0000u : most << 16;
}
enum { FOURS = ~3 };
#else
static uint32_t largest_of_fours(const float *values, int32_t count)
{
    (void)values, (void)count;
    return 0u;
}
enum { FOURS = 0 };
#endif

uint32_t lmcu_largest(const float *values, int32_t count)
{
    uint32_t most = largest_of_fours(values, count) << 1;
    int32_t i = count & FOURS;
    for (; i + 4 <= count; i += 4) {
        for (int32_t u = 0; u < 4; ++u) {
            const uint32_t magnitude = lmcu_float_bits(values[i + u]) << 1;
            most = magnitude > most ? magnitude : most;
        }
    }
    for (; i < count; ++i) {
        const uint32_t magnitude = lmcu_float_bits(values[i]) << 1;
        most = magnitude > most ? magnitude : most;
    }
    return most >> 1;
}

/* ln 2 in two parts: the first has 10 bits, so that its product with an exponent is exact. */
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f

/* exp(x) = 2^n exp(r), r = x - n ln 2, |r| <= 0.35; Taylor's series to r^7 is below float32's rounding there. */
float lmcu_exp(float x)
{
    if (x > 0x1.62e42ep+6f) {
        return lmcu_float_from_bits(0x7f800000u);
    }
    if (!(x > -88.0f)) {
        return 0.0f;
    }
    const int32_t n = (int32_t)(x * 0x1.715476p+0f + (x < 0.0f ? -0.5f : 0.5f));
    const float high = x - (float)n * LN2_HIGH;
    const float r = high - (float)n * LN2_LOW;
    float q = 0x1.a01a02p-13f;
    q = q * r + 0x1.6c16c2p-10f;
    q = q * r + 0x1.111112p-7f;
    q = q * r + 0x1.555556p-5f;
    q = q * r + 0x1.555556p-3f;
    q = q * r + 0.5f;
    const float y = 1.0f + (r + (r * r) * q);
    if (n == 128) { /* 2^128 is no float32 */
        return (y * 0x1p+127f) * 2.0f;
    }
    if (n < -126 || (n == -126 && y < 1.0f)) {
        return 0.0f;
    }
    return y * lmcu_float_from_bits((uint32_t)(n + 127) << 23);
}

/* x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); ln(1 + f) = 2 atanh(s), s = f / (2 + f), as f - (f^2/2 - s (f^2/2 + R)). */
float lmcu_log(float x)
{
    int32_t k = 0;
    if (x < 0x1p-126f) {
        x *= 0x1p+24f;
        k = -24;
    }
    const uint32_t bits = lmcu_float_bits(x);
    const uint32_t fraction = bits & 0x7fffffu;
    const uint32_t upper = fraction >= 0x3504f3u ? 1u : 0u; /* sqrt(2) and above: halve */
    k += (int32_t)(bits >> 23) - 127 + (int32_t)upper;
    const float f = lmcu_float_from_bits(fraction | (127u - upper) << 23) - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    float q = 0x1.745d18p-3f; /* 2/11 */
    q = q * z + 0x1.c71c72p-3f;
    q = q * z + 0x1.24924ap-2f;
    q = q * z + 0x1.99999ap-2f;
    q = q * z + 0x1.555556p-1f;
    const float r = q * z;
    const float half_square = 0.5f * f * f;
    const float n = (float)k;
    return n * LN2_HIGH - ((half_square - (s * (half_square + r) + n * LN2_LOW)) - f);
}

/* Digit by digit on the integer mantissa: 24 bits of root and the remainder for rounding. */
float lmcu_sqrt(float x)
{
    const uint32_t bits = lmcu_float_bits(x);
    if (bits == 0u || bits >= 0x7f800000u) {
        return x;
    }
    int32_t exponent = (int32_t)(bits >> 23) - 127;
    uint32_t mantissa = bits & 0x7fffffu;
    if (exponent == -127) {
        exponent = -126;
        while (mantissa < 0x800000u) {
            mantissa <<= 1;
            --exponent;
        }
    }
    mantissa |= 0x800000u;
    if ((exponent & 1) != 0) { /* exponent even: mantissa in [2^23, 2^25) stands for [1, 4) */
        mantissa <<= 1;
        --exponent;
    }
    uint32_t root = 0u;
    uint64_t rest = (uint64_t)mantissa << 23; /* root = floor(sqrt(mantissa * 2^23)), 2^23 <= root < 2^24 */
    for (uint32_t bit = 1u << 23; bit != 0u; bit >>= 1) {
        const uint64_t trial = ((uint64_t)root * 2u + bit) * bit;
        if (trial <= rest) {
            rest -= trial;
            root += bit;
        }
    }
    /* above root + 1/2 exactly when the remainder exceeds root; a tie cannot be */
    root += rest > root ? 1u : 0u;
    return lmcu_float_from_bits((uint32_t)(exponent / 2 + 127) * 0x800000u + (root - 0x800000u));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* W x in integers, where any order gives the same sum, and W^T g in float32, where loops run across results only. */
#include "lmcu_strict.h"

#include "matvec.h"

/* ---- W x ---- */

#if defined(__ARM_FEATURE_SIMD32)
LMCU_INLINE uint32_t load_word(const void *from)
{
    uint32_t word;
    __builtin_memcpy(&word, from, 4);
    return word;
}

/* sum + four products of the bytes at w with patch values 0, 2 (even) and 1, 3 (odd) */
LMCU_INLINE int32_t add_products(const int8_t *w, uint32_t even, uint32_t odd, int32_t sum)
{
    uint32_t word = load_word(w), pair;
    __asm__ volatile("sxtb16 %1, %0\n\tsxtb16 %0, %0, ror #8\n\tsmlad %2, %1, %3, %2\n\tsmlad %2, %0, %4, %2"
                     : "+&r"(word), "=&r"(pair), "+&r"(sum)
                     : "r"(even), "r"(odd)
                     : "memory"); /* keeps GCC from loading all rows at once, which spills registers */
    return sum;
}

/* Four rows over k & ~3 values, four at a time. */
static void dot4_head(const int16_t *patch, const int8_t *w, int32_t k, int32_t *acc)
{
    const int8_t *w1 = w + k, *w2 = w1 + k, *w3 = w2 + k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (const int8_t *end = w + (k & ~3); w != end; patch += 4, w += 4, w1 += 4, w2 += 4, w3 += 4) {
        const uint32_t low = load_word(patch), high = load_word(patch + 2);
        uint32_t even, odd;
        __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(even) : "r"(low), "r"(high));
        __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(odd) : "r"(high), "r"(low));
        s0 = add_products(w, even, odd, s0);
        s1 = add_products(w1, even, odd, s1);
        s2 = add_products(w2, even, odd, s2);
        s3 = add_products(w3, even, odd, s3);
    }
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}
enum { HEAD_MASK = ~3 };
#else
static void dot4_head(const int16_t *patch, const int8_t *w, int32_t k, int32_t *acc)
{
    (void)patch, (void)w, (void)k;
    acc[0] = acc[1] = acc[2] = acc[3] = 0;
}
enum { HEAD_MASK = 0 };
#endif

/* Four rows at once: each patch value is loaded once. The head, where there is one, does what the core's SIMD can. */
static void dot4(const int16_t *restrict patch, const int8_t *restrict w, int32_t k, int32_t *restrict acc)
{
    dot4_head(patch, w, k, acc);
    const int8_t *restrict w1 = w + k, *restrict w2 = w1 + k, *restrict w3 = w2 + k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int32_t i = k & HEAD_MASK; i < k; ++i) {
        const int16_t x = patch[i];
        s0 += (int16_t)w[i] * x;
        s1 += (int16_t)w1[i] * x;
        s2 += (int16_t)w2[i] * x;
        s3 += (int16_t)w3[i] * x;
    }
    acc[0] += s0;
    acc[1] += s1;
    acc[2] += s2;
    acc[3] += s3;
}

static int32_t dot1(const int16_t *restrict patch, const int8_t *restrict w, int32_t k)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < k; ++i) {
        sum += (int16_t)w[i] * patch[i];
    }
    return sum;
}

void lmcu_dot_block(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t rows, int32_t *acc)
{
    if (rows == 4) {
        dot4(patch, w, k, acc);
    } else {
        for (int32_t r = 0; r < rows; ++r) {
            acc[r] = dot1(patch, w + (intptr_t)r * k, k);
        }
    }
    for (int32_t r = 0; bias && r < rows; ++r) {
        acc[r] += bias[r];
    }
}

/* ---- W^T g: each val[i] takes its rows in ascending order ---- */

/* Four rows a pass, so that val is loaded and stored once for four products. */
LMCU_INLINE void add_four(const int8_t *const *row, const float *factor, int32_t zero_point, int32_t k,
                          float *restrict val)
{
    const int8_t *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
    const float f0 = factor[0], f1 = factor[1], f2 = factor[2], f3 = factor[3];
    for (int32_t i = 0; i < k; ++i) {
        float sum = val[i] + f0 * (float)(r0[i] - zero_point);
        sum = sum + f1 * (float)(r1[i] - zero_point);
        sum = sum + f2 * (float)(r2[i] - zero_point);
        val[i] = sum + f3 * (float)(r3[i] - zero_point);
    }
}

LMCU_INLINE void add_one(const int8_t *row, float factor, int32_t zero_point, int32_t k, float *restrict val)
{
    for (int32_t i = 0; i < k; ++i) {
        val[i] = val[i] + factor * (float)(row[i] - zero_point);
    }
}

/* zero_point is a constant after inlining */
LMCU_INLINE void transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m,
                                    int32_t k, float *val)
{
    const int8_t *row[4];
    float factor[4];
    int32_t waiting = 0;
    for (int32_t i = 0; i < k; ++i) {
        val[i] = 0.0f;
    }
    for (int32_t o = 0; o < m; ++o) {
        if (g[o] == 0.0f) {
            continue;
        }
        row[waiting] = w + (intptr_t)o * k;
        factor[waiting] = scale[o] * g[o];
        if (++waiting == 4) {
            add_four(row, factor, zero_point, k, val);
            waiting = 0;
        }
    }
    for (int32_t i = 0; i < waiting; ++i) {
        add_one(row[i], factor[i], zero_point, k, val);
    }
}

void lmcu_transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m, int32_t k,
                             float *val)
{
    if (zero_point == 0) {
        transposed_product(w, 0, scale, g, m, k, val);
    } else {
        transposed_product(w, zero_point, scale, g, m, k, val);
    }
}

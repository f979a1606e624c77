/* SPDX-License-Identifier: Apache-2.0 */
/* W x in integers, where any order gives the same sum, and W^T g in float32, where loops run across results only. */
#include "lmcu_strict.h"

#include "matvec.h"

/* ---- W x ---- */

#if LMCU_DSP
/* One group of four: a row's word becomes two pairs, each of which meets the patch's pair. */
#define ROW(w, sum)                                                                                                    \
    "ldr %[word], [%[" w "]], #4\n\tsxtb16 %[pair], %[word]\n\tsxtb16 %[word], %[word], ror #8\n\t"                       \
    "smlad %[" sum "], %[pair], %[even], %[" sum "]\n\tsmlad %[" sum "], %[word], %[odd], %[" sum "]\n\t"
#define FOUR_ROWS "ldrd %[even], %[odd], [%[patch]], #8\n\t" ROW("w0", "s0") ROW("w1", "s1") ROW("w2", "s2") ROW("w3", "s3")
#define LOOP(body) "1:\n\t" body "cmp %[patch], %[end]\n\tbne 1b"

/* Four rows over whole groups, k & ~3 values; sixteen values a turn, then four. */
LMCU_INLINE void dot4_head(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t *acc)
{
    const int8_t *w1 = w + k, *w2 = w1 + k, *w3 = w2 + k;
    const int16_t *many = patch + (k & ~15), *end = patch + (k & ~3);
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t even, odd, word, pair;
    if (bias) {
        s0 = bias[0];
        s1 = bias[1];
        s2 = bias[2];
        s3 = bias[3];
    }
#define OPERANDS(stop)                                                                                                 \
    : [patch] "+&r"(patch), [w0] "+&r"(w), [w1] "+&r"(w1), [w2] "+&r"(w2), [w3] "+&r"(w3), [s0] "+&r"(s0),             \
      [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [even] "=&r"(even), [odd] "=&r"(odd), [word] "=&r"(word),        \
      [pair] "=&r"(pair)                                                                                               \
    : [end] "r"(stop)                                                                                                  \
    : "cc", "memory"
    if (patch != many) {
        __asm__ volatile(LOOP(FOUR_ROWS FOUR_ROWS FOUR_ROWS FOUR_ROWS) OPERANDS(many));
    }
    if (patch != end) {
        __asm__ volatile(LOOP(FOUR_ROWS) OPERANDS(end));
    }
#undef OPERANDS
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}
enum { HEAD_MASK = ~3 };

#else
LMCU_INLINE void dot4_head(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t *acc)
{
    (void)patch, (void)w, (void)k;
    for (int32_t r = 0; r < 4; ++r) {
        acc[r] = bias ? bias[r] : 0;
    }
}
enum { HEAD_MASK = 0 };
#endif

/* Where value i of a lone patch stands. */
LMCU_INLINE int32_t place(int32_t i)
{
    return (i & ~3) | LMCU_PLACE(i & 3);
}

/* Four rows at once: each patch value is loaded once. The head, where there is one, does what the core's SIMD can. */
static void dot4(const int16_t *restrict patch, const int8_t *restrict w, const int32_t *bias, int32_t k,
                 int32_t *restrict acc)
{
    dot4_head(patch, w, bias, k, acc);
    if ((k & ~HEAD_MASK) == 0) {
        return;
    }
    const int8_t *restrict w1 = w + k, *restrict w2 = w1 + k, *restrict w3 = w2 + k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int32_t i = k & HEAD_MASK; i < k; ++i) {
        const int16_t x = patch[place(i)];
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

#if LMCU_DSP
/* One row over whole groups. */
LMCU_INLINE int32_t dot1_head(const int16_t *patch, const int8_t *w, int32_t k)
{
    int32_t sum = 0;
    for (const int16_t *end = patch + (k & ~3); patch != end; patch += LMCU_GROUP, w += LMCU_GROUP) {
        const uint32_t word = lmcu_load_word(w);
        __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(lmcu_even(word)), "r"(lmcu_load_word(patch)));
        __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(lmcu_odd(word)), "r"(lmcu_load_word(patch + 2)));
    }
    return sum;
}
#else
LMCU_INLINE int32_t dot1_head(const int16_t *patch, const int8_t *w, int32_t k)
{
    (void)patch, (void)w, (void)k;
    return 0;
}
#endif

static int32_t dot1(const int16_t *restrict patch, const int8_t *restrict w, int32_t k)
{
    int32_t sum = dot1_head(patch, w, k);
    for (int32_t i = k & HEAD_MASK; i < k; ++i) {
        sum += (int16_t)w[i] * patch[place(i)];
    }
    return sum;
}

void lmcu_dot_block(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t rows, int32_t *acc)
{
    if (rows == 4) {
        dot4(patch, w, bias, k, acc);
        return;
    }
    for (int32_t r = 0; r < rows; ++r) {
        acc[r] = (bias ? bias[r] : 0) + dot1(patch, w + (intptr_t)r * k, k);
    }
}

/* ---- W^T g: each val[i] takes its rows in ascending order ---- */

#if LMCU_DSP && defined(__ARM_FP)
/* Four neighbours of a row, zero_point 0: bytes 0 and 2, 1 and 3 as pairs of int16, the lower and then the upper of which are
 * converted; times the row's factor, added to what stands in s0 to s3. */
#define ROW_OF_FOUR(row, factor)                                                                                       \
    "ldr %[x], [%[" row "]], #4\n\tsxtb16 %[y], %[x]\n\tsxtb16 %[x], %[x], ror #8\n\tvmov s4, s5, %[y], %[x]\n\t"       \
    "lsr %[y], %[y], #16\n\tlsr %[x], %[x], #16\n\tvmov s6, s7, %[y], %[x]\n\tvcvt.f32.s16 s4, s4, #0\n\t"              \
    "vcvt.f32.s16 s5, s5, #0\n\tvcvt.f32.s16 s6, s6, #0\n\tvcvt.f32.s16 s7, s7, #0\n\tvmul.f32 s4, s4, %[" factor "]\n\t" \
    "vmul.f32 s5, s5, %[" factor "]\n\tvmul.f32 s6, s6, %[" factor "]\n\tvmul.f32 s7, s7, %[" factor "]\n\t"              \
    "vadd.f32 s0, s0, s4\n\tvadd.f32 s1, s1, s5\n\tvadd.f32 s2, s2, s6\n\tvadd.f32 s3, s3, s7\n\t"

/* add_four() of whole groups of four columns; returns how many columns that is. */
static int32_t add_four_groups(const int8_t *const *row, const float *factor, int32_t k, float *val)
{
    const int8_t *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
    const float *const end = val + (k & ~3);
    uint32_t x, y;
    if (val != end) {
        __asm__ volatile("1:\n\tvldmia %[val], {s0, s1, s2, s3}\n\t" ROW_OF_FOUR("r0", "f0") ROW_OF_FOUR("r1", "f1")
                         ROW_OF_FOUR("r2", "f2") ROW_OF_FOUR("r3", "f3") "vstmia %[val]!, {s0, s1, s2, s3}\n\t"
                         "cmp %[val], %[end]\n\tbne 1b"
                         : [val] "+&r"(val), [r0] "+&r"(r0), [r1] "+&r"(r1), [r2] "+&r"(r2), [r3] "+&r"(r3), [x] "=&r"(x),
                           [y] "=&r"(y)
                         : [f0] "t"(factor[0]), [f1] "t"(factor[1]), [f2] "t"(factor[2]), [f3] "t"(factor[3]), [end] "r"(end)
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "cc", "memory");
    }
    return k & ~3;
}
#undef ROW_OF_FOUR
#else
static int32_t add_four_groups(const int8_t *const *row, const float *factor, int32_t k, float *val)
{
    (void)row, (void)factor, (void)k, (void)val;
    return 0;
}
#endif

/* Four rows a pass, so that val is loaded and stored once for four products. */
LMCU_INLINE void add_four(const int8_t *const *row, const float *factor, int32_t zero_point, int32_t k,
                          float *restrict val)
{
    const int8_t *r0 = row[0], *r1 = row[1], *r2 = row[2], *r3 = row[3];
    const float f0 = factor[0], f1 = factor[1], f2 = factor[2], f3 = factor[3];
    for (int32_t i = zero_point == 0 ? add_four_groups(row, factor, k, val) : 0; i < k; ++i) {
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 matrix products that dense and convolution share: rows of w [m][k] against patches (patch.h). */
#ifndef LMCU_MATVEC_H
#define LMCU_MATVEC_H

#include "lmcu_strict.h"

#include "patch.h"

#include <stdint.h>

/* acc[r] = bias[r] + sum_k w[r][k] * patch[k] for `rows` <= 4 rows, exact; bias may be NULL */
void lmcu_dot_block(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t rows, int32_t *acc);

#if LMCU_DSP
/* Eight values of a row, two words, against those of the patch in r8 to r11. */
#define LMCU_EIGHT(w, s)                                                                                               \
    "ldrd %[x], %[z], [%[" w "]], #8\n\tsxtb16 %[e], %[x]\n\tsxtb16 %[x], %[x], ror #8\n\t"                           \
    "smlad %[" s "], %[e], r8, %[" s "]\n\tsxtb16 %[e], %[z]\n\tsmlad %[" s "], %[x], r9, %[" s "]\n\t"               \
    "sxtb16 %[z], %[z], ror #8\n\tsmlad %[" s "], %[e], r10, %[" s "]\n\tsmlad %[" s "], %[z], r11, %[" s "]\n\t"
#define LMCU_TWO_EIGHTS "ldmia %[patch]!, {r8, r9, r10, r11}\n\t" LMCU_EIGHT("w0", "s0") LMCU_EIGHT("w1", "s1")
#define LMCU_TWO_LOOP(body, stop)                                                                                      \
    __asm__ volatile("1:\n\t" body "cmp %[patch], %[end]\n\tbne 1b"                                                    \
                     : [patch] "+&r"(patch), [w0] "+&r"(w0), [w1] "+&r"(w1), [s0] "+&r"(s0), [s1] "+&r"(s1),            \
                       [x] "=&r"(x), [z] "=&r"(z), [e] "=&r"(e)                                                        \
                     : [end] "r"(stop)                                                                                 \
                     : "r8", "r9", "r10", "r11", "cc", "memory")

/* acc[r] += row r of w times a lone patch, for two rows at addresses of whole words; k is a multiple of 8. Returns the rows'
 * end. */
LMCU_INLINE const int8_t *lmcu_dot_two(const int16_t *patch, const int8_t *w0, int32_t k, int32_t *acc)
{
    const int8_t *w1 = w0 + k;
    const int16_t *many = patch + (k & ~31), *end = patch + k;
    int32_t s0 = acc[0], s1 = acc[1];
    uint32_t x, z, e;
    if (patch != many) {
        LMCU_TWO_LOOP(LMCU_TWO_EIGHTS LMCU_TWO_EIGHTS LMCU_TWO_EIGHTS LMCU_TWO_EIGHTS, many);
    }
    if (patch != end) {
        LMCU_TWO_LOOP(LMCU_TWO_EIGHTS, end);
    }
    acc[0] = s0;
    acc[1] = s1;
    return w1;
}

/* One group of four: the words of two rows become two pairs each, which meet the pairs of two patches. */
#define LMCU_TWO_WORDS                                                                                                 \
    "ldr %[o0], [%[w0]], #4\n\tldr %[o1], [%[w1]], #4\n\tsxtb16 %[e0], %[o0]\n\tsxtb16 %[o0], %[o0], ror #8\n\t"        \
    "sxtb16 %[e1], %[o1]\n\tsxtb16 %[o1], %[o1], ror #8\n\t"
#define LMCU_ONE_PATCH(s0, s1)                                                                                         \
    "ldrd %[even], %[odd], [%[patch]], #8\n\tsmlad %[" s0 "], %[e0], %[even], %[" s0 "]\n\t"                           \
    "smlad %[" s1 "], %[e1], %[even], %[" s1 "]\n\tsmlad %[" s0 "], %[o0], %[odd], %[" s0 "]\n\t"                       \
    "smlad %[" s1 "], %[o1], %[odd], %[" s1 "]\n\t"
#define LMCU_TWO_BY_TWO LMCU_TWO_WORDS LMCU_ONE_PATCH("s0", "s1") LMCU_ONE_PATCH("s2", "s3")
#define LMCU_PAIR_LOOP(body, stop)                                                                                     \
    __asm__ volatile("1:\n\t" body "cmp %[patch], %[end]\n\tbne 1b"                                                    \
                     : [patch] "+&r"(patches), [w0] "+&r"(w0), [w1] "+&r"(w1), [s0] "+&r"(s0), [s1] "+&r"(s1),         \
                       [s2] "+&r"(s2), [s3] "+&r"(s3), [even] "=&r"(even), [odd] "=&r"(odd), [e0] "=&r"(e0),           \
                       [o0] "=&r"(o0), [e1] "=&r"(e1), [o1] "=&r"(o1)                                                  \
                     : [end] "r"(stop)                                                                                 \
                     : "cc", "memory")

/* acc[2 * q + r] += row w_r times patch q, for two rows and two patches whose groups alternate (LMCU_PAIR) */
LMCU_INLINE void lmcu_dot_pair(const int16_t *patches, const int8_t *w0, const int8_t *w1, int32_t k, int32_t *acc)
{
    const int16_t *many = patches + 2 * (k & ~15), *end = patches + 2 * (k & ~3);
    int32_t s0 = acc[0], s1 = acc[1], s2 = acc[2], s3 = acc[3];
    uint32_t even, odd, e0, o0, e1, o1;
    if (patches != many) {
        LMCU_PAIR_LOOP(LMCU_TWO_BY_TWO LMCU_TWO_BY_TWO LMCU_TWO_BY_TWO LMCU_TWO_BY_TWO, many);
    }
    if (patches != end) {
        LMCU_PAIR_LOOP(LMCU_TWO_BY_TWO, end);
    }
    for (int32_t i = 0; i < (k & 3); ++i) {
        const int32_t a = patches[LMCU_PLACE(i)], b = patches[LMCU_GROUP + LMCU_PLACE(i)];
        s0 += w0[i] * a;
        s1 += w1[i] * a;
        s2 += w0[i] * b;
        s3 += w1[i] * b;
    }
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}
#endif

/* val[k] = sum over o ascending of (scale[o] * g[o]) * (float)(w[o][k] - zero_point), from +0; rows with g = 0 skipped */
void lmcu_transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m, int32_t k,
                             float *val);

#endif

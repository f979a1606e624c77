/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 matrix products that dense and convolution share: rows of w [m][k] against one int16 patch. */
#ifndef LMCU_MATVEC_H
#define LMCU_MATVEC_H

#include "lmcu_strict.h"

#include <stdint.h>

/* acc[i] = bias[i] + sum_k w[i][k] * patch[k] for four rows at once: the patch is loaded once. bias may be NULL. */
LMCU_INLINE void lmcu_dot4(const int16_t *restrict patch, const int8_t *restrict w, const int32_t *bias, int32_t k,
                           int32_t *restrict acc)
{
    const int8_t *restrict w1 = w + k, *restrict w2 = w1 + k, *restrict w3 = w2 + k;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int32_t i = 0; i < k; ++i) {
        const int16_t x = patch[i];
        s0 += (int16_t)w[i] * x;
        s1 += (int16_t)w1[i] * x;
        s2 += (int16_t)w2[i] * x;
        s3 += (int16_t)w3[i] * x;
    }
    acc[0] = s0 + (bias ? bias[0] : 0);
    acc[1] = s1 + (bias ? bias[1] : 0);
    acc[2] = s2 + (bias ? bias[2] : 0);
    acc[3] = s3 + (bias ? bias[3] : 0);
}

/* The same for the last 1 to 3 rows. */
LMCU_INLINE void lmcu_dot_rows(const int16_t *restrict patch, const int8_t *restrict w, const int32_t *bias, int32_t k,
                               int32_t rows, int32_t *restrict acc)
{
    for (int32_t r = 0; r < rows; ++r, w += k) {
        int32_t sum = 0;
        for (int32_t i = 0; i < k; ++i) {
            sum += (int16_t)w[i] * patch[i];
        }
        acc[r] = sum + (bias ? bias[r] : 0);
    }
}

/* rows <= 4 */
LMCU_INLINE void lmcu_dot_block(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t rows,
                                int32_t *acc)
{
    if (rows == 4) {
        lmcu_dot4(patch, w, bias, k, acc);
    } else {
        lmcu_dot_rows(patch, w, bias, k, rows, acc);
    }
}

/* val[k] = sum over o ascending of (scale[o] * g[o]) * (float)(w[o][k] - zero_point), from +0; rows with g = 0 skipped */
void lmcu_transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m, int32_t k,
                             float *val);

#endif

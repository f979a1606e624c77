/* SPDX-License-Identifier: Apache-2.0 */
/* W^T g over int8 weights: four rows a pass, so that val is loaded and stored once for four products. */
#include "lmcu_strict.h"

#include "matvec.h"

/* Each val[i] takes its rows in ascending order; the loop runs across i. */
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

void lmcu_transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m, int32_t k,
                             float *val)
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter of a dense or convolution layer, one position (patch) at a time, mode f32: docs/numerics.md.
 * Factors are expanded to float32 in scratch once per layer call, in the order that each product reads them. */
#ifndef LMCU_LORA_H
#define LMCU_LORA_H

#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"

/* Expanded factors: a_t [k][rank]; b is [rank][m] after expand_forward and [m][rank] after expand_backward. */
typedef struct {
    const lmcu_lora_t *lora;
    int32_t k, m;
    float *a_t;
    float *b;
} lmcu_factors_t;

/* scratch: 4 * rank * (k + m) bytes */
lmcu_factors_t lmcu_lora_expand_forward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch);
lmcu_factors_t lmcu_lora_expand_backward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch);

/* t[j] = sum_k A[j,k] * patch[k] */
void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, float *t);

/* dB and dA of one position, added to the gradient buffers; h [rank] is left for lmcu_lora_add_input_gradient. */
void lmcu_lora_backward(const lmcu_factors_t *f, const int16_t *patch, const float *g, float *h);

/* val[k] += sum_j A[j,k] * h[j] */
void lmcu_lora_add_input_gradient(const lmcu_factors_t *f, const float *h, float *val);

/* Nearest integer of l, halves away from zero, limited to +-2^30. */
LMCU_INLINE int32_t lmcu_lora_round(float l)
{
    float d = l > -0x1p+30f ? l : -0x1p+30f; /* NaN, which finite factors cannot give, ends here too */
    d = d < 0x1p+30f ? d : 0x1p+30f;
    const int32_t i = (int32_t)d;
    const float e = d - (float)i;
    return i + (e >= 0.5f) - (e <= -0.5f);
}

/* delta[i] = round(c[i] * sum_j B[i,j] * t[j]) of `rows` outputs; b points at column o of [rank][m] */
LMCU_INLINE void lmcu_lora_delta(const float *restrict b, int32_t m, int32_t rank, const float *restrict t,
                                 const float *restrict c, int32_t rows, int32_t *restrict delta)
{
    for (int32_t i = 0; i < rows; ++i) {
        float sum = 0.0f;
        for (int32_t j = 0; j < rank; ++j) {
            sum = sum + b[j * m + i] * t[j];
        }
        delta[i] = lmcu_lora_round(c[i] * sum);
    }
}

/* acc [rows] of outputs o.. (rows <= 4) plus the adapter's part, in 64 bits */
LMCU_INLINE void lmcu_lora_add(const lmcu_factors_t *f, const float *t, int32_t o, int32_t rows, const int32_t *acc,
                               int64_t *sum)
{
    int32_t delta[4];
    const int32_t rank = f->lora->rank;
    if (rank == 4 && rows == 4) {
        lmcu_lora_delta(f->b + o, f->m, 4, t, f->lora->c + o, 4, delta);
    } else {
        lmcu_lora_delta(f->b + o, f->m, rank, t, f->lora->c + o, rows, delta);
    }
    for (int32_t i = 0; i < rows; ++i) {
        sum[i] = (int64_t)acc[i] + delta[i];
    }
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter of a dense or convolution layer, one position (patch) at a time, mode f32: docs/numerics.md. */
#ifndef LMCU_LORA_H
#define LMCU_LORA_H

#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"

/* The factors during one layer call. Dense layers, with few positions, read binary16 where it stands. Convolutions expand
 * to float32 once, in the order that each product reads: a_t [k][rank]; b [rank][m] forward, [m][rank] backward. */
typedef struct {
    const lmcu_lora_t *lora;
    int32_t k, m;
    const uint16_t *a_half; /* [rank][k] */
    const uint16_t *b_half; /* [m][rank] */
    float *a_t;             /* NULL: not expanded */
    float *b;
} lmcu_factors_t;

lmcu_factors_t lmcu_lora_direct(const lmcu_lora_t *lora, int32_t k, int32_t m);
/* scratch: 4 * rank * (k + m) bytes */
lmcu_factors_t lmcu_lora_expand_forward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch);
lmcu_factors_t lmcu_lora_expand_backward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch);

/* t[j] = sum_k A[j,k] * patch[k]; step: between the patch's groups (patch.h) */
void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, int32_t step, float *t);

/* acc[i] += round(c[o+i] * sum_j B[o+i,j] * t[j]), saturated, for `rows` <= 4 outputs from o */
void lmcu_lora_add(const lmcu_factors_t *f, const float *t, int32_t o, int32_t rows, int32_t *acc);

/* The same for two positions, `rows` <= 2 outputs each: t [2][LMCU_MAX_RANK], acc [2][2]; expanded factors only. */
void lmcu_lora_add_pair(const lmcu_factors_t *f, const float *t, int32_t o, int32_t rows, int32_t *acc);

/* dB and dA of one position, a lone patch, added to the gradient buffers; h [rank] is left for lmcu_lora_add_input_gradient. */
void lmcu_lora_backward(const lmcu_factors_t *f, const int16_t *patch, const float *g, float *h);

/* val[k] += sum_j A[j,k] * h[j] */
void lmcu_lora_add_input_gradient(const lmcu_factors_t *f, const float *h, float *val);

#endif

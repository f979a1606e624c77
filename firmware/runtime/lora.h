/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter of a dense or convolution layer, one position (patch) at a time: docs/numerics.md. Mode f32 is lora.c, mode i16
 * lora_i16.c and, backward, block.c. */
#ifndef LMCU_LORA_H
#define LMCU_LORA_H

#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"
#include "patch.h"
#include "requant.h"

#if LMCU_NUMERICS_I16
/* The factors during one layer call: tables that stand ready, and the exponents of their units. */
typedef struct {
    const lmcu_lora_t *lora;
    const int16_t *a; /* [k4 / 4][rank][4], in the order of patches */
    const int16_t *b; /* [m][rank2] */
    int32_t rank, rank2, k4, a_unit, b_unit;
} lmcu_factors_t;

/* t of one position; B t * 2^-(half + 1) is in units of 1 / (c * 2^32) */
typedef struct {
    int32_t half;
    LMCU_ALIGNED(4) int16_t t[LMCU_MAX_RANK];
} lmcu_projection_t;

void lmcu_lora_tables(void); /* after every change of the factors */
/* t[j] = sum_k A[j,k] * patch[k], exact */
void lmcu_lora_products(const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *t);
#else
typedef struct {
    float t[LMCU_MAX_RANK];
} lmcu_projection_t;

/* The factors during one layer call. Dense layers, with few positions, read binary16 where it stands. Convolutions expand
 * to float32 once, in the order that the products read: a_t [k][rank], b [m][rank]. */
typedef struct {
    const lmcu_lora_t *lora;
    int32_t k, m;
    const uint16_t *a_half; /* [rank][k] */
    const uint16_t *b_half; /* [m][rank] */
    float *a_t;             /* NULL: not expanded */
    float *b;
} lmcu_factors_t;

/* scratch: 4 * rank * (k + m) bytes */
lmcu_factors_t lmcu_lora_expand(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch);

/* dB and dA of one position, a lone patch, added to the gradient buffers; h [rank] is left for lmcu_lora_add_input_gradient. */
void lmcu_lora_backward(const lmcu_factors_t *f, const int16_t *patch, const float *g, float *h);

/* val[k] += sum_j A[j,k] * h[j] */
void lmcu_lora_add_input_gradient(const lmcu_factors_t *f, const float *h, float *val);
#endif

lmcu_factors_t lmcu_lora_direct(const lmcu_lora_t *lora, int32_t k, int32_t m);

/* t[j] = sum_k A[j,k] * patch[k]; step: between the patch's groups (patch.h) */
void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, int32_t step, lmcu_projection_t *t);

/* to[i] = bias[i] + delta, delta = round(c[o] * sum_j B[o,j] * t[j]) limited to +-2^30, of `count` outputs o from `first` on.
 * `bias` begins with output `first`; NULL: 0. */
void lmcu_lora_deltas(const lmcu_factors_t *f, const lmcu_projection_t *t, const int32_t *bias, int32_t first, int32_t count,
                      int32_t *to);

/* acc + delta, limited to int32 */
LMCU_INLINE int32_t lmcu_add_limited(int32_t acc, int32_t delta)
{
#if LMCU_DSP
    int32_t sum;
    __asm__("qadd %0, %1, %2" : "=r"(sum) : "r"(acc), "r"(delta));
    return sum;
#else
    return lmcu_saturate((int64_t)acc + delta);
#endif
}

#endif

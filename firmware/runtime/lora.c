/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA, mode f32: every sum has one accumulator from +0 and ascending indices; loops run across results. */
#include "lmcu_strict.h"

#include "lora.h"

static float *expand_a(const lmcu_lora_t *lora, int32_t k, float *a_t)
{
    const uint16_t *a = lmcu_model.factors + lora->a_offset;
    for (int32_t j = 0; j < lora->rank; ++j) {
        for (int32_t i = 0; i < k; ++i) {
            a_t[i * lora->rank + j] = lmcu_half_to_float(*a++);
        }
    }
    return a_t + lora->rank * k;
}

lmcu_factors_t lmcu_lora_expand_forward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch)
{
    const lmcu_factors_t f = {lora, k, m, scratch, expand_a(lora, k, scratch)};
    const uint16_t *b = lmcu_model.factors + lora->b_offset;
    for (int32_t o = 0; o < m; ++o) {
        for (int32_t j = 0; j < lora->rank; ++j) {
            f.b[j * m + o] = lmcu_half_to_float(*b++);
        }
    }
    return f;
}

lmcu_factors_t lmcu_lora_expand_backward(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch)
{
    const lmcu_factors_t f = {lora, k, m, scratch, expand_a(lora, k, scratch)};
    const uint16_t *b = lmcu_model.factors + lora->b_offset;
    for (int32_t i = 0; i < m * lora->rank; ++i) {
        f.b[i] = lmcu_half_to_float(b[i]);
    }
    return f;
}

/* `count` (a constant after inlining, 1 to 4) neighbouring t; a_t has `rank` values per k */
LMCU_INLINE void project(const float *restrict a_t, int32_t rank, const int16_t *restrict patch, int32_t k, int32_t count,
                         float *restrict t)
{
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int32_t i = 0; i < k; ++i) {
        const float x = (float)patch[i];
        for (int32_t j = 0; j < count; ++j) {
            sum[j] = sum[j] + a_t[j] * x;
        }
        a_t += rank;
    }
    for (int32_t j = 0; j < count; ++j) {
        t[j] = sum[j];
    }
}

void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, float *t)
{
    const int32_t rank = f->lora->rank;
    int32_t j = 0;
    if (rank == 4) {
        project(f->a_t, 4, patch, f->k, 4, t);
        return;
    }
    for (; j + 4 <= rank; j += 4) {
        project(f->a_t + j, rank, patch, f->k, 4, t + j);
    }
    for (; j < rank; ++j) {
        project(f->a_t + j, rank, patch, f->k, 1, t + j);
    }
}

/* h[j] = sum_o B[o,j] * g[o] and dB[o,j] += (gamma * g[o]) * u[j]; rows with g = 0 change nothing */
LMCU_INLINE void backward_b(const float *restrict b, int32_t rank, int32_t m, float gamma, const float *restrict g,
                            const float *restrict u, float *restrict h, float *restrict db)
{
    for (int32_t j = 0; j < rank; ++j) {
        h[j] = 0.0f;
    }
    for (int32_t o = 0; o < m; ++o, b += rank, db += rank) {
        if (g[o] == 0.0f) {
            continue;
        }
        const float scaled = gamma * g[o];
        for (int32_t j = 0; j < rank; ++j) {
            h[j] = h[j] + b[j] * g[o];
            db[j] = db[j] + scaled * u[j];
        }
    }
}

/* dA[j,k] += factor[j] * patch[k] for `count` (constant, 1 or 4) rows */
LMCU_INLINE void backward_a(float *restrict da, const float *factor, const int16_t *restrict patch, int32_t k,
                            int32_t count)
{
    for (int32_t i = 0; i < k; ++i) {
        const float x = (float)patch[i];
        for (int32_t j = 0; j < count; ++j) {
            da[j * k + i] = da[j * k + i] + factor[j] * x;
        }
    }
}

static void backward_a_rows(float *da, const float *factor, const int16_t *patch, int32_t k, int32_t rank)
{
    int32_t j = 0;
    for (; j + 4 <= rank; j += 4, da += 4 * k) {
        const float four[4] = {factor[j], factor[j + 1], factor[j + 2], factor[j + 3]};
        backward_a(da, four, patch, k, 4);
    }
    for (; j < rank; ++j, da += k) {
        backward_a(da, factor + j, patch, k, 1);
    }
}

void lmcu_lora_backward(const lmcu_factors_t *f, const int16_t *patch, const float *g, float *h)
{
    const lmcu_lora_t *lora = f->lora;
    const int32_t rank = lora->rank;
    float u[LMCU_MAX_RANK], factor[LMCU_MAX_RANK];
    lmcu_lora_project(f, patch, u);
    for (int32_t j = 0; j < rank; ++j) {
        u[j] = lora->input_scale * u[j];
    }
    if (rank == 4) {
        backward_b(f->b, 4, f->m, lora->gamma, g, u, h, lmcu_model.gradients + lora->b_offset);
    } else {
        backward_b(f->b, rank, f->m, lora->gamma, g, u, h, lmcu_model.gradients + lora->b_offset);
    }
    for (int32_t j = 0; j < rank; ++j) {
        h[j] = lora->gamma * h[j];
        factor[j] = h[j] * lora->input_scale;
    }
    backward_a_rows(lmcu_model.gradients + lora->a_offset, factor, patch, f->k, rank);
}

LMCU_INLINE void add_input_gradient(const float *restrict a_t, int32_t rank, const float *restrict h, int32_t k,
                                    float *restrict val)
{
    for (int32_t i = 0; i < k; ++i, a_t += rank) {
        float sum = 0.0f;
        for (int32_t j = 0; j < rank; ++j) {
            sum = sum + a_t[j] * h[j];
        }
        val[i] = val[i] + sum;
    }
}

void lmcu_lora_add_input_gradient(const lmcu_factors_t *f, const float *h, float *val)
{
    if (f->lora->rank == 4) {
        add_input_gradient(f->a_t, 4, h, f->k, val);
    } else {
        add_input_gradient(f->a_t, f->lora->rank, h, f->k, val);
    }
}

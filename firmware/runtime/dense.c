/* SPDX-License-Identifier: Apache-2.0 */
/* Fully connected: x [batch][k], w [m][k] -> y [batch][m]. Each row of the batch is a position. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "lora.h"
#include "matvec.h"
#include "requant.h"

/* patch = x - z_x; returns its sum */
static int32_t load_patch(const lmcu_dense_t *p, const int8_t *restrict x, int16_t *restrict patch)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < p->k; ++i) {
        patch[i] = (int16_t)(x[i] - p->input_zero_point);
        sum += patch[i];
    }
    return sum;
}

/* y of `rows` outputs from o */
static void write_outputs(const lmcu_dense_t *p, int32_t o, int32_t rows, const int32_t *acc, int8_t *restrict y)
{
    for (int32_t i = 0; i < rows; ++i) {
        const int32_t q = p->requant.per_channel ? o + i : 0;
        const int64_t value = lmcu_round_half_away(acc[i], p->requant.multiplier[q], p->requant.shift[q]);
        y[i] = lmcu_to_output(value, p->output_zero_point, &p->clamp);
    }
}

/* One row: y [m]. f and t are NULL without an adapter. */
static void forward_row(const lmcu_dense_t *p, const lmcu_factors_t *f, const float *t, const int16_t *patch,
                        int32_t patch_sum, int8_t *y)
{
    for (int32_t o = 0; o < p->m; o += 4) {
        const int32_t rows = p->m - o < 4 ? p->m - o : 4;
        int32_t acc[4];
        lmcu_dot_block(patch, p->weights + (intptr_t)o * p->k, p->bias ? p->bias + o : 0, p->k, rows, acc);
        for (int32_t i = 0; i < rows; ++i) {
            acc[i] -= p->weight_zero_point * patch_sum;
        }
        if (f) {
            lmcu_lora_add(f, t, o, rows, acc);
        }
        write_outputs(p, o, rows, acc, y + o);
    }
}

void lmcu_dense_forward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch)
{
    int16_t *patch = scratch;
    float t[LMCU_MAX_RANK];
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_direct(lora, p->k, p->m);
    }
    for (int32_t row = 0; row < p->batch; ++row, x += p->k, y += p->m) {
        const int32_t patch_sum = load_patch(p, x, patch);
        if (lora) {
            lmcu_lora_project(&f, patch, t);
        }
        forward_row(p, lora ? &f : 0, t, patch, patch_sum, y);
    }
}

void lmcu_dense_backward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                         float *dx, void *scratch)
{
    int16_t *patch = scratch;
    float *val = (float *)scratch + (p->k + 1) / 2;
    float h[LMCU_MAX_RANK];
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_direct(lora, p->k, p->m);
    }
    for (int32_t i = 0; i < p->batch * p->m; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], &p->clamp);
    }
    for (int32_t row = 0; row < p->batch; ++row, x += p->k, dy += p->m) {
        if (lora) {
            (void)load_patch(p, x, patch);
            lmcu_lora_backward(&f, patch, dy, h);
        }
        if (!dx) {
            continue;
        }
        lmcu_transposed_product(p->weights, p->weight_zero_point, p->weight_scale, dy, p->m, p->k, val);
        if (lora) {
            lmcu_lora_add_input_gradient(&f, h, val);
        }
        for (int32_t i = 0; i < p->k; ++i) {
            dx[i] = dx[i] + val[i];
        }
        dx += p->k;
    }
}

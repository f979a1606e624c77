/* SPDX-License-Identifier: Apache-2.0 */
/* Fully connected: x [batch][k], w [m][k] -> y [batch][m]. Each row of the batch is a position. */
#include "lmcu_strict.h"

#include "block.h"
#include "lmcu_ops.h"
#include "lora.h"
#include "matvec.h"
#include "requant.h"

/* patch = x - z_x */
static void load_patch(const lmcu_dense_t *p, const int8_t *x, int16_t *patch)
{
    (void)lmcu_patch_values(patch, LMCU_GROUP, x, p->input_zero_point, p->k);
}

/* z_w times the patch's sum: what weights with a zero point have too much of */
static int32_t excess(const lmcu_dense_t *p, const int16_t *patch)
{
    int32_t sum = 0;
    for (int32_t i = 0; p->weight_zero_point != 0 && i < lmcu_patch_length(p->k); ++i) {
        sum += patch[i];
    }
    return p->weight_zero_point * sum;
}

/* A function of its own: what it needs would not leave the others registers. */
LMCU_NOINLINE static int8_t large_output(int32_t acc, uint64_t multiplier, uint32_t shift, int32_t zero_point,
                                         const lmcu_clamp_t *clamp)
{
    return lmcu_to_output(lmcu_round_half_away(acc, multiplier, shift), zero_point, clamp);
}

/* y of `rows` outputs from o */
static void write_outputs(const lmcu_dense_t *p, int32_t o, int32_t rows, const int32_t *acc, int8_t *restrict y)
{
    const int32_t step = p->requant.per_channel ? 1 : 0, zero_point = p->output_zero_point;
    const lmcu_clamp_t clamp = p->clamp;
    const uint64_t *multiplier = p->requant.multiplier + o * step;
    const uint8_t *shift = p->requant.shift + o * step;
    for (int32_t i = 0; i < rows; ++i, multiplier += step, shift += step) {
        if (*shift >= 65u) { /* as most are */
            const int32_t value = lmcu_round_half_away_small(acc[i], *multiplier, *shift);
            y[i] = (int8_t)lmcu_clamp_i32(value + zero_point, clamp.act_min, clamp.act_max);
        } else {
            y[i] = large_output(acc[i], *multiplier, *shift, zero_point, &clamp);
        }
    }
}

/* Outputs [first, end) of one row: y [m]. f and t are NULL without an adapter, or where `bias`, from output `first` on, holds what it
 * adds. */
static void forward_row(const lmcu_dense_t *p, const lmcu_factors_t *f, const lmcu_projection_t *t, const int32_t *bias,
                        const int16_t *patch, int32_t too_much, int32_t first, int32_t end, int8_t *y)
{
    for (int32_t o = first; o < end; o += 4) {
        const int32_t rows = end - o < 4 ? end - o : 4;
        int32_t acc[4];
        lmcu_dot_block(patch, p->weights + (intptr_t)o * p->k, bias ? bias + (o - first) : 0, p->k, rows, acc);
        for (int32_t i = 0; too_much != 0 && i < rows; ++i) {
            acc[i] -= too_much;
        }
        if (f) {
            lmcu_lora_add(f, t, o, rows, acc);
        }
        write_outputs(p, o, rows, acc, y + o);
    }
}

#if LMCU_NUMERICS_I16
enum { BLOCK = 64 };      /* outputs whose biases take in what the adapter adds at a time */

/* One row of an adapted layer, whose weights have no zero point. */
static void forward_in_blocks(const lmcu_dense_t *p, const lmcu_factors_t *f, const lmcu_projection_t *t, const int16_t *patch,
                              int8_t *y)
{
    int32_t with_delta[BLOCK];
    for (int32_t o = 0; o < p->m; o += BLOCK) {
        const int32_t count = p->m - o < BLOCK ? p->m - o : BLOCK;
        const int32_t *bias = p->bias ? p->bias + o : 0;
        if (lmcu_lora_bias(f, t, bias, o, count, with_delta)) {
            forward_row(p, 0, t, with_delta, patch, 0, o, o + count, y);
        } else {
            forward_row(p, f, t, bias, patch, 0, o, o + count, y);
        }
    }
}
#endif

void lmcu_dense_forward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch)
{
    int16_t *patch = scratch;
    lmcu_projection_t t;
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_direct(lora, p->k, p->m);
    }
    for (int32_t row = 0; row < p->batch; ++row, x += p->k, y += p->m) {
        load_patch(p, x, patch);
        const int32_t too_much = excess(p, patch);
        if (lora) {
            lmcu_lora_project(&f, patch, LMCU_GROUP, &t);
        }
#if LMCU_NUMERICS_I16
        if (lora && p->k <= LMCU_SMALL_K) {
            forward_in_blocks(p, &f, &t, patch, y);
            continue;
        }
#endif
        forward_row(p, lora ? &f : 0, &t, p->bias, patch, too_much, 0, p->m, y);
    }
}

#if !LMCU_NUMERICS_I16
void lmcu_dense_backward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                         float *dx, void *scratch)
{
    int16_t *patch = scratch;
    float *val = (float *)(void *)(patch + lmcu_patch_length(p->k));
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
            load_patch(p, x, patch);
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

#else
/* words in the place of dy, then the patch, val [k], and what lmcu_layer_begin asks for */
void lmcu_dense_backward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                         float *dx, void *scratch)
{
    int16_t *patch = scratch;
    int32_t *val = (int32_t *)(void *)(patch + lmcu_patch_length(p->k));
    lmcu_layer_t l = {.lora = lora, .weights = p->weights, .weight_zero_point = p->weight_zero_point,
                      .positions = p->batch, .k = p->k, .m = p->m, .words = dy};
    const lmcu_gradient_t found = lmcu_layer_begin(&l, p->block, dy, p->batch, val + (dx ? p->k : 0));
    if (found == LMCU_GRADIENT_NOT_FINITE) {
        lmcu_layer_poison(lora, dx, p->batch * p->k);
    }
    for (int32_t row = 0; found == LMCU_GRADIENT_READY && row < p->batch; ++row, x += p->k, y += p->m, dy += p->m) {
        if (lmcu_layer_list(&l, dy, y, &p->clamp) == 0) {
            continue;
        }
        if (lora) {
            load_patch(p, x, patch);
            lmcu_layer_adapter(&l, row, patch);
        }
        if (dx) {
            lmcu_layer_values(&l, val);
            lmcu_layer_add_values(val, p->k, l.value_unit, dx + (intptr_t)row * p->k);
        }
    }
    if (found == LMCU_GRADIENT_READY) {
        lmcu_layer_end(&l);
    }
}
#endif

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

enum { BLOCK = 64 }; /* outputs whose biases take in what the adapter adds at a time */

/* Some outputs of one row: what their sums begin with, from the first of them on, or NULL; what the adapter adds where that
 * may overflow, else NULL; z_w times the patch's sum. */
typedef struct {
    int32_t first, end;
    const int32_t *bias, *beside;
    int32_t too_much;
} part_t;

/* y of output o; not copied into its loop */
LMCU_NOINLINE static int8_t output(const lmcu_dense_t *p, int32_t acc, int32_t o)
{
    const int32_t at = p->requant.per_channel ? o : 0;
    const uint64_t multiplier = p->requant.multiplier[at];
    const uint32_t shift = p->requant.shift ? p->requant.shift[at] : 0u;
    int32_t value = 0;
    if (shift == 0u) { /* as most are */
        value = lmcu_quick_output(acc, multiplier, 2 * p->output_zero_point + 1);
    } else if (shift >= 65u) {
        value = lmcu_round_half_away_small(acc, multiplier, shift) + p->output_zero_point;
    } else {
        return large_output(acc, multiplier, shift, p->output_zero_point, &p->clamp);
    }
    return (int8_t)lmcu_clamp_i32(value, p->clamp.act_min, p->clamp.act_max);
}

static void forward_part(const lmcu_dense_t *p, const part_t *part, const int16_t *patch, int8_t *y)
{
    for (int32_t o = part->first; o < part->end; o += 4) {
        const int32_t rows = part->end - o < 4 ? part->end - o : 4, at = o - part->first;
        int32_t acc[4];
        lmcu_dot_block(patch, p->weights + (intptr_t)o * p->k, part->bias ? part->bias + at : 0, p->k, rows, acc);
        for (int32_t i = 0; i < rows; ++i) {
            acc[i] -= part->too_much;
            acc[i] = part->beside ? lmcu_add_limited(acc[i], part->beside[at + i]) : acc[i];
            y[o + i] = output(p, acc[i], o + i);
        }
    }
}

#if LMCU_DSP
/* Whether forward_pairs serves the layer: whole words of weights, quick outputs clamped to int8 only. */
static int is_for_pairs(const lmcu_dense_t *p)
{
    int pairs = p->bias && p->k % 8 == 0 && (uintptr_t)p->weights % 4u == 0u && p->weight_zero_point == 0 &&
                lmcu_clamps_to_int8(&p->clamp);
    for (int32_t o = 0; p->requant.shift && o < (p->requant.per_channel ? p->m : 1); ++o) {
        pairs = pairs && p->requant.shift[o] == 0u;
    }
    return pairs;
}

/* The same, two outputs at a time of two or more; of an odd number the last but one is computed twice. */
LMCU_NOINLINE static void forward_pairs(const lmcu_dense_t *p, const part_t *part, const int16_t *patch, int8_t *y)
{
    const int32_t k = p->k, step = p->requant.per_channel ? 1 : 0, offset = 2 * p->output_zero_point + 1;
    const int8_t *w = p->weights + (intptr_t)part->first * k;
    const uint64_t *multiplier = p->requant.multiplier + part->first * step;
    const int32_t *bias = part->bias;
    y += part->first;
    for (int32_t left = part->end - part->first; left > 0; left -= 2) {
        if (left == 1) {
            w -= k;
            multiplier -= step;
            --bias;
            --y;
        }
        int32_t acc[2] = {bias[0], bias[1]};
        bias += 2;
        w = lmcu_dot_two(patch, w, k, acc);
        *y++ = lmcu_quick_output(acc[0], *multiplier, offset);
        multiplier += step;
        *y++ = lmcu_quick_output(acc[1], *multiplier, offset);
        multiplier += step;
    }
}
#else
static int is_for_pairs(const lmcu_dense_t *p)
{
    (void)p;
    return 0;
}

static void forward_pairs(const lmcu_dense_t *p, const part_t *part, const int16_t *patch, int8_t *y)
{
    (void)p, (void)part, (void)patch, (void)y;
}
#endif

/* One row. f is NULL without an adapter. */
static void forward_row(const lmcu_dense_t *p, const lmcu_factors_t *f, int pairs, const int16_t *patch, int8_t *y)
{
    part_t part = {0, p->m, p->bias, 0, excess(p, patch)};
    int32_t to[BLOCK];
    lmcu_projection_t t;
    if (f) {
        lmcu_lora_project(f, patch, LMCU_GROUP, &t);
    }
    for (; part.first < p->m; part.first = part.end) {
        if (f) {
            part.end = p->m - part.first < BLOCK ? p->m : part.first + BLOCK;
            part.bias = p->bias ? p->bias + part.first : 0;
            lmcu_lora_deltas(f, &t, f->lora->in_bias != 0 ? part.bias : 0, part.first, part.end - part.first, to);
            part.beside = f->lora->in_bias != 0 ? 0 : to;
            part.bias = f->lora->in_bias != 0 ? to : part.bias;
        }
        if (pairs && !part.beside && part.end - part.first > 1) {
            forward_pairs(p, &part, patch, y);
        } else {
            forward_part(p, &part, patch, y);
        }
    }
}

void lmcu_dense_forward(const lmcu_dense_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch)
{
    int16_t *patch = scratch;
    const int pairs = is_for_pairs(p);
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_direct(lora, p->k, p->m);
    }
    for (int32_t row = 0; row < p->batch; ++row, x += p->k, y += p->m) {
        load_patch(p, x, patch);
        forward_row(p, lora ? &f : 0, pairs, patch, y);
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

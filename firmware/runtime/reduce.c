/* SPDX-License-Identifier: Apache-2.0 */
/* Sum, mean and maximum over any dimensions: x seen as kept [k0][k1][k2] and reduced [r0][r1][r2] dimensions -> y [kept]. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"
#include "requant.h"

static const lmcu_clamp_t rails = {-128, 127, 0, 0};

/* Offset in x of the row-major index `i` over three dimensions. */
static intptr_t offset_of(const int32_t *sizes, const int32_t *strides, int32_t i)
{
    const int32_t inner = i % sizes[2], middle = i / sizes[2] % sizes[1], outer = i / sizes[2] / sizes[1];
    return (intptr_t)outer * strides[0] + (intptr_t)middle * strides[1] + (intptr_t)inner * strides[2];
}

static int32_t outputs(const lmcu_reduce_t *p)
{
    return p->kept[0] * p->kept[1] * p->kept[2];
}

static const int8_t *block(const lmcu_reduce_t *p, const int8_t *x, int32_t o)
{
    return x + offset_of(p->kept, p->kept_strides, o);
}

static int32_t sum_of(const lmcu_reduce_t *p, const int8_t *x)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < p->count; ++i) {
        sum += x[offset_of(p->reduced, p->reduced_strides, i)];
    }
    return sum;
}

/* Halves away from zero; far values saturate. */
static int32_t rounded(float value)
{
    float limited = value > -0x1p+20f ? value : -0x1p+20f;
    limited = limited < 0x1p+20f ? limited : 0x1p+20f;
    return lmcu_nearest(limited);
}

void lmcu_reduce_sum_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t o = 0; o < outputs(p); ++o) {
        const float value = (float)sum_of(p, block(p, x, o)) * p->scale + p->bias;
        y[o] = lmcu_to_output(rounded(value), p->output_zero_point, &rails);
    }
}

void lmcu_reduce_mean_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t o = 0; o < outputs(p); ++o) {
        const int32_t sum = sum_of(p, block(p, x, o)) - p->count * p->input_zero_point;
        y[o] = lmcu_to_output(lmcu_requant(sum, p->multiplier, p->shift), p->output_zero_point, &rails);
    }
}

void lmcu_reduce_backward(const lmcu_reduce_t *p, const int8_t *y, float *dy, float *dx)
{
    for (int32_t o = 0; o < outputs(p); ++o) {
        float *to = dx + offset_of(p->kept, p->kept_strides, o);
        dy[o] = lmcu_masked(dy[o], y[o], &rails);
        const float g = dy[o] * p->factor;
        for (int32_t i = 0; i < p->count; ++i) {
            const intptr_t at = offset_of(p->reduced, p->reduced_strides, i);
            to[at] = to[at] + g;
        }
    }
}

/* Offset of the first largest element. */
static intptr_t first_maximum(const lmcu_reduce_t *p, const int8_t *x)
{
    intptr_t best = 0;
    for (int32_t i = 1; i < p->count; ++i) {
        const intptr_t at = offset_of(p->reduced, p->reduced_strides, i);
        best = x[at] > x[best] ? at : best;
    }
    return best;
}

void lmcu_reduce_max_forward(const lmcu_reduce_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t o = 0; o < outputs(p); ++o) {
        const int8_t *from = block(p, x, o);
        y[o] = from[first_maximum(p, from)];
    }
}

void lmcu_reduce_max_backward(const lmcu_reduce_t *p, const int8_t *x, const float *dy, float *dx)
{
    for (int32_t o = 0; o < outputs(p); ++o) {
        const intptr_t at = offset_of(p->kept, p->kept_strides, o);
        float *to = dx + at + first_maximum(p, x + at);
        *to = *to + dy[o];
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Product of two activations: y[n][i][j] = RQ(bias[j] + sum_k (a[n][i][k] - z_a) * (b[n][j][k] - z_b)) + z_y. Steps between
 * elements say how a and b lie in memory (adjoint or not) and where a batch dimension is broadcast. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

/* Where matrix n of all batches begins. */
static int32_t batch_offset(const int32_t *batch, const int32_t *step, int32_t n)
{
    const int32_t outer = n / batch[2];
    return outer / batch[1] * step[0] + outer % batch[1] * step[1] + n % batch[2] * step[2];
}

/* patch = one row of a minus z_a; returns its sum */
static int32_t load_row(const lmcu_matmul_t *p, const int8_t *a, int16_t *patch)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < p->depth; ++k, a += p->a_depth) {
        patch[k] = (int16_t)(*a - p->a_zero_point);
        sum += patch[k];
    }
    return sum;
}

static int32_t dot(const int16_t *restrict patch, const int8_t *restrict b, int32_t depth)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < depth; ++k) {
        sum += patch[k] * (int16_t)b[k];
    }
    return sum;
}

/* acc[j] = sum_k patch[k] * b[j][k]: dot products where k is contiguous, else whole rows of j at a time */
static void products(const lmcu_matmul_t *p, const int16_t *patch, const int8_t *b, int32_t *restrict acc)
{
    for (int32_t j = 0; j < p->columns; ++j) {
        acc[j] = p->b_depth == 1 ? dot(patch, b + (intptr_t)j * p->b_column, p->depth) : 0;
    }
    if (p->b_depth == 1) {
        return;
    }
    for (int32_t k = 0; k < p->depth; ++k, b += p->b_depth) {
        const int32_t x = patch[k];
        for (int32_t j = 0; j < p->columns; ++j) {
            acc[j] += x * b[j];
        }
    }
}

static int64_t rescaled(const lmcu_matmul_t *p, int64_t acc)
{
    return p->round.multiplier ? lmcu_round_half_away(acc, p->round.multiplier[0], p->round.shift[0])
                               : lmcu_requant(acc, p->multiplier, p->shift);
}

/* scratch: int16 [depth], then int32 [columns] */
void lmcu_matmul_forward(const lmcu_matmul_t *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    int16_t *patch = scratch;
    int32_t *acc = (int32_t *)scratch + (p->depth + 1) / 2;
    const int32_t matrices = p->batch[0] * p->batch[1] * p->batch[2];
    for (int32_t n = 0; n < matrices; ++n) {
        const int8_t *row = a + batch_offset(p->batch, p->a_batch, n);
        const int8_t *other = b + batch_offset(p->batch, p->b_batch, n);
        for (int32_t i = 0; i < p->rows; ++i, row += p->a_row) {
            const int32_t offset = p->b_zero_point * load_row(p, row, patch);
            products(p, patch, other, acc);
            for (int32_t j = 0; j < p->columns; ++j) {
                const int64_t sum = (int64_t)acc[j] - offset + (p->bias ? p->bias[j] : 0);
                *y++ = lmcu_to_output(rescaled(p, sum), p->output_zero_point, &p->clamp);
            }
        }
    }
}

/* out[k] += factor * (x[k] - zero_point) for `count` elements */
LMCU_INLINE void add_scaled(float *out, int32_t out_step, float factor, const int8_t *x, int32_t x_step,
                            int32_t zero_point, int32_t count)
{
    for (int32_t k = 0; k < count; ++k, out += out_step, x += x_step) {
        *out = *out + factor * (float)(*x - zero_point);
    }
}

/* da[i][k] += (s_b * g[i][j]) * (b[j][k] - z_b), j ascending */
static void backward_a(const lmcu_matmul_t *p, const int8_t *b, const float *g, float *da)
{
    for (int32_t i = 0; i < p->rows; ++i, da += p->a_row) {
        for (int32_t j = 0; j < p->columns; ++j, ++g) {
            if (*g != 0.0f) {
                add_scaled(da, p->a_depth, p->b_scale * *g, b + (intptr_t)j * p->b_column, p->b_depth, p->b_zero_point,
                           p->depth);
            }
        }
    }
}

/* db[j][k] += (s_a * g[i][j]) * (a[i][k] - z_a), i ascending */
static void backward_b(const lmcu_matmul_t *p, const int8_t *a, const float *g, float *db)
{
    for (int32_t i = 0; i < p->rows; ++i, a += p->a_row) {
        for (int32_t j = 0; j < p->columns; ++j, ++g) {
            if (*g != 0.0f) {
                add_scaled(db + (intptr_t)j * p->b_column, p->b_depth, p->a_scale * *g, a, p->a_depth, p->a_zero_point,
                           p->depth);
            }
        }
    }
}

void lmcu_matmul_backward(const lmcu_matmul_t *p, const int8_t *a, const int8_t *b, const int8_t *y, float *dy, float *da,
                          float *db)
{
    const int32_t matrices = p->batch[0] * p->batch[1] * p->batch[2];
    const int32_t size = p->rows * p->columns;
    for (int32_t i = 0; i < matrices * size; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], &p->clamp);
    }
    for (int32_t n = 0; da && n < matrices; ++n) {
        backward_a(p, b + batch_offset(p->batch, p->b_batch, n), dy + (intptr_t)n * size,
                   da + batch_offset(p->batch, p->a_batch, n));
    }
    for (int32_t n = 0; db && n < matrices; ++n) {
        backward_b(p, a + batch_offset(p->batch, p->a_batch, n), dy + (intptr_t)n * size,
                   db + batch_offset(p->batch, p->b_batch, n));
    }
}

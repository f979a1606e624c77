/* SPDX-License-Identifier: Apache-2.0 */
/* y = a * b with broadcasting. */
#include "lmcu_strict.h"

#include "broadcast.h"
#include "lmcu_ops.h"
#include "requant.h"

void lmcu_mul_forward(const lmcu_mul_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, y += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t left = a[at.a + i * p->shape.a_strides[3]] - p->a_zero_point;
            const int32_t right = b[at.b + i * p->shape.b_strides[3]] - p->b_zero_point;
            const int32_t product = lmcu_requant(left * right, p->multiplier, p->shift);
            y[i] = lmcu_limited(product, p->output_zero_point, &p->clamp);
        }
    }
}

/* dx += dy * the other operand in real units, broadcast elements in the output's order */
LMCU_INLINE void accumulate(const lmcu_mul_t *p, int is_b, const int8_t *other, const float *dy, float *dx)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    const int32_t step = is_b ? p->shape.b_strides[3] : p->shape.a_strides[3];
    const int32_t other_step = is_b ? p->shape.a_strides[3] : p->shape.b_strides[3];
    const int32_t zero_point = is_b ? p->a_zero_point : p->b_zero_point;
    const float scale = is_b ? p->a_scale : p->b_scale;
    for (int32_t row = 0; row < rows; ++row, dy += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        const int8_t *from = other + (is_b ? at.a : at.b);
        float *to = dx + (is_b ? at.b : at.a);
        for (int32_t i = 0; i < count; ++i) {
            const float value = scale * (float)(from[i * other_step] - zero_point);
            to[i * step] = to[i * step] + dy[i] * value;
        }
    }
}

void lmcu_mul_backward(const lmcu_mul_t *p, const int8_t *a, const int8_t *b, const int8_t *y, float *dy, float *da, float *db)
{
    lmcu_mask_all(&p->shape, &p->clamp, y, dy);
    if (da) {
        accumulate(p, 0, b, dy, da);
    }
    if (db) {
        accumulate(p, 1, a, dy, db);
    }
}

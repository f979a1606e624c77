/* SPDX-License-Identifier: Apache-2.0 */
/* y = a + b and y = a - b with broadcasting, each operand rescaled to a common fixed-point scale first. */
#include "lmcu_strict.h"

#include "broadcast.h"
#include "lmcu_ops.h"
#include "requant.h"

LMCU_INLINE int32_t rescaled(int32_t value, int32_t left_shift, int32_t multiplier, int32_t shift)
{
    return lmcu_multiply(value * (int32_t)(1u << left_shift), multiplier, shift);
}

LMCU_INLINE void forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t sign)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    const int32_t a_step = p->shape.a_strides[3];
    const int32_t b_step = p->shape.b_strides[3];
    for (int32_t row = 0; row < rows; ++row, y += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t left = a[at.a + i * a_step] - p->a_zero_point;
            const int32_t right = b[at.b + i * b_step] - p->b_zero_point;
            const int32_t sum = rescaled(left, p->left_shift, p->a_multiplier, p->a_shift) +
                                sign * rescaled(right, p->left_shift, p->b_multiplier, p->b_shift);
            y[i] = lmcu_limited(lmcu_multiply(sum, p->output_multiplier, p->output_shift), p->output_zero_point, &p->clamp);
        }
    }
}

/* dx += sign * dy, broadcast elements in the output's order */
LMCU_INLINE void accumulate(const lmcu_broadcast_t *s, int is_b, float sign, const float *dy, float *dx)
{
    const int32_t rows = lmcu_rows(s);
    const int32_t count = s->dims[3];
    const int32_t step = is_b ? s->b_strides[3] : s->a_strides[3];
    for (int32_t row = 0; row < rows; ++row, dy += count) {
        const lmcu_row_t at = lmcu_row(s, row);
        float *to = dx + (is_b ? at.b : at.a);
        for (int32_t i = 0; i < count; ++i) {
            to[i * step] = to[i * step] + sign * dy[i];
        }
    }
}

LMCU_INLINE void backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db, float sign)
{
    lmcu_mask_all(&p->shape, &p->clamp, y, dy);
    if (da) {
        accumulate(&p->shape, 0, 1.0f, dy, da);
    }
    if (db) {
        accumulate(&p->shape, 1, sign, dy, db);
    }
}

void lmcu_add_forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    forward(p, a, b, y, 1);
}

void lmcu_add_backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db)
{
    backward(p, y, dy, da, db, 1.0f);
}

void lmcu_sub_forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    forward(p, a, b, y, -1);
}

void lmcu_sub_backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db)
{
    backward(p, y, dy, da, db, -1.0f);
}

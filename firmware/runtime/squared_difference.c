/* SPDX-License-Identifier: Apache-2.0 */
/* y = (a - b)^2 with broadcasting, each operand rescaled to a common fixed-point scale first. */
#include "lmcu_strict.h"

#include "broadcast.h"
#include "lmcu_ops.h"
#include "requant.h"

LMCU_INLINE int32_t rescaled(int32_t value, int32_t multiplier, int32_t shift)
{
    return lmcu_multiply(value * 128, multiplier, shift); /* 7 bits of headroom: the square stays below 2^31 */
}

void lmcu_squared_difference_forward(const lmcu_squared_difference_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, y += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t left = a[at.a + i * p->shape.a_strides[3]] - p->a_zero_point;
            const int32_t right = b[at.b + i * p->shape.b_strides[3]] - p->b_zero_point;
            const int32_t difference =
                rescaled(left, p->a_multiplier, p->a_shift) - rescaled(right, p->b_multiplier, p->b_shift);
            const int32_t value = lmcu_multiply(difference * difference, p->output_multiplier, p->output_shift);
            y[i] = lmcu_limited(value, p->output_zero_point, &p->clamp);
        }
    }
}

/* d(y)/da = 2 (a - b) = -d(y)/db in real units; broadcast elements in the output's order */
LMCU_INLINE void accumulate(const lmcu_squared_difference_t *p, int is_b, const int8_t *a, const int8_t *b, const float *dy,
                            float *dx)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, dy += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t from_a = at.a + i * p->shape.a_strides[3];
            const int32_t from_b = at.b + i * p->shape.b_strides[3];
            const float left = p->a_scale * (float)(a[from_a] - p->a_zero_point);
            const float right = p->b_scale * (float)(b[from_b] - p->b_zero_point);
            const float share = dy[i] * (2.0f * (left - right));
            float *to = dx + (is_b ? from_b : from_a);
            *to = *to + (is_b ? -share : share);
        }
    }
}

void lmcu_squared_difference_backward(const lmcu_squared_difference_t *p, const int8_t *a, const int8_t *b, const int8_t *y,
                                      float *dy, float *da, float *db)
{
    lmcu_mask_all(&p->shape, &p->clamp, y, dy);
    if (da) {
        accumulate(p, 0, a, b, dy, da);
    }
    if (db) {
        accumulate(p, 1, a, b, dy, db);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Two operands over an output of four dimensions, row by row; a stride of 0 repeats an operand. */
#ifndef LMCU_BROADCAST_H
#define LMCU_BROADCAST_H

#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

typedef struct {
    int32_t a, b; /* element offsets of a row's first operands */
} lmcu_row_t;

LMCU_INLINE int32_t lmcu_rows(const lmcu_broadcast_t *s)
{
    return s->dims[0] * s->dims[1] * s->dims[2];
}

LMCU_INLINE lmcu_row_t lmcu_row(const lmcu_broadcast_t *s, int32_t row)
{
    const int32_t i2 = row % s->dims[2];
    const int32_t rest = row / s->dims[2];
    const int32_t i1 = rest % s->dims[1];
    const int32_t i0 = rest / s->dims[1];
    lmcu_row_t at;
    at.a = i0 * s->a_strides[0] + i1 * s->a_strides[1] + i2 * s->a_strides[2];
    at.b = i0 * s->b_strides[0] + i1 * s->b_strides[1] + i2 * s->b_strides[2];
    return at;
}

/* value + zero_point into [act_min, act_max], whatever the value */
LMCU_INLINE int8_t lmcu_limited(int32_t value, int32_t zero_point, const lmcu_clamp_t *clamp)
{
    return (int8_t)(lmcu_clamp_i32(value, clamp->act_min - zero_point, clamp->act_max - zero_point) + zero_point);
}

/* Masks the gradient of the whole output in place. */
LMCU_INLINE void lmcu_mask_all(const lmcu_broadcast_t *s, const lmcu_clamp_t *clamp, const int8_t *y, float *dy)
{
    const int32_t count = lmcu_rows(s) * s->dims[3];
    for (int32_t i = 0; i < count; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], clamp);
    }
}

#endif

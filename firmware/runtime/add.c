/* SPDX-License-Identifier: Apache-2.0 */
/* y = a + b, each rescaled to a common fixed-point scale first; b may be one element for all. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

LMCU_INLINE int32_t rescaled(int32_t value, int32_t left_shift, int32_t multiplier, int32_t shift)
{
    return lmcu_multiply(value * (int32_t)(1u << left_shift), multiplier, shift);
}

void lmcu_add_forward(const lmcu_add_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t b_step = p->b_count == 1 ? 0 : 1;
    for (int32_t i = 0; i < p->count; ++i, b += b_step) {
        const int32_t sum = rescaled(a[i] - p->a_zero_point, p->left_shift, p->a_multiplier, p->a_shift) +
                            rescaled(*b - p->b_zero_point, p->left_shift, p->b_multiplier, p->b_shift);
        y[i] = lmcu_to_output(lmcu_multiply(sum, p->output_multiplier, p->output_shift), p->output_zero_point, &p->clamp);
    }
}

void lmcu_add_backward(const lmcu_add_t *p, const int8_t *y, float *dy, float *da, float *db)
{
    const int32_t b_step = p->b_count == 1 ? 0 : 1;
    for (int32_t i = 0; i < p->count; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], &p->clamp);
    }
    if (da) {
        for (int32_t i = 0; i < p->count; ++i) {
            da[i] = da[i] + dy[i];
        }
    }
    if (db) {
        for (int32_t i = 0; i < p->count; ++i, db += b_step) {
            *db = *db + dy[i];
        }
    }
}

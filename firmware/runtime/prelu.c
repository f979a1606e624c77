/* SPDX-License-Identifier: Apache-2.0 */
/* y = x where x >= 0, else alpha * x, with constant slopes per channel or element (operand b of the broadcast). */
#include "lmcu_strict.h"

#include "broadcast.h"
#include "lmcu_ops.h"
#include "requant.h"

void lmcu_prelu_forward(const lmcu_prelu_t *p, const int8_t *x, const int8_t *alpha, int8_t *y)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, y += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t value = x[at.a + i * p->shape.a_strides[3]] - p->input_zero_point;
            const int32_t slope = alpha[at.b + i * p->shape.b_strides[3]] - p->alpha_zero_point;
            const int32_t scaled = value >= 0 ? lmcu_requant(value, p->multiplier, p->shift)
                                              : lmcu_requant(value * slope, p->alpha_multiplier, p->alpha_shift);
            y[i] = lmcu_limited(scaled, p->output_zero_point, &p->clamp);
        }
    }
}

void lmcu_prelu_backward(const lmcu_prelu_t *p, const int8_t *x, const int8_t *alpha, const int8_t *y, float *dy, float *dx)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    lmcu_mask_all(&p->shape, &p->clamp, y, dy);
    for (int32_t row = 0; row < rows; ++row, dy += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t from = at.a + i * p->shape.a_strides[3];
            const int32_t slope = alpha[at.b + i * p->shape.b_strides[3]] - p->alpha_zero_point;
            dx[from] = dx[from] + (x[from] > p->input_zero_point ? dy[i] : dy[i] * (p->alpha_scale * (float)slope));
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The larger (sign 1) or smaller (sign -1) of two int8 values of one quantization, with broadcasting. */
#include "lmcu_strict.h"

#include "broadcast.h"
#include "lmcu_ops.h"

void lmcu_extremum_forward(const lmcu_extremum_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, y += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int8_t left = a[at.a + i * p->shape.a_strides[3]];
            const int8_t right = b[at.b + i * p->shape.b_strides[3]];
            y[i] = p->sign * (left - right) >= 0 ? left : right;
        }
    }
}

/* The gradient goes to the operand that was taken, to a where both are equal. Nothing is clamped, so nothing is masked. */
void lmcu_extremum_backward(const lmcu_extremum_t *p, const int8_t *a, const int8_t *b, float *dy, float *da, float *db)
{
    const int32_t rows = lmcu_rows(&p->shape);
    const int32_t count = p->shape.dims[3];
    for (int32_t row = 0; row < rows; ++row, dy += count) {
        const lmcu_row_t at = lmcu_row(&p->shape, row);
        for (int32_t i = 0; i < count; ++i) {
            const int32_t from_a = at.a + i * p->shape.a_strides[3];
            const int32_t from_b = at.b + i * p->shape.b_strides[3];
            float *to = p->sign * (a[from_a] - b[from_b]) >= 0 ? (da ? da + from_a : 0) : (db ? db + from_b : 0);
            if (to) {
                *to = *to + dy[i];
            }
        }
    }
}

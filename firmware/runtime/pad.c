/* SPDX-License-Identifier: Apache-2.0 */
/* Padding with a constant: x [d0][d1][d2][d3] -> y, each dimension longer by before + after. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_ops.h"

static intptr_t padded(const lmcu_pad_t *p, int32_t axis)
{
    return (intptr_t)p->before[axis] + p->dims[axis] + p->after[axis];
}

/* Where the row x[i0][i1][i2][:] begins in y. */
static intptr_t row_offset(const lmcu_pad_t *p, int32_t i0, int32_t i1, int32_t i2)
{
    const intptr_t outer = ((i0 + p->before[0]) * padded(p, 1) + i1 + p->before[1]) * padded(p, 2) + i2 + p->before[2];
    return outer * padded(p, 3) + p->before[3];
}

void lmcu_pad_forward(const lmcu_pad_t *p, const int8_t *x, int8_t *y)
{
    memset(y, p->value, (size_t)(padded(p, 0) * padded(p, 1) * padded(p, 2) * padded(p, 3)));
    for (int32_t i0 = 0; i0 < p->dims[0]; ++i0) {
        for (int32_t i1 = 0; i1 < p->dims[1]; ++i1) {
            for (int32_t i2 = 0; i2 < p->dims[2]; ++i2, x += p->dims[3]) {
                memcpy(y + row_offset(p, i0, i1, i2), x, (size_t)p->dims[3]);
            }
        }
    }
}

void lmcu_pad_backward(const lmcu_pad_t *p, const float *dy, float *dx)
{
    for (int32_t i0 = 0; i0 < p->dims[0]; ++i0) {
        for (int32_t i1 = 0; i1 < p->dims[1]; ++i1) {
            for (int32_t i2 = 0; i2 < p->dims[2]; ++i2, dx += p->dims[3]) {
                const float *from = dy + row_offset(p, i0, i1, i2);
                for (int32_t i3 = 0; i3 < p->dims[3]; ++i3) {
                    dx[i3] = dx[i3] + from[i3];
                }
            }
        }
    }
}

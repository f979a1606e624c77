/* SPDX-License-Identifier: Apache-2.0 */
/* Elements by constant index, one table a dimension: y[i] = x[index[0][i0]][index[1][i1]][index[2][i2]][index[3][i3]].
 * Nearest-neighbour resizing, mirrored padding, gathering along an axis. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_ops.h"

static intptr_t source(const lmcu_take_t *p, int32_t axis, int32_t i)
{
    return p->index[axis] ? p->index[axis][i] : i;
}

/* Where the row of x begins that output row (i0, i1, i2) takes from. */
static intptr_t row_offset(const lmcu_take_t *p, int32_t i0, int32_t i1, int32_t i2)
{
    const intptr_t outer = (source(p, 0, i0) * p->in[1] + source(p, 1, i1)) * p->in[2] + source(p, 2, i2);
    return outer * p->in[3];
}

static void take_row(const lmcu_take_t *p, const int8_t *x, int8_t *y)
{
    if (!p->index[3]) {
        memcpy(y, x, (size_t)p->out[3]);
        return;
    }
    for (int32_t i = 0; i < p->out[3]; ++i) {
        y[i] = x[p->index[3][i]];
    }
}

static void add_row(const lmcu_take_t *p, const float *dy, float *dx)
{
    for (int32_t i = 0; i < p->out[3]; ++i) {
        float *to = dx + source(p, 3, i);
        *to = *to + dy[i];
    }
}

void lmcu_take_forward(const lmcu_take_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t i0 = 0; i0 < p->out[0]; ++i0) {
        for (int32_t i1 = 0; i1 < p->out[1]; ++i1) {
            for (int32_t i2 = 0; i2 < p->out[2]; ++i2, y += p->out[3]) {
                take_row(p, x + row_offset(p, i0, i1, i2), y);
            }
        }
    }
}

void lmcu_take_backward(const lmcu_take_t *p, const float *dy, float *dx)
{
    for (int32_t i0 = 0; i0 < p->out[0]; ++i0) {
        for (int32_t i1 = 0; i1 < p->out[1]; ++i1) {
            for (int32_t i2 = 0; i2 < p->out[2]; ++i2, dy += p->out[3]) {
                add_row(p, dy, dx + row_offset(p, i0, i1, i2));
            }
        }
    }
}

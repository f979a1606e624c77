/* SPDX-License-Identifier: Apache-2.0 */
/* One block of elements from x to y, each side with its own start and strides: concatenation, slices, splits, transposes.
 * y[y_start + i . y_strides] = x[x_start + i . x_strides] for all i in dims [d0][d1][d2][d3][d4]. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_ops.h"

/* The row [d4] that belongs to an outer index. */
typedef struct {
    intptr_t x, y;
} row_t;

static row_t row_at(const lmcu_strided_copy_t *p, const int32_t *i)
{
    row_t row = {p->x_start, p->y_start};
    for (int32_t d = 0; d < 4; ++d) {
        row.x += (intptr_t)i[d] * p->x_strides[d];
        row.y += (intptr_t)i[d] * p->y_strides[d];
    }
    return row;
}

/* The next outer index in row-major order; 0 behind the last. */
static int next_row(const lmcu_strided_copy_t *p, int32_t *i)
{
    for (int32_t d = 3; d >= 0; --d) {
        if (++i[d] < p->dims[d]) {
            return 1;
        }
        i[d] = 0;
    }
    return 0;
}

void lmcu_strided_copy_forward(const lmcu_strided_copy_t *p, const int8_t *x, int8_t *y)
{
    const int32_t step_x = p->x_strides[4], step_y = p->y_strides[4];
    int32_t i[4] = {0, 0, 0, 0};
    do {
        const row_t row = row_at(p, i);
        if (step_x == 1 && step_y == 1) {
            memcpy(y + row.y, x + row.x, (size_t)p->dims[4]);
            continue;
        }
        for (int32_t k = 0; k < p->dims[4]; ++k) {
            y[row.y + (intptr_t)k * step_y] = x[row.x + (intptr_t)k * step_x];
        }
    } while (next_row(p, i));
}

void lmcu_strided_copy_backward(const lmcu_strided_copy_t *p, const float *dy, float *dx)
{
    const int32_t step_x = p->x_strides[4], step_y = p->y_strides[4];
    int32_t i[4] = {0, 0, 0, 0};
    do {
        const row_t row = row_at(p, i);
        for (int32_t k = 0; k < p->dims[4]; ++k) {
            float *to = dx + row.x + (intptr_t)k * step_x;
            *to = *to + dy[row.y + (intptr_t)k * step_y];
        }
    } while (next_row(p, i));
}

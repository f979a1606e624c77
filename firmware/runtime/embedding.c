/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a table by an index: x [count] -> y [count][width]. Indices are untrusted (they are the model's input): whatever
 * they say, the row that is read lies in the table. No gradient passes: table and indices are constants to training. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_ops.h"

static void copy_row(const lmcu_embedding_t *p, int32_t index, int8_t *y)
{
    const int32_t shifted = index < 0 && p->wraps != 0 ? index + p->rows : index;
    const int32_t row = shifted < 0 ? 0 : shifted >= p->rows ? p->rows - 1 : shifted;
    memcpy(y, p->table + (size_t)row * (size_t)p->width, (size_t)p->width);
}

void lmcu_embedding_i32(const lmcu_embedding_t *p, const int32_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        copy_row(p, x[i], y + (size_t)i * (size_t)p->width);
    }
}

/* Truncated; rows is at most 2^24, so the limits lose nothing. NaN counts as 0. */
void lmcu_embedding_f32(const lmcu_embedding_t *p, const float *x, int8_t *y)
{
    const float limit = 33554432.0f;
    for (int32_t i = 0; i < p->count; ++i) {
        const float v = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i] == x[i] ? x[i] : 0.0f;
        copy_row(p, (int32_t)v, y + (size_t)i * (size_t)p->width);
    }
}

/* row_of[256] from the compiler: all its rows lie in the table. */
void lmcu_embedding_i8(const lmcu_embedding_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        copy_row(p, p->row_of[x[i] + 128], y + (size_t)i * (size_t)p->width);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Depth-first execution: operators make one row at a time from the rows of their inputs that are still in memory. The
 * kernels are the usual ones, called with one row of output. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "lmcu_ops.h"

void lmcu_stripe_run(const lmcu_stripe_t *s, uint8_t *arena)
{
    lmcu_band_t *bands = (lmcu_band_t *)(void *)(arena + s->table);
    memcpy(bands, s->bands, (size_t)s->band_count * sizeof *bands);
    for (const uint8_t *event = s->order, *end = event + 2 * s->events; event != end; event += 2) {
        lmcu_band_t *out = &bands[event[0]];
        const int32_t drop = event[1];
        if (drop > 0) {
            uint8_t *rows = arena + out->offset;
            out->first += drop;
            memmove(rows, rows + drop * out->row_bytes, (size_t)((out->end - out->first) * out->row_bytes));
        }
        s->row(event[0], bands);
        ++out->end;
    }
}

static int8_t *begin(uint8_t *arena, const lmcu_band_t *band)
{
    return (int8_t *)arena + band->offset;
}

/* Where a row stands that is in memory. */
static int8_t *row_at(uint8_t *arena, const lmcu_band_t *band, int32_t row)
{
    return begin(arena, band) + (row - band->first) * band->row_bytes;
}

/* The convolution that makes the next row of y from what is there of x. */
static lmcu_conv2d_t one_row(const lmcu_conv2d_t *p, const lmcu_band_t *x, const lmcu_band_t *y)
{
    lmcu_conv2d_t one = *p;
    one.out_h = 1;
    one.in_h = p->in_h - x->first;
    one.pad_top = p->pad_top + x->first - y->end * p->stride_h;
    return one;
}

void lmcu_conv2d_row(const lmcu_conv2d_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y, void *scratch)
{
    const lmcu_conv2d_t one = one_row(p, x, y);
    lmcu_conv2d_forward(&one, NULL, begin(arena, x), row_at(arena, y, y->end), scratch);
}

void lmcu_depthwise_row(const lmcu_depthwise_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y)
{
    lmcu_depthwise_t one = *p;
    one.conv = one_row(&p->conv, x, y);
    lmcu_depthwise_forward(&one, begin(arena, x), row_at(arena, y, y->end));
}

static lmcu_pool_t one_pooled_row(const lmcu_pool_t *p, const lmcu_band_t *x, const lmcu_band_t *y)
{
    lmcu_pool_t one = *p;
    one.out_h = 1;
    one.in_h = p->in_h - x->first;
    one.pad_top = p->pad_top + x->first - y->end * p->stride_h;
    return one;
}

void lmcu_average_pool_row(const lmcu_pool_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y)
{
    const lmcu_pool_t one = one_pooled_row(p, x, y);
    lmcu_average_pool_forward(&one, begin(arena, x), row_at(arena, y, y->end));
}

void lmcu_max_pool_row(const lmcu_pool_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y)
{
    const lmcu_pool_t one = one_pooled_row(p, x, y);
    lmcu_max_pool_forward(&one, begin(arena, x), row_at(arena, y, y->end));
}

void lmcu_add_row(const lmcu_add_t *p, uint8_t *arena, const lmcu_band_t *a, const lmcu_band_t *b, const lmcu_band_t *y)
{
    static const lmcu_broadcast_t run = {{1, 1, 1, 1}, {0, 0, 0, 1}, {0, 0, 0, 1}};
    lmcu_add_t one = *p;
    one.shape = run;
    one.shape.dims[3] = y->row_bytes;
    lmcu_add_forward(&one, row_at(arena, a, y->end), row_at(arena, b, y->end), row_at(arena, y, y->end));
}

void lmcu_lookup_row(const lmcu_lookup_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y)
{
    lmcu_lookup_t one = *p;
    one.count = y->row_bytes;
    lmcu_lookup_forward(&one, row_at(arena, x, y->end), row_at(arena, y, y->end));
}

void lmcu_pad_row(const lmcu_pad_t *p, uint8_t *arena, const lmcu_band_t *x, const lmcu_band_t *y)
{
    const int32_t row = y->end - p->before[1];
    lmcu_pad_t one = *p;
    one.before[1] = 0;
    one.after[1] = 0;
    one.dims[1] = 1;
    if (row < 0 || row >= p->dims[1]) { /* a row of padding alone */
        memset(row_at(arena, y, y->end), p->value, (size_t)y->row_bytes);
    } else {
        lmcu_pad_forward(&one, row_at(arena, x, row), row_at(arena, y, y->end));
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Maximum of each window's valid part: x [in_h][in_w][channels] -> y [out_h][out_w][channels], equal scales. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "pool.h"
#include "requant.h"

/* Offset in x of the first maximum of channel c in row-major order. */
static intptr_t first_maximum(const lmcu_pool_t *p, const lmcu_window_t *w, const int8_t *x, int32_t c)
{
    intptr_t best = ((intptr_t)w->y0 * p->in_w + w->x0) * p->channels + c;
    for (int32_t iy = w->y0; iy < w->y1; ++iy) {
        intptr_t at = ((intptr_t)iy * p->in_w + w->x0) * p->channels + c;
        for (int32_t ix = w->x0; ix < w->x1; ++ix, at += p->channels) {
            best = x[at] > x[best] ? at : best;
        }
    }
    return best;
}

void lmcu_max_pool_forward(const lmcu_pool_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const lmcu_window_t w = lmcu_pool_window(p, oy, ox);
            for (int32_t c = 0; c < p->channels; ++c) {
                const int8_t max = x[first_maximum(p, &w, x, c)];
                *y++ = (int8_t)lmcu_clamp_i32(max, p->clamp.act_min, p->clamp.act_max);
            }
        }
    }
}

void lmcu_max_pool_backward(const lmcu_pool_t *p, const int8_t *x, const int8_t *y, float *dy, float *dx)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const lmcu_window_t w = lmcu_pool_window(p, oy, ox);
            for (int32_t c = 0; c < p->channels; ++c, ++dy, ++y) {
                *dy = lmcu_masked(*dy, *y, &p->clamp);
                dx[first_maximum(p, &w, x, c)] += *dy;
            }
        }
    }
}

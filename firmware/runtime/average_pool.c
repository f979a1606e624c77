/* SPDX-License-Identifier: Apache-2.0 */
/* Average over the valid part of each window: x [in_h][in_w][channels] -> y [out_h][out_w][channels], equal scales. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "pool.h"
#include "requant.h"

static int32_t window_sum(const lmcu_pool_t *p, const lmcu_window_t *w, const int8_t *x, int32_t c)
{
    int32_t sum = 0;
    for (int32_t iy = w->y0; iy < w->y1; ++iy) {
        const int8_t *value = x + ((intptr_t)iy * p->in_w + w->x0) * p->channels + c;
        for (int32_t ix = w->x0; ix < w->x1; ++ix, value += p->channels) {
            sum += *value;
        }
    }
    return sum;
}

void lmcu_average_pool_forward(const lmcu_pool_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const lmcu_window_t w = lmcu_pool_window(p, oy, ox);
            const int32_t count = (w.y1 - w.y0) * (w.x1 - w.x0);
            for (int32_t c = 0; c < p->channels; ++c) {
                const int32_t sum = window_sum(p, &w, x, c);
                const int32_t mean = (sum > 0 ? sum + count / 2 : sum - count / 2) / count; /* halves away from zero */
                *y++ = (int8_t)lmcu_clamp_i32(mean, p->clamp.act_min, p->clamp.act_max);
            }
        }
    }
}

static void spread(const lmcu_pool_t *p, const lmcu_window_t *w, const float *g, float *dx)
{
    const float share = 1.0f / (float)((w->y1 - w->y0) * (w->x1 - w->x0));
    for (int32_t iy = w->y0; iy < w->y1; ++iy) {
        float *to = dx + ((intptr_t)iy * p->in_w + w->x0) * p->channels;
        for (int32_t ix = w->x0; ix < w->x1; ++ix, to += p->channels) {
            for (int32_t c = 0; c < p->channels; ++c) {
                to[c] = to[c] + g[c] * share;
            }
        }
    }
}

void lmcu_average_pool_backward(const lmcu_pool_t *p, const int8_t *y, float *dy, float *dx)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, dy += p->channels, y += p->channels) {
            const lmcu_window_t w = lmcu_pool_window(p, oy, ox);
            for (int32_t c = 0; c < p->channels; ++c) {
                dy[c] = lmcu_masked(dy[c], y[c], &p->clamp);
            }
            spread(p, &w, dy, dx);
        }
    }
}

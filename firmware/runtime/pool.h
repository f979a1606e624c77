/* SPDX-License-Identifier: Apache-2.0 */
/* The window of one pooled output, cut to the input. */
#ifndef LMCU_POOL_H
#define LMCU_POOL_H

#include "lmcu_strict.h"

#include "lmcu_ops.h"

typedef struct {
    int32_t y0, y1, x0, x1; /* rows [y0, y1), columns [x0, x1) */
} lmcu_window_t;

LMCU_INLINE lmcu_window_t lmcu_pool_window(const lmcu_pool_t *p, int32_t oy, int32_t ox)
{
    const int32_t y = oy * p->stride_h - p->pad_top;
    const int32_t x = ox * p->stride_w - p->pad_left;
    lmcu_window_t w;
    w.y0 = y < 0 ? 0 : y;
    w.x0 = x < 0 ? 0 : x;
    w.y1 = y + p->kernel_h < p->in_h ? y + p->kernel_h : p->in_h;
    w.x1 = x + p->kernel_w < p->in_w ? x + p->kernel_w : p->in_w;
    return w;
}

#endif

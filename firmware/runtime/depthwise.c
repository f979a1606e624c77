/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution: x [in_h][in_w][in_c], w [kernel_h][kernel_w][out_c] -> y [out_h][out_w][out_c]. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

/* Channels at once; changes no result. */
enum { BLOCK = 64 };

/* The taps of one output position that lie inside the input: [first, end) in each direction. */
typedef struct {
    int32_t iy, ix;
    int32_t ky_first, ky_end, kx_first, kx_end;
} window_t;

static void valid_taps(int32_t start, int32_t size, int32_t kernel, int32_t dilation, int32_t *first, int32_t *end)
{
    int32_t k = 0;
    while (k < kernel && start + k * dilation < 0) {
        ++k;
    }
    *first = k;
    while (k < kernel && start + k * dilation < size) {
        ++k;
    }
    *end = k;
}

static window_t window_at(const lmcu_conv2d_t *p, int32_t oy, int32_t ox)
{
    window_t w;
    w.iy = oy * p->stride_h - p->pad_top;
    w.ix = ox * p->stride_w - p->pad_left;
    valid_taps(w.iy, p->in_h, p->kernel_h, p->dilation_h, &w.ky_first, &w.ky_end);
    valid_taps(w.ix, p->in_w, p->kernel_w, p->dilation_w, &w.kx_first, &w.kx_end);
    return w;
}

static intptr_t input_offset(const lmcu_conv2d_t *p, const window_t *w, int32_t ky, int32_t kx)
{
    return ((intptr_t)(w->iy + ky * p->dilation_h) * p->in_w + w->ix + kx * p->dilation_w) * p->in_c;
}

static intptr_t weight_offset(const lmcu_conv2d_t *p, int32_t ky, int32_t kx)
{
    return ((intptr_t)ky * p->kernel_w + kx) * p->out_c;
}

/* acc += one tap of `count` channels */
LMCU_INLINE void add_tap(const int8_t *restrict x, int16_t zero_point, const int8_t *restrict w, int32_t count,
                         int32_t *restrict acc)
{
    for (int32_t i = 0; i < count; ++i) {
        acc[i] += (int16_t)(x[i] - zero_point) * (int16_t)w[i];
    }
}

/* acc of `count` <= BLOCK channels from `first`, multiplier 1 */
static void accumulate(const lmcu_conv2d_t *p, const int8_t *x, const window_t *win, int32_t first, int32_t count,
                       int32_t *acc)
{
    for (int32_t ky = win->ky_first; ky < win->ky_end; ++ky) {
        for (int32_t kx = win->kx_first; kx < win->kx_end; ++kx) {
            add_tap(x + input_offset(p, win, ky, kx) + first, (int16_t)p->input_zero_point,
                    p->weights + weight_offset(p, ky, kx) + first, count, acc);
        }
    }
}

/* The same for any multiplier. */
static void accumulate_multiplied(const lmcu_conv2d_t *p, int32_t multiplier, const int8_t *x, const window_t *win,
                                  int32_t first, int32_t count, int32_t *acc)
{
    for (int32_t ky = win->ky_first; ky < win->ky_end; ++ky) {
        for (int32_t kx = win->kx_first; kx < win->kx_end; ++kx) {
            const int8_t *in = x + input_offset(p, win, ky, kx);
            const int8_t *w = p->weights + weight_offset(p, ky, kx);
            for (int32_t i = 0; i < count; ++i) {
                acc[i] += (in[(first + i) / multiplier] - p->input_zero_point) * w[first + i];
            }
        }
    }
}

static void write_outputs(const lmcu_conv2d_t *p, int32_t first, int32_t count, const int32_t *acc, int8_t *restrict y)
{
    const int32_t *multiplier = p->requant.multiplier + first;
    const int8_t *shift = p->requant.shift + first;
    for (int32_t i = 0; i < count; ++i) {
        const int32_t value = lmcu_requant(acc[i], multiplier[i], shift[i]);
        y[i] = lmcu_to_output(value, p->output_zero_point, &p->clamp);
    }
}

static void forward_position(const lmcu_depthwise_t *p, const int8_t *x, const window_t *win, int8_t *y)
{
    const lmcu_conv2d_t *conv = &p->conv;
    for (int32_t o = 0; o < conv->out_c; o += BLOCK) {
        const int32_t count = conv->out_c - o < BLOCK ? conv->out_c - o : BLOCK;
        int32_t acc[BLOCK];
        for (int32_t i = 0; i < count; ++i) {
            acc[i] = conv->bias ? conv->bias[o + i] : 0;
        }
        if (p->multiplier == 1) {
            accumulate(conv, x, win, o, count, acc);
        } else {
            accumulate_multiplied(conv, p->multiplier, x, win, o, count, acc);
        }
        write_outputs(conv, o, count, acc, y + o);
    }
}

void lmcu_depthwise_forward(const lmcu_depthwise_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->conv.out_h; ++oy) {
        for (int32_t ox = 0; ox < p->conv.out_w; ++ox, y += p->conv.out_c) {
            const window_t win = window_at(&p->conv, oy, ox);
            forward_position(p, x, &win, y);
        }
    }
}

/* One tap: dx[c] += sum over q of (s_w[oc] * g[oc]) * w[oc], oc = c * multiplier + q */
LMCU_INLINE void backward_tap(const float *restrict scale, const float *restrict g, const int8_t *restrict w,
                              int32_t in_c, int32_t multiplier, float *restrict dx)
{
    for (int32_t c = 0; c < in_c; ++c) {
        float sum = 0.0f;
        for (int32_t q = 0; q < multiplier; ++q) {
            const int32_t oc = c * multiplier + q;
            sum = sum + (scale[oc] * g[oc]) * (float)w[oc];
        }
        dx[c] = dx[c] + sum;
    }
}

static void backward_position(const lmcu_depthwise_t *p, const window_t *win, const float *g, float *dx)
{
    const lmcu_conv2d_t *conv = &p->conv;
    for (int32_t ky = win->ky_first; ky < win->ky_end; ++ky) {
        for (int32_t kx = win->kx_first; kx < win->kx_end; ++kx) {
            const int8_t *w = conv->weights + weight_offset(conv, ky, kx);
            float *to = dx + input_offset(conv, win, ky, kx);
            if (p->multiplier == 1) {
                backward_tap(conv->weight_scale, g, w, conv->in_c, 1, to);
            } else {
                backward_tap(conv->weight_scale, g, w, conv->in_c, p->multiplier, to);
            }
        }
    }
}

void lmcu_depthwise_backward(const lmcu_depthwise_t *p, const int8_t *y, float *dy, float *dx)
{
    const lmcu_conv2d_t *conv = &p->conv;
    for (int32_t i = 0; i < conv->out_h * conv->out_w * conv->out_c; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], &conv->clamp);
    }
    for (int32_t oy = 0; oy < conv->out_h; ++oy) {
        for (int32_t ox = 0; ox < conv->out_w; ++ox, dy += conv->out_c) {
            const window_t win = window_at(conv, oy, ox);
            backward_position(p, &win, dy, dx);
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Transposed convolution: x [in_h][in_w][in_c], w [out_c][kernel_h][kernel_w][in_c] -> y [out_h][out_w][out_c]. Output pixel
 * (oy, ox) takes from input pixel (iy, ix) through tap (ky, kx) where oy = iy * stride_h - pad_top + ky, ox alike. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

/* Input index that reaches output `o` through tap `k`, or -1. */
static int32_t source(int32_t o, int32_t pad, int32_t k, int32_t stride, int32_t size)
{
    const int32_t at = o + pad - k;
    return at < 0 || at % stride != 0 || at / stride >= size ? -1 : at / stride;
}

/* Offset in x of the pixel behind tap (ky, kx), or -1. */
static intptr_t pixel(const lmcu_conv2d_t *p, int32_t oy, int32_t ox, int32_t ky, int32_t kx)
{
    const int32_t iy = source(oy, p->pad_top, ky, p->stride_h, p->in_h);
    const int32_t ix = source(ox, p->pad_left, kx, p->stride_w, p->in_w);
    return iy < 0 || ix < 0 ? -1 : ((intptr_t)iy * p->in_w + ix) * p->in_c;
}

static const int8_t *tap_weights(const lmcu_conv2d_t *p, int32_t o, int32_t ky, int32_t kx)
{
    return p->weights + (((intptr_t)o * p->kernel_h + ky) * p->kernel_w + kx) * p->in_c;
}

static int32_t accumulate(const lmcu_conv2d_t *p, const int8_t *x, int32_t oy, int32_t ox, int32_t o)
{
    int32_t acc = p->bias ? p->bias[o] : 0;
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
        for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
            const intptr_t at = pixel(p, oy, ox, ky, kx);
            const int8_t *w = tap_weights(p, o, ky, kx);
            for (int32_t c = 0; at >= 0 && c < p->in_c; ++c) {
                acc += (x[at + c] - p->input_zero_point) * w[c];
            }
        }
    }
    return acc;
}

void lmcu_transpose_conv_forward(const lmcu_conv2d_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, y += p->out_c) {
            for (int32_t o = 0; o < p->out_c; ++o) {
                const int32_t acc = accumulate(p, x, oy, ox, o);
                const int32_t value = lmcu_requant_output(&p->requant, o, acc);
                y[o] = lmcu_to_output(value, p->output_zero_point, &p->clamp);
            }
        }
    }
}

/* dx[c] += sum over o of g[o] * w[o][tap][c], g scaled */
static void backward_tap(const lmcu_conv2d_t *p, const float *g, int32_t ky, int32_t kx, float *dx)
{
    for (int32_t c = 0; c < p->in_c; ++c) {
        float sum = 0.0f;
        for (int32_t o = 0; o < p->out_c; ++o) {
            sum = sum + g[o] * (float)tap_weights(p, o, ky, kx)[c];
        }
        dx[c] = dx[c] + sum;
    }
}

static void backward_position(const lmcu_conv2d_t *p, const float *g, int32_t oy, int32_t ox, float *dx)
{
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
        for (int32_t kx = 0; kx < p->kernel_w; ++kx) {
            const intptr_t at = pixel(p, oy, ox, ky, kx);
            if (at >= 0) {
                backward_tap(p, g, ky, kx, dx + at);
            }
        }
    }
}

void lmcu_transpose_conv_backward(const lmcu_conv2d_t *p, const int8_t *y, float *dy, float *dx)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, dy += p->out_c, y += p->out_c) {
            for (int32_t o = 0; o < p->out_c; ++o) {
                dy[o] = p->weight_scale[o] * lmcu_masked(dy[o], y[o], &p->clamp);
            }
            backward_position(p, dy, oy, ox, dx);
        }
    }
}

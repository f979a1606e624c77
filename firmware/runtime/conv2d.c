/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution: x [in_h][in_w][in_c], w [out_c][kernel_h][kernel_w][in_c] -> y [out_h][out_w][out_c]. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "lora.h"
#include "matvec.h"
#include "requant.h"

static int32_t patch_length(const lmcu_conv2d_t *p)
{
    return p->kernel_h * p->kernel_w * p->in_c;
}

static int outside(int32_t index, int32_t size)
{
    return index < 0 || index >= size;
}

static void load_values(const int8_t *restrict x, int32_t zero_point, int32_t count, int16_t *restrict patch)
{
    for (int32_t i = 0; i < count; ++i) {
        patch[i] = (int16_t)(x[i] - zero_point);
    }
}

static void zero_values(int32_t count, int16_t *patch)
{
    for (int32_t i = 0; i < count; ++i) {
        patch[i] = 0;
    }
}

/* One kernel row of the patch [kernel_w][in_c]; contiguous in x unless it is dilated or touches the border. */
static void load_row(const lmcu_conv2d_t *p, const int8_t *x, int32_t iy, int32_t ix, int16_t *patch)
{
    const int32_t c = p->in_c;
    const int32_t last = ix + (p->kernel_w - 1) * p->dilation_w;
    const int8_t *line = x + (intptr_t)iy * p->in_w * c;
    if (outside(iy, p->in_h)) {
        zero_values(p->kernel_w * c, patch);
    } else if (p->dilation_w == 1 && ix >= 0 && last < p->in_w) {
        load_values(line + ix * c, p->input_zero_point, p->kernel_w * c, patch);
    } else {
        for (int32_t kx = 0; kx < p->kernel_w; ++kx, ix += p->dilation_w, patch += c) {
            if (outside(ix, p->in_w)) {
                zero_values(c, patch);
            } else {
                load_values(line + ix * c, p->input_zero_point, c, patch);
            }
        }
    }
}

/* patch [kernel_h][kernel_w][in_c] = x - z_x, 0 in the padding */
static void load_patch(const lmcu_conv2d_t *p, const int8_t *x, int32_t oy, int32_t ox, int16_t *patch)
{
    int32_t iy = oy * p->stride_h - p->pad_top;
    const int32_t ix = ox * p->stride_w - p->pad_left;
    for (int32_t ky = 0; ky < p->kernel_h; ++ky, iy += p->dilation_h, patch += p->kernel_w * p->in_c) {
        load_row(p, x, iy, ix, patch);
    }
}

/* y of `rows` outputs from o */
static void write_outputs(const lmcu_conv2d_t *p, int32_t o, int32_t rows, const int32_t *acc, int8_t *restrict y)
{
    const int32_t *multiplier = p->requant.multiplier + o;
    const int8_t *shift = p->requant.shift + o;
    for (int32_t i = 0; i < rows; ++i) {
        const int32_t value = lmcu_requant(acc[i], multiplier[i], shift[i]);
        y[i] = lmcu_to_output(value, p->output_zero_point, &p->clamp);
    }
}

/* One position: y [out_c]. f and t are NULL without an adapter. */
static void forward_position(const lmcu_conv2d_t *p, const lmcu_factors_t *f, const float *t, const int16_t *patch,
                             int32_t k, int8_t *y)
{
    for (int32_t o = 0; o < p->out_c; o += 4) {
        const int32_t rows = p->out_c - o < 4 ? p->out_c - o : 4;
        int32_t acc[4];
        lmcu_dot_block(patch, p->weights + (intptr_t)o * k, p->bias ? p->bias + o : 0, k, rows, acc);
        if (f) {
            lmcu_lora_add(f, t, o, rows, acc);
        }
        write_outputs(p, o, rows, acc, y + o);
    }
}

void lmcu_conv2d_forward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t k = patch_length(p);
    int16_t *patch = scratch;
    float *expanded = (float *)scratch + (k + 1) / 2;
    float t[LMCU_MAX_RANK];
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_expand_forward(lora, k, p->out_c, expanded);
    }
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, y += p->out_c) {
            load_patch(p, x, oy, ox, patch);
            if (lora) {
                lmcu_lora_project(&f, patch, t);
            }
            forward_position(p, lora ? &f : 0, t, patch, k, y);
        }
    }
}

static void add_values(const float *restrict val, int32_t count, float *restrict dx)
{
    for (int32_t i = 0; i < count; ++i) {
        dx[i] = dx[i] + val[i];
    }
}

/* dx[pos(k)] += val[k]; taps in the padding are skipped */
static void scatter(const lmcu_conv2d_t *p, const float *val, int32_t oy, int32_t ox, float *dx)
{
    const int32_t c = p->in_c;
    int32_t iy = oy * p->stride_h - p->pad_top;
    for (int32_t ky = 0; ky < p->kernel_h; ++ky, iy += p->dilation_h) {
        int32_t ix = ox * p->stride_w - p->pad_left;
        for (int32_t kx = 0; kx < p->kernel_w; ++kx, ix += p->dilation_w, val += c) {
            if (!outside(iy, p->in_h) && !outside(ix, p->in_w)) {
                add_values(val, c, dx + ((intptr_t)iy * p->in_w + ix) * c);
            }
        }
    }
}

static int all_zero(const float *g, int32_t count)
{
    for (int32_t i = 0; i < count; ++i) {
        if (g[i] != 0.0f) {
            return 0;
        }
    }
    return 1;
}

/* One position: g [out_c], masked. f is NULL without an adapter, dx at the first adapted layer. */
static void backward_position(const lmcu_conv2d_t *p, const lmcu_factors_t *f, const float *g, const int16_t *patch,
                              int32_t k, float *val, int32_t oy, int32_t ox, float *dx)
{
    float h[LMCU_MAX_RANK];
    if (f) {
        lmcu_lora_backward(f, patch, g, h);
    }
    if (!dx) {
        return;
    }
    lmcu_transposed_product(p->weights, 0, p->weight_scale, g, p->out_c, k, val);
    if (f) {
        lmcu_lora_add_input_gradient(f, h, val);
    }
    scatter(p, val, oy, ox, dx);
}

void lmcu_conv2d_backward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                          float *dx, void *scratch)
{
    const int32_t k = patch_length(p);
    int16_t *patch = scratch;
    float *val = (float *)scratch + (k + 1) / 2;
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_expand_backward(lora, k, p->out_c, val + (dx ? k : 0));
    }
    for (int32_t i = 0; i < p->out_h * p->out_w * p->out_c; ++i) {
        dy[i] = lmcu_masked(dy[i], y[i], &p->clamp);
    }
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, dy += p->out_c) {
            if (all_zero(dy, p->out_c)) { /* would add zeros only */
                continue;
            }
            if (lora) {
                load_patch(p, x, oy, ox, patch);
            }
            backward_position(p, lora ? &f : 0, dy, patch, k, val, oy, ox, dx);
        }
    }
}

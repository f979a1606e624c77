/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution: x [in_h][in_w][in_c], w [out_c][kernel_h][kernel_w][in_c] -> y [out_h][out_w][out_c]. */
#include "lmcu_strict.h"

#include "block.h"
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

/* Patches in scratch, then, where the runs of a patch do not fill groups, the bytes of one patch; then floats. */
typedef struct {
    int16_t *patch;
    int8_t *bytes; /* NULL: not needed */
    float *rest;
} scratch_t;

static void fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    for (int32_t i = 0; i < count; ++i) {
        to[i] = (int8_t)value;
    }
}

static scratch_t prepare_scratch(const lmcu_conv2d_t *p, int32_t positions, void *scratch)
{
    const int32_t length = patch_length(p), k = lmcu_patch_length(length);
    const int gathers = p->in_c % LMCU_GROUP != 0 && p->kernel_h * p->kernel_w > 1;
    scratch_t s;
    s.patch = scratch;
    s.bytes = gathers ? (int8_t *)(s.patch + positions * k) : 0;
    s.rest = (float *)(void *)((int8_t *)(s.patch + positions * k) + (gathers ? k : 0));
    if (gathers) { /* what fills the last group stays */
        fill_bytes(s.bytes + length, p->input_zero_point, k - length);
    }
    return s;
}

/* A few bytes at any address; the empty asm keeps GCC from calling memmove, which copies such bytes one by one. */
LMCU_INLINE void copy_bytes(int8_t *restrict to, const int8_t *restrict from, int32_t count)
{
#if LMCU_DSP
    for (; count >= 4; count -= 4, to += 4, from += 4) {
        uint32_t word = lmcu_load_word(from);
        __asm__("" : "+r"(word));
        __builtin_memcpy(to, &word, 4);
    }
    if (count & 2) {
        __builtin_memcpy(to, from, 2);
        to += 2;
        from += 2;
    }
    if (count & 1) {
        *to = *from;
    }
#else
    for (int32_t i = 0; i < count; ++i) {
        to[i] = from[i];
    }
#endif
}

/* Where the next run of a patch goes: to its bytes, or straight into its groups. */
typedef struct {
    int16_t *patch;
    int8_t *bytes;
    int32_t step, zero_point;
} target_t;

static void put(target_t *t, const int8_t *run, int32_t count)
{
    if (t->bytes) {
        copy_bytes(t->bytes, run, count);
        t->bytes += count;
    } else {
        t->patch = lmcu_patch_values(t->patch, t->step, run, t->zero_point, count);
    }
}

static void put_padding(target_t *t, int32_t count)
{
    if (t->bytes) {
        fill_bytes(t->bytes, t->zero_point, count);
        t->bytes += count;
    } else {
        t->patch = lmcu_patch_zeros(t->patch, t->step, count);
    }
}

/* One kernel row of the patch [kernel_w][in_c]; contiguous in x unless it is dilated or touches the border. */
static void put_row(const lmcu_conv2d_t *p, const int8_t *x, int32_t iy, int32_t ix, target_t *t)
{
    const int32_t c = p->in_c;
    const int32_t last = ix + (p->kernel_w - 1) * p->dilation_w;
    const int8_t *line = x + (intptr_t)iy * p->in_w * c;
    if (outside(iy, p->in_h)) {
        put_padding(t, p->kernel_w * c);
    } else if (p->dilation_w == 1 && ix >= 0 && last < p->in_w) {
        put(t, line + ix * c, p->kernel_w * c);
    } else {
        for (int32_t kx = 0; kx < p->kernel_w; ++kx, ix += p->dilation_w) {
            if (outside(ix, p->in_w)) {
                put_padding(t, c);
            } else {
                put(t, line + ix * c, c);
            }
        }
    }
}

/* patch [kernel_h][kernel_w][in_c] = x - z_x, 0 in the padding. `bytes` ends with padding up to a whole group. */
static void load_patch(const lmcu_conv2d_t *p, const int8_t *x, int32_t oy, int32_t ox, int8_t *bytes, int16_t *patch,
                       int32_t step)
{
    const int32_t zero_point = p->input_zero_point, stride = p->in_w * p->in_c, run = p->kernel_w * p->in_c;
    const int32_t iy = oy * p->stride_h - p->pad_top, ix = ox * p->stride_w - p->pad_left;
    const int inside = iy >= 0 && ix >= 0 && iy + (p->kernel_h - 1) * p->dilation_h < p->in_h &&
                       ix + p->kernel_w <= p->in_w && p->dilation_w == 1;
    if (inside && bytes) {
        const int8_t *from = x + (intptr_t)iy * stride + ix * p->in_c;
        int8_t *to = bytes;
        for (int32_t ky = 0; ky < p->kernel_h; ++ky, from += stride * p->dilation_h, to += run) {
            copy_bytes(to, from, run);
        }
    } else {
        target_t t = {patch, bytes, step, zero_point};
        for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
            put_row(p, x, iy + ky * p->dilation_h, ix, &t);
        }
    }
    if (bytes) {
        (void)lmcu_patch_values(patch, step, bytes, zero_point, lmcu_patch_length(patch_length(p)));
    }
}

/* What a position's sums begin with, [out_c] or NULL, and what the adapter adds to them where that may overflow, else NULL. */
typedef struct {
    const int32_t *bias, *beside;
} begin_t;

LMCU_INLINE void write_plain(const lmcu_conv2d_t *p, int32_t o, int32_t rows, const int32_t *acc, int8_t *restrict y)
{
    const int32_t *fraction = p->requant.fraction + o;
    const int8_t *right = p->requant.right + o;
    for (int32_t i = 0; i < rows; ++i) {
        y[i] = lmcu_plain_output(acc[i], fraction[i], right[i], 2 * p->output_zero_point + 1);
    }
}

/* y of `rows` outputs from o, whatever their requantization */
static void write_any(const lmcu_conv2d_t *p, const int32_t *beside, int32_t o, int32_t rows, const int32_t *acc,
                      int8_t *restrict y)
{
    for (int32_t i = 0; i < rows; ++i) {
        const int32_t sum = beside ? lmcu_add_limited(acc[i], beside[o + i]) : acc[i];
        y[i] = lmcu_to_output(lmcu_requant_output(&p->requant, o + i, sum), p->output_zero_point, &p->clamp);
    }
}

/* One position: y [out_c] */
static void forward_position(const lmcu_conv2d_t *p, int plain, const begin_t *from, const int16_t *patch, int32_t k, int8_t *y)
{
    for (int32_t o = 0; o < p->out_c; o += 4) {
        const int32_t rows = p->out_c - o < 4 ? p->out_c - o : 4;
        int32_t acc[4];
        lmcu_dot_block(patch, p->weights + (intptr_t)o * k, from->bias ? from->bias + o : 0, k, rows, acc);
        if (plain && rows == 4 && !from->beside) {
            write_plain(p, o, 4, acc, y + o);
        } else {
            write_any(p, from->beside, o, rows, acc, y + o);
        }
    }
}

#if LMCU_DSP
enum { POSITIONS = 2 };

/* Two neighbouring positions, plain requantization, two outputs at a time (out_c is even), nothing beside the biases. */
static void forward_plain_pair(const lmcu_conv2d_t *p, const int32_t *first, const int32_t *second, const int16_t *patches,
                               int32_t k, int8_t *y)
{
    const int32_t m = p->out_c, offset = 2 * p->output_zero_point + 1;
    const int8_t *w = p->weights, *right = p->requant.right;
    const int32_t *fraction = p->requant.fraction;
    for (int8_t *end = y + m; y != end; y += 2, w += 2 * k, fraction += 2, right += 2) {
        int32_t acc[4] = {0, 0, 0, 0};
        if (first) {
            acc[0] = *first++;
            acc[1] = *first++;
            acc[2] = *second++;
            acc[3] = *second++;
        }
        lmcu_dot_pair(patches, w, w + k, k, acc);
        for (int32_t r = 0; r < 2; ++r) {
            const int32_t by = fraction[r], down = right[r];
            y[r] = lmcu_plain_output(acc[r], by, down, offset);
            y[m + r] = lmcu_plain_output(acc[2 + r], by, down, offset);
        }
    }
}

/* Two neighbouring positions: y [2][out_c] */
static void forward_pair(const lmcu_conv2d_t *p, const begin_t from[2], const int16_t *patches, int32_t k, int8_t *y)
{
    const int32_t m = p->out_c;
    for (int32_t o = 0; o < m; o += 2) {
        const int32_t rows = m - o < 2 ? 1 : 2;
        int32_t acc[4] = {0, 0, 0, 0};
        if (from[0].bias) {
            acc[0] = from[0].bias[o];
            acc[1] = from[0].bias[o + rows - 1];
            acc[2] = from[1].bias[o];
            acc[3] = from[1].bias[o + rows - 1];
        }
        const int8_t *w = p->weights + (intptr_t)o * k;
        lmcu_dot_pair(patches, w, w + (rows - 1) * k, k, acc);
        write_any(p, from[0].beside, o, rows, acc, y + o);
        write_any(p, from[1].beside, o, rows, acc + 2, y + m + o);
    }
}

static void forward_both(const lmcu_conv2d_t *p, int plain, const begin_t from[2], const int16_t *patches, int32_t k, int8_t *y)
{
    if (plain && !from[0].beside && p->out_c % 2 == 0) {
        forward_plain_pair(p, from[0].bias, from[1].bias, patches, k, y);
    } else {
        forward_pair(p, from, patches, k, y);
    }
}
#else
enum { POSITIONS = 1 };

static void forward_both(const lmcu_conv2d_t *p, int plain, const begin_t from[2], const int16_t *patches, int32_t k, int8_t *y)
{
    (void)p, (void)plain, (void)from, (void)patches, (void)k, (void)y;
}
#endif

/* What the adapter makes of the biases of one position, in `to` [out_c]. */
static begin_t with_adapter(const lmcu_conv2d_t *p, const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *to)
{
    lmcu_projection_t t;
    const int32_t *bias = f->lora->in_bias != 0 ? p->bias : 0;
    lmcu_lora_project(f, patch, step, &t);
    lmcu_lora_deltas(f, &t, bias, 0, p->out_c, to);
    const begin_t begin = {f->lora->in_bias != 0 ? to : p->bias, f->lora->in_bias != 0 ? 0 : to};
    return begin;
}

void lmcu_conv2d_forward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t k = patch_length(p), count = p->out_h * p->out_w;
    const scratch_t s = prepare_scratch(p, 2, scratch);
    const int plain = lmcu_is_plain(p);
    int32_t *deltas = (int32_t *)(void *)s.rest;
    lmcu_factors_t f;
    if (lora) {
#if LMCU_NUMERICS_I16
        f = lmcu_lora_direct(lora, k, p->out_c);
#else
        f = lmcu_lora_expand(lora, k, p->out_c, s.rest);
        deltas += lora->rank * (k + p->out_c);
#endif
    }
    int32_t oy = 0, ox = 0;
    for (int32_t position = 0; position < count; position += POSITIONS) {
        const int32_t n = count - position < POSITIONS ? 1 : POSITIONS;
        begin_t from[2] = {{p->bias, 0}, {p->bias, 0}};
        for (int32_t i = 0; i < n; ++i) {
            load_patch(p, x, oy, ox, s.bytes, s.patch + LMCU_GROUP * i, LMCU_GROUP * n);
            if (lora) {
                from[i] = with_adapter(p, &f, s.patch + LMCU_GROUP * i, LMCU_GROUP * n, deltas + i * p->out_c);
            }
            if (++ox == p->out_w) {
                ox = 0;
                ++oy;
            }
        }
        if (n == 2) {
            forward_both(p, plain, from, s.patch, k, y);
        } else {
            forward_position(p, plain, from, s.patch, k, y);
        }
        y += n * p->out_c;
    }
}

#if !LMCU_NUMERICS_I16
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

/* dx [k] of one position of a 1 x 1 kernel, in place of what was there */
static void replace(const float *val, int32_t k, float *dx)
{
    for (int32_t i = 0; i < k; ++i) {
        dx[i] = val ? 0.0f + val[i] : 0.0f;
    }
}

/* One position: g [out_c], masked. f is NULL without an adapter, dx at the first adapted layer. `in_place`: dx takes the
 * memory of g, which is read before. */
static void backward_position(const lmcu_conv2d_t *p, const lmcu_factors_t *f, const float *g, const int16_t *patch,
                              int32_t k, float *val, int32_t oy, int32_t ox, float *dx, int in_place)
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
    if (in_place) {
        replace(val, k, dx + ((intptr_t)oy * p->out_w + ox) * k);
    } else {
        scatter(p, val, oy, ox, dx);
    }
}

/* g [out_c] = one position's gradient, masked; g may be dy */
static void mask_position(const lmcu_conv2d_t *p, const int8_t *y, const float *dy, float *g)
{
    for (int32_t o = 0; o < p->out_c; ++o) {
        g[o] = lmcu_masked(dy[o], y[o], &p->clamp);
    }
}

/* dy is masked in place, or with `shared` every position's, read from one row and masked into scratch. */
static void backward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                     const float *shared, float *dx, void *scratch)
{
    const int32_t k = patch_length(p), m = p->out_c;
    const scratch_t s = prepare_scratch(p, 1, scratch);
    const int in_place = dx && dx == dy;
    float *val = s.rest, *free = val + (dx ? k : 0);
    lmcu_factors_t f;
    if (lora) {
        f = lmcu_lora_expand(lora, k, m, free);
        free += lora->rank * (k + m);
    }
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, y += m) {
            float *g = shared ? free : dy;
            mask_position(p, y, shared ? shared : dy, g);
            dy = shared ? dy : dy + m;
            if (all_zero(g, m)) { /* would add zeros only */
                if (in_place) {
                    replace(NULL, k, dx + ((intptr_t)oy * p->out_w + ox) * k);
                }
                continue;
            }
            if (lora) {
                load_patch(p, x, oy, ox, s.bytes, s.patch, LMCU_GROUP);
            }
            backward_position(p, lora ? &f : 0, g, s.patch, k, val, oy, ox, dx, in_place);
        }
    }
}

#else
/* dx[pos(k)] += val[k] in units; taps in the padding are skipped */
static void scatter(const lmcu_conv2d_t *p, const int32_t *val, lmcu_unit_t unit, int32_t oy, int32_t ox, float *dx)
{
    const int32_t c = p->in_c;
    int32_t iy = oy * p->stride_h - p->pad_top;
    for (int32_t ky = 0; ky < p->kernel_h; ++ky, iy += p->dilation_h) {
        int32_t ix = ox * p->stride_w - p->pad_left;
        for (int32_t kx = 0; kx < p->kernel_w; ++kx, ix += p->dilation_w, val += c) {
            if (!outside(iy, p->in_h) && !outside(ix, p->in_w)) {
                lmcu_layer_add_values(val, c, unit, dx + ((intptr_t)iy * p->in_w + ix) * c);
            }
        }
    }
}

/* dx [k] of one position, or of several, in the place of what was there */
static void clear(float *dx, int32_t count)
{
    for (int32_t i = 0; i < count; ++i) {
        dx[i] = 0.0f;
    }
}

/* One position whose outputs are listed. `in_place`: dx, of a 1 x 1 kernel, takes the memory of the words, which are read before. */
static void backward_position(const lmcu_conv2d_t *p, lmcu_layer_t *l, const scratch_t *s, const int8_t *x, int32_t oy,
                              int32_t ox, float *dx, int in_place)
{
    int32_t *val = (int32_t *)(void *)s->rest;
    if (l->lora) {
        load_patch(p, x, oy, ox, s->bytes, s->patch, LMCU_GROUP);
        lmcu_layer_adapter(l, oy * p->out_w + ox, s->patch);
    }
    if (!dx) {
        return;
    }
    lmcu_layer_values(l, val);
    if (in_place) {
        clear(dx + ((intptr_t)oy * p->out_w + ox) * l->k, l->k);
    }
    scatter(p, val, l->value_unit, oy, ox, dx);
}

/* The words of all positions stand in the place of dy, or with `shared`, one row, in scratch. */
static void backward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                     const float *shared, float *dx, void *scratch)
{
    const int32_t k = patch_length(p), m = p->out_c, positions = p->out_h * p->out_w;
    const scratch_t s = prepare_scratch(p, 1, scratch);
    const int in_place = dx && dx == dy;
    float *free = s.rest + (dx ? k : 0), *words = shared ? free : dy;
    lmcu_layer_t l = {.lora = lora, .weights = p->weights, .positions = positions, .k = k, .m = m, .words = words};
    const lmcu_gradient_t found =
        lmcu_layer_begin(&l, p->block, shared ? shared : dy, shared ? 1 : positions, free + (shared ? m : 0));
    if (found == LMCU_GRADIENT_NOT_FINITE) {
        lmcu_layer_poison(lora, dx, p->in_h * p->in_w * p->in_c);
    } else if (found == LMCU_GRADIENT_ZERO && in_place) {
        clear(dx, positions * k);
    }
    for (int32_t position = 0, oy = 0, ox = 0; found == LMCU_GRADIENT_READY && position < positions; ++position, y += m) {
        if (lmcu_layer_list(&l, words, y, &p->clamp) != 0) {
            backward_position(p, &l, &s, x, oy, ox, dx, in_place);
        } else if (in_place) {
            clear(dx + (intptr_t)position * k, k);
        }
        words = shared ? words : words + m;
        ox = ox + 1 < p->out_w ? ox + 1 : 0;
        oy += ox == 0;
    }
    if (found == LMCU_GRADIENT_READY) {
        lmcu_layer_end(&l);
    }
}
#endif

void lmcu_conv2d_backward(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y, float *dy,
                          float *dx, void *scratch)
{
    backward(p, lora, x, y, dy, NULL, dx, scratch);
}

void lmcu_conv2d_backward_shared(const lmcu_conv2d_t *p, const lmcu_lora_t *lora, const int8_t *x, const int8_t *y,
                                 const float *dy, float *dx, void *scratch)
{
    backward(p, lora, x, y, NULL, dy, dx, scratch);
}

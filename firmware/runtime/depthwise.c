/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution: x [in_h][in_w][in_c], w [kernel_h][kernel_w][out_c] -> y [out_h][out_w][out_c]. */
#include "lmcu_strict.h"

#include "block.h"
#include "lmcu_ops.h"
#include "patch.h"
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
    if (start >= 0 && start + (kernel - 1) * dilation < size) { /* as most are */
        *first = 0;
        *end = kernel;
        return;
    }
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
    for (int32_t i = 0; i < count; ++i) {
        y[i] = lmcu_to_output(lmcu_requant_output(&p->requant, first + i, acc[i]), p->output_zero_point, &p->clamp);
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

#if LMCU_DSP
/* Four channels of one tap: the words of x and w become pairs of channels 0, 2 and 1, 3. */
LMCU_INLINE void add_four(const int8_t *x, const int8_t *w, uint32_t minus, int32_t *acc)
{
    uint32_t odd = lmcu_load_word(x), w_odd = lmcu_load_word(w), even, w_even;
    __asm__("sxtab16 %[even], %[minus], %[odd]\n\tsxtab16 %[odd], %[minus], %[odd], ror #8\n\t"
            "sxtb16 %[w_even], %[w_odd]\n\tsxtb16 %[w_odd], %[w_odd], ror #8\n\t"
            "smlabb %[a0], %[even], %[w_even], %[a0]\n\tsmlabb %[a1], %[odd], %[w_odd], %[a1]\n\t"
            "smlatt %[a2], %[even], %[w_even], %[a2]\n\tsmlatt %[a3], %[odd], %[w_odd], %[a3]"
            : [odd] "+&r"(odd), [w_odd] "+&r"(w_odd), [even] "=&r"(even), [w_even] "=&r"(w_even), [a0] "+&r"(acc[0]),
              [a1] "+&r"(acc[1]), [a2] "+&r"(acc[2]), [a3] "+&r"(acc[3])
            : [minus] "r"(minus));
}

/* y of all channels, a multiple of four, of one position; `rows` and `taps` a row are constants after inlining. */
LMCU_INLINE void forward_fours(const lmcu_conv2d_t *p, const int8_t *x, const window_t *win, int32_t rows, int32_t taps,
                               int8_t *y)
{
    const int32_t c = p->in_c, offset = 2 * p->output_zero_point + 1;
    const int32_t x_row = p->dilation_h * p->in_w * c, w_row = p->kernel_w * c;
    const uint32_t minus = (uint32_t)(-p->input_zero_point & 0xffff) * 0x10001u;
    const int8_t *w = p->weights + weight_offset(p, win->ky_first, win->kx_first), *right = p->requant.right;
    const int32_t *bias = p->bias, *fraction = p->requant.fraction;
    x += input_offset(p, win, win->ky_first, win->kx_first);
    for (int8_t *end = y + c; y != end; y += 4, x += 4, w += 4, bias += 4, fraction += 4, right += 4) {
        int32_t acc[4] = {bias[0], bias[1], bias[2], bias[3]};
        const int8_t *from = x, *by = w;
        for (int32_t ky = 0; ky < rows; ++ky, from += x_row, by += w_row) {
            for (int32_t kx = 0; kx < taps; ++kx) {
                add_four(from + kx * c, by + kx * c, minus, acc);
            }
        }
        for (int32_t i = 0; i < 4; ++i) {
            y[i] = lmcu_plain_output(acc[i], fraction[i], right[i], offset);
        }
    }
}

static void forward_plain(const lmcu_conv2d_t *p, const int8_t *x, const window_t *win, int8_t *y)
{
    const int32_t rows = win->ky_end - win->ky_first, taps = win->kx_end - win->kx_first;
    if (rows == 3 && taps == 3) {
        forward_fours(p, x, win, 3, 3, y);
    } else if (rows == 3 && taps == 2) { /* the left and right borders: most of a narrow map's */
        forward_fours(p, x, win, 3, 2, y);
    } else if (taps == 3) {
        forward_fours(p, x, win, rows, 3, y);
    } else if (taps == 2) {
        forward_fours(p, x, win, rows, 2, y);
    } else {
        forward_fours(p, x, win, rows, taps, y);
    }
}

static int is_for_fours(const lmcu_depthwise_t *p)
{
    return p->multiplier == 1 && p->conv.out_c % 4 == 0 && p->conv.dilation_w == 1 && p->conv.bias &&
           lmcu_is_plain(&p->conv);
}
#else
static void forward_plain(const lmcu_conv2d_t *p, const int8_t *x, const window_t *win, int8_t *y)
{
    (void)p, (void)x, (void)win, (void)y;
}

static int is_for_fours(const lmcu_depthwise_t *p)
{
    (void)p;
    return 0;
}
#endif

void lmcu_depthwise_forward(const lmcu_depthwise_t *p, const int8_t *x, int8_t *y)
{
    const int plain = is_for_fours(p);
    for (int32_t oy = 0; oy < p->conv.out_h; ++oy) {
        for (int32_t ox = 0; ox < p->conv.out_w; ++ox, y += p->conv.out_c) {
            const window_t win = window_at(&p->conv, oy, ox);
            if (plain) {
                forward_plain(&p->conv, x, &win, y);
            } else {
                forward_position(p, x, &win, y);
            }
        }
    }
}

#if !LMCU_NUMERICS_I16
/* dy becomes s_w[oc] * g[oc], g masked: what all taps of a position have in common */
static void mask_and_scale(const lmcu_conv2d_t *p, const int8_t *y, float *dy)
{
    for (int32_t i = p->out_h * p->out_w; i > 0; --i, y += p->out_c, dy += p->out_c) {
        for (int32_t o = 0; o < p->out_c; ++o) {
            dy[o] = p->weight_scale[o] * lmcu_masked(dy[o], y[o], &p->clamp);
        }
    }
}

/* One tap: dx[c] += sum over q of scaled[oc] * w[oc], oc = c * multiplier + q */
LMCU_INLINE void backward_tap(const float *restrict scaled, const int8_t *restrict w, int32_t in_c, int32_t multiplier,
                              float *restrict dx)
{
    for (int32_t c = 0; c < in_c; ++c) {
        float sum = 0.0f;
        for (int32_t q = 0; q < multiplier; ++q) {
            const int32_t oc = c * multiplier + q;
            sum = sum + scaled[oc] * (float)w[oc];
        }
        dx[c] = dx[c] + sum;
    }
}

static void backward_position(const lmcu_depthwise_t *p, const window_t *win, const float *scaled, float *dx)
{
    const lmcu_conv2d_t *conv = &p->conv;
    for (int32_t ky = win->ky_first; ky < win->ky_end; ++ky) {
        for (int32_t kx = win->kx_first; kx < win->kx_end; ++kx) {
            const int8_t *w = conv->weights + weight_offset(conv, ky, kx);
            float *to = dx + input_offset(conv, win, ky, kx);
            if (p->multiplier == 1) {
                backward_tap(scaled, w, conv->in_c, 1, to);
            } else {
                backward_tap(scaled, w, conv->in_c, p->multiplier, to);
            }
        }
    }
}

void lmcu_depthwise_backward(const lmcu_depthwise_t *p, const int8_t *y, float *dy, float *dx)
{
    const lmcu_conv2d_t *conv = &p->conv;
    mask_and_scale(conv, y, dy);
    for (int32_t oy = 0; oy < conv->out_h; ++oy) {
        for (int32_t ox = 0; ox < conv->out_w; ++ox, dy += conv->out_c) {
            const window_t win = window_at(conv, oy, ox);
            backward_position(p, &win, dy, dx);
        }
    }
}

/* dx [in_h][in_w][count] of `count` channels from `first`, in the order of the whole backward pass; `count` is a constant
 * after inlining where it is LMCU_DEPTHWISE_BLOCK. The sums of the other backward pass, which start at +0, are these. */
LMCU_INLINE void backward_block(const lmcu_conv2d_t *p, int32_t first, int32_t count, const float *scaled, float *dx)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox, scaled += p->out_c) {
            const window_t win = window_at(p, oy, ox);
            for (int32_t ky = win.ky_first; ky < win.ky_end; ++ky) {
                for (int32_t kx = win.kx_first; kx < win.kx_end; ++kx) {
                    const int8_t *w = p->weights + weight_offset(p, ky, kx) + first;
                    const int32_t at = (win.iy + ky * p->dilation_h) * p->in_w + win.ix + kx * p->dilation_w;
                    float *restrict to = dx + (intptr_t)at * count;
                    for (int32_t c = 0; c < count; ++c) {
                        to[c] = to[c] + scaled[first + c] * (float)w[c];
                    }
                }
            }
        }
    }
}

void lmcu_depthwise_backward_in_place(const lmcu_depthwise_t *p, const int8_t *y, float *dy, void *scratch)
{
    const lmcu_conv2d_t *conv = &p->conv;
    const int32_t positions = conv->in_h * conv->in_w, channels = conv->in_c;
    float *block = scratch;
    mask_and_scale(conv, y, dy);
    for (int32_t first = 0; first < channels; first += LMCU_DEPTHWISE_BLOCK) {
        const int32_t count = channels - first < LMCU_DEPTHWISE_BLOCK ? channels - first : LMCU_DEPTHWISE_BLOCK;
        for (int32_t i = 0; i < positions * count; ++i) {
            block[i] = 0.0f;
        }
        if (count == LMCU_DEPTHWISE_BLOCK) {
            backward_block(conv, first, LMCU_DEPTHWISE_BLOCK, dy, block);
        } else {
            backward_block(conv, first, count, dy, block);
        }
        for (int32_t at = 0; at < positions; ++at) {
            for (int32_t c = 0; c < count; ++c) {
                dy[at * channels + first + c] = block[at * count + c];
            }
        }
    }
}

#else
/* dy becomes words (block.h); what is masked becomes 0 */
static lmcu_gradient_t quantize(const lmcu_depthwise_t *p, const int8_t *y, float *dy, lmcu_unit_t *into)
{
    const lmcu_conv2d_t *conv = &p->conv;
    const int32_t shift = lmcu_terms_shift(conv->kernel_h * conv->kernel_w * p->multiplier), rows = conv->out_h * conv->out_w;
    uint32_t largest;
    int32_t unit;
    const lmcu_gradient_t found = lmcu_quantize_gradient(conv->block, shift, rows, conv->out_c, dy, dy, &largest, &unit);
    if (found == LMCU_GRADIENT_READY) {
        *into = lmcu_unit(unit + conv->block->exponent + 15 + shift);
        const lmcu_clamp_t clamp = conv->clamp;
        for (const float *const end = dy + rows * conv->out_c; dy != end; ++dy, ++y) {
            if (lmcu_is_masked(lmcu_word_g(*dy), *y, &clamp)) {
                *dy = 0.0f;
            }
        }
    }
    return found;
}

enum { MAX_TAPS = 16 }; /* of one input position that are added at a time */

/* Where an output's words and its tap's weights stand. */
typedef struct {
    const float *words;
    const int8_t *weights;
} tap_t;

/* The output that input row or column `at` meets with tap `from_pad` = tap * dilation - pad; -1: none */
LMCU_INLINE int32_t output_of(int32_t at, int32_t from_pad, int32_t stride, int32_t size)
{
    const int32_t from = at - from_pad;
    if (stride == 1) {
        return from >= 0 && from < size ? from : -1;
    }
    return from >= 0 && from % stride == 0 && from / stride < size ? from / stride : -1;
}

/* sum [count] += the channels from `first` of `n` taps */
static void add_taps(const tap_t *taps, int32_t n, int32_t multiplier, int32_t first, int32_t count, int32_t *sum)
{
    for (int32_t i = 0; i < n; ++i) {
        for (int32_t c = 0; c < count; ++c) {
            for (int32_t q = 0; q < multiplier; ++q) {
                const int32_t oc = (first + c) * multiplier + q;
                sum[c] += lmcu_word_v(taps[i].words[oc]) * taps[i].weights[oc];
            }
        }
    }
}

#if LMCU_DSP
/* The same for multiplier 1 and a multiple of four channels: a word of weights against the upper halves of four words. */
static void add_taps_of_fours(const tap_t *taps, int32_t n, int32_t first, int32_t count, int32_t *sum)
{
    const tap_t *const end = taps + n;
    for (int32_t c = first; c < first + count; c += 4, sum += 4) {
        int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
        const tap_t *tap = taps;
        const float *v;
        const int8_t *w;
        uint32_t x, y, z;
        __asm__ volatile("1:\n\tldrd %[v], %[w], [%[tap]], #8\n\tldr %[w], [%[w], %[c]]\n\tadd %[v], %[v], %[c], lsl #2\n\t"
                         "sxtb16 %[z], %[w]\n\tsxtb16 %[w], %[w], ror #8\n\tldrd %[x], %[y], [%[v]]\n\t"
                         "smlabt %[s0], %[z], %[x], %[s0]\n\tsmlabt %[s1], %[w], %[y], %[s1]\n\tldrd %[x], %[y], [%[v], #8]\n\t"
                         "smlatt %[s2], %[z], %[x], %[s2]\n\tsmlatt %[s3], %[w], %[y], %[s3]\n\tcmp %[tap], %[end]\n\tbne 1b"
                         : [tap] "+&r"(tap), [v] "=&r"(v), [w] "=&r"(w), [x] "=&r"(x), [y] "=&r"(y), [z] "=&r"(z),
                           [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3)
                         : [c] "r"(c), [end] "r"(end)
                         : "cc", "memory");
        sum[0] = s0;
        sum[1] = s1;
        sum[2] = s2;
        sum[3] = s3;
    }
}
#endif

static void add_any_taps(const lmcu_depthwise_t *p, const tap_t *taps, int32_t n, int32_t first, int32_t count, int32_t *sum)
{
#if LMCU_DSP
    if (p->multiplier == 1 && count % 4 == 0 && n > 0) {
        add_taps_of_fours(taps, n, first, count, sum);
        return;
    }
#endif
    if (p->multiplier == 1) {
        add_taps(taps, n, 1, first, count, sum);
    } else {
        add_taps(taps, n, p->multiplier, first, count, sum);
    }
}

/* `count` taps of one kernel row, those that meet output row `line`, behind `n` that are there; returns how many there are then. */
LMCU_INLINE int32_t add_row_of_taps(const lmcu_conv2d_t *p, int32_t stride, int32_t from_pad, int32_t count, int32_t ix,
                                    const float *line, const int8_t *w, tap_t *taps, int32_t n)
{
    const int32_t out_w = p->out_w, channels = p->out_c;
    for (; count > 0; --count, w += channels, from_pad += p->dilation_w) {
        const int32_t ox = output_of(ix, from_pad, stride, out_w);
        if (ox >= 0) {
            taps[n].words = line + ox * channels;
            taps[n++].weights = w;
        }
    }
    return n;
}

#if LMCU_DSP
/* One tap of four channels, then on to the next in the same kernel row, which meets the output before. */
#define TAP                                                                                                            \
    "ldr %[o], [%[w]]\n\tldrd %[x], %[y], [%[v]]\n\tadd %[w], %[w], %[c]\n\tsxtb16 %[e], %[o]\n\t"                    \
    "sxtb16 %[o], %[o], ror #8\n\tsmlabt %[s0], %[e], %[x], %[s0]\n\tsmlabt %[s1], %[o], %[y], %[s1]\n\t"             \
    "ldrd %[x], %[y], [%[v], #8]\n\tsub %[v], %[v], %[c], lsl #2\n\tsmlatt %[s2], %[e], %[x], %[s2]\n\t"              \
    "smlatt %[s3], %[o], %[y], %[s3]\n\t"
#define OPERANDS                                                                                                       \
    [v] "+&r"(v), [w] "+&r"(w), [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [x] "=&r"(x), [y] "=&r"(y), \
        [e] "=&r"(e), [o] "=&r"(o)

/* The taps [first, end) of a kernel's side that meet an output, where stride and dilation are 1. */
typedef struct {
    int32_t first, end;
} side_t;

static side_t side_at(int32_t from_pad, int32_t kernel, int32_t size)
{
    const side_t side = {from_pad < size ? 0 : from_pad - size + 1, from_pad < kernel ? from_pad + 1 : kernel};
    return side;
}

/* sum [4] of the channels from `v` and `w` on, where the first tap stands */
LMCU_INLINE void gather_four(const lmcu_conv2d_t *p, int32_t rows, int32_t taps, const float *v, const int8_t *w, int32_t *sum)
{
    const int32_t c = p->out_c, up = (p->out_w - taps) * c, down = (p->kernel_w - taps) * c;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t x, y, e, o;
    for (; rows > 0; --rows, v -= up, w += down) {
        int32_t left = taps;
        if (taps == 3) {
            __asm__ volatile(TAP TAP TAP : OPERANDS : [c] "r"(c) : "memory");
            continue;
        }
        __asm__ volatile("1:\n\t" TAP "subs %[left], %[left], #1\n\tbne 1b"
                         : OPERANDS, [left] "+&r"(left) : [c] "r"(c) : "cc", "memory");
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
}
#undef TAP
#undef OPERANDS

/* gather() of a layer with stride, dilation and multiplier 1, `count` a multiple of four */
static void gather_straight(const lmcu_conv2d_t *p, const float *words, int32_t iy, int32_t ix, int32_t first, int32_t count,
                            int32_t *sum)
{
    const int32_t oy = iy + p->pad_top, ox = ix + p->pad_left;
    const side_t y = side_at(oy, p->kernel_h, p->out_h), x = side_at(ox, p->kernel_w, p->out_w);
    const float *v = words + ((intptr_t)(oy - y.first) * p->out_w + ox - x.first) * p->out_c + first;
    const int8_t *w = p->weights + weight_offset(p, y.first, x.first) + first;
    const int32_t rows = x.first < x.end ? y.end - y.first : 0;
    for (int32_t i = 0; i < count; i += 4) {
        gather_four(p, rows, x.end - x.first, v + i, w + i, sum + i);
    }
}

static int is_straight(const lmcu_depthwise_t *p, int32_t count)
{
    const lmcu_conv2d_t *conv = &p->conv;
    return (conv->stride_h | conv->stride_w | conv->dilation_h | conv->dilation_w | p->multiplier) == 1 && count % 4 == 0;
}
#else
static int is_straight(const lmcu_depthwise_t *p, int32_t count)
{
    (void)p, (void)count;
    return 0;
}

static void gather_straight(const lmcu_conv2d_t *p, const float *words, int32_t iy, int32_t ix, int32_t first, int32_t count,
                            int32_t *sum)
{
    (void)p, (void)words, (void)iy, (void)ix, (void)first, (void)count, (void)sum;
}
#endif

/* sum [count] of the channels from `first` of one input position: all taps, exact */
static void gather(const lmcu_depthwise_t *p, const float *words, int32_t iy, int32_t ix, int32_t first, int32_t count,
                   int32_t *sum)
{
    const lmcu_conv2d_t *conv = &p->conv;
    tap_t taps[MAX_TAPS];
    int32_t n = 0;
    if (is_straight(p, count)) {
        gather_straight(conv, words, iy, ix, first, count, sum);
        return;
    }
    for (int32_t c = 0; c < count; ++c) {
        sum[c] = 0;
    }
    for (int32_t ky = 0; ky < conv->kernel_h; ++ky) {
        const int32_t oy = output_of(iy, ky * conv->dilation_h - conv->pad_top, conv->stride_h, conv->out_h);
        if (oy < 0) {
            continue;
        }
        const float *line = words + (intptr_t)oy * conv->out_w * conv->out_c;
        for (int32_t kx = 0; kx < conv->kernel_w; kx += MAX_TAPS) {
            const int32_t some = conv->kernel_w - kx < MAX_TAPS ? conv->kernel_w - kx : MAX_TAPS;
            const int32_t from_pad = kx * conv->dilation_w - conv->pad_left;
            const int8_t *w = conv->weights + weight_offset(conv, ky, kx);
            if (n + some > MAX_TAPS) {
                add_any_taps(p, taps, n, first, count, sum);
                n = 0;
            }
            n = conv->stride_w == 1 ? add_row_of_taps(conv, 1, from_pad, some, ix, line, w, taps, n)
                                    : add_row_of_taps(conv, conv->stride_w, from_pad, some, ix, line, w, taps, n);
        }
    }
    add_any_taps(p, taps, n, first, count, sum);
}

void lmcu_depthwise_backward(const lmcu_depthwise_t *p, const int8_t *y, float *dy, float *dx)
{
    const lmcu_conv2d_t *conv = &p->conv;
    const int32_t channels = conv->in_c;
    lmcu_unit_t unit = {0.0f, 0};
    const lmcu_gradient_t found = quantize(p, y, dy, &unit);
    if (found == LMCU_GRADIENT_NOT_FINITE) {
        lmcu_layer_poison(NULL, dx, conv->in_h * conv->in_w * channels);
    }
    for (int32_t iy = 0; found == LMCU_GRADIENT_READY && iy < conv->in_h; ++iy) {
        for (int32_t ix = 0; ix < conv->in_w; ++ix, dx += channels) {
            for (int32_t first = 0; first < channels; first += BLOCK) {
                const int32_t count = channels - first < BLOCK ? channels - first : BLOCK;
                int32_t sum[BLOCK];
                gather(p, dy, iy, ix, first, count, sum);
                lmcu_layer_add_values(sum, count, unit, dx + first);
            }
        }
    }
}

/* The same with dx in the place of dy, some channels at a time in scratch; multiplier 1. */
void lmcu_depthwise_backward_in_place(const lmcu_depthwise_t *p, const int8_t *y, float *dy, void *scratch)
{
    const lmcu_conv2d_t *conv = &p->conv;
    const int32_t channels = conv->in_c, positions = conv->in_h * conv->in_w;
    lmcu_unit_t unit = {0.0f, 0};
    const lmcu_gradient_t found = quantize(p, y, dy, &unit);
    if (found == LMCU_GRADIENT_NOT_FINITE) {
        lmcu_layer_poison(NULL, dy, positions * channels);
    }
    for (int32_t i = 0; found == LMCU_GRADIENT_ZERO && i < positions * channels; ++i) {
        dy[i] = 0.0f;
    }
    for (int32_t first = 0; found == LMCU_GRADIENT_READY && first < channels; first += LMCU_DEPTHWISE_BLOCK) {
        const int32_t count = channels - first < LMCU_DEPTHWISE_BLOCK ? channels - first : LMCU_DEPTHWISE_BLOCK;
        int32_t *block = scratch;
        for (int32_t at = 0; at < positions; ++at) {
            gather(p, dy, at / conv->in_w, at % conv->in_w, first, count, block + at * count);
        }
        for (int32_t at = 0; at < positions; ++at) {
            for (int32_t c = 0; c < count; ++c) {
                dy[at * channels + first + c] = 0.0f + lmcu_in_units(block[at * count + c], unit);
            }
        }
    }
}
#endif

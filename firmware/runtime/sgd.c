/* SPDX-License-Identifier: Apache-2.0 */
/* SGD with momentum, weight decay, LoRA+ ratio and norm clipping on fp16 factors: all or nothing. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "random.h"
#include "train.h"

/* A run of parameters with one learning rate: the A or the B of a layer. */
typedef struct {
    uint32_t first, end;
    float lr, lr_decay; /* lr_decay = lr * weight_decay */
} segment_t;

static segment_t segment(uint32_t index)
{
    const lmcu_settings_t *s = &lmcu_context.settings;
    const lmcu_adapter_t *a = &lmcu_model.adapters[index / 2u];
    const bool is_b = (index & 1u) != 0u;
    segment_t result;
    result.first = is_b ? a->b_offset : a->a_offset;
    result.end = result.first + (is_b ? a->b_count : a->a_count);
    result.lr = is_b ? s->lr_b_ratio * s->lr : s->lr;
    result.lr_decay = result.lr * s->weight_decay;
    return result;
}

/* What the gradients are still to be multiplied by, after they were multiplied by `factor`: where clipping asks for their norm that
 * is done here, and the rest makes the norm clip_norm at most. False if the norm is not finite. */
static bool clip_gradients(float factor, float *rest)
{
    const float clip = lmcu_context.settings.clip_norm;
    float squares = 0.0f;
    *rest = factor;
    if (clip == 0.0f) {
        return true;
    }
    for (float *g = lmcu_model.gradients, *const end = g + lmcu_model.param_count; g != end; ++g) {
        const float scaled = *g * factor;
        *g = scaled;
        squares = squares + scaled * scaled;
    }
    if (!lmcu_is_finite(squares)) {
        return false;
    }
    const float norm = lmcu_sqrt(squares);
    *rest = norm > clip ? clip / norm : 1.0f;
    return true;
}

/* v = (p - lr * m) - lr_decay * p. `plain`, a constant: lr_decay is 0, and what is left of it makes +0 of -0. */
LMCU_INLINE float new_value(const segment_t *s, bool plain, float p, float m)
{
    const float moved = p - s->lr * m;
#if LMCU_SOFT_FLOAT
    if (plain) {
        return lmcu_float_bits(moved) == 0x80000000u ? 0.0f : moved;
    }
#endif
    return plain ? moved + 0.0f : moved - s->lr_decay * p;
}

/* Without a buffer mu is 0, and the gradients stand in: what is written there is what they are already. */
static float *momentum(void)
{
    return lmcu_model.momentum ? lmcu_model.momentum : lmcu_model.gradients;
}

/* Whether neither momentum nor weight decay is asked for: then m is g but for the sign of a zero, which changes no new value. */
static bool is_plain(void)
{
    return lmcu_context.settings.momentum == 0.0f && lmcu_context.settings.weight_decay == 0.0f;
}

/* What no m exceeds and is not below the largest: without an FPU the largest itself, which needs no additions. */
LMCU_INLINE float covering(float sum, float next)
{
#if LMCU_SOFT_FLOAT
    const uint32_t bits = lmcu_float_bits(next) & 0x7fffffffu;
    return bits > lmcu_float_bits(sum) ? lmcu_float_from_bits(bits) : sum;
#else
    return sum + lmcu_abs(next);
#endif
}

/* The gradients times `rest`; returns what covers them all. */
static float scale_segment(const segment_t s, float rest)
{
    float *g = lmcu_model.gradients + s.first, *const end = lmcu_model.gradients + s.end;
    float sum = 0.0f;
    if (rest == 1.0f) {
        for (; g != end; ++g) {
            sum = covering(sum, *g);
        }
    }
    for (; end - g >= 4; g += 4) {
        for (int32_t i = 0; i < 4; ++i) {
            g[i] = g[i] * rest;
            sum = covering(sum, g[i]);
        }
    }
    for (; g != end; ++g) {
        *g = *g * rest;
        sum = covering(sum, *g);
    }
    return sum;
}

/* The gradients, times `rest`, become the new momentum m = mu * m + g. Returns what covers all m. */
static float advance_segment(const segment_t s, float rest)
{
    const float mu = lmcu_context.settings.momentum;
    const float *m = momentum() + s.first;
    float *g = lmcu_model.gradients + s.first, *const end = lmcu_model.gradients + s.end;
    float sum = 0.0f;
    for (; end - g >= 4; g += 4, m += 4) {
        for (int32_t i = 0; i < 4; ++i) {
            const float next = mu * m[i] + g[i] * rest;
            g[i] = next;
            sum = covering(sum, next);
        }
    }
    for (; g != end; ++g, ++m) {
        *g = mu * *m + *g * rest;
        sum = covering(sum, *g);
    }
    return sum;
}

/* Whether every new value is finite, one by one: what a gradient or m that is not finite makes is not. */
static bool is_finite_segment(const segment_t s)
{
    for (uint32_t i = s.first; i < s.end; ++i) {
        if (!lmcu_is_finite(new_value(&s, false, lmcu_half_to_float(lmcu_model.factors[i]), lmcu_model.gradients[i]))) {
            return false;
        }
    }
    return true;
}

/* The same known from what covers all m, with factors below 2^16; false: not known. */
static bool is_small_segment(const segment_t *s, float covers)
{
    return s->lr * covers <= 0x1p125f && s->lr_decay <= 0x1p100f;
}

/* One parameter takes the momentum that advance_segment or scale_segment left and rounds with 16 random bits, or to nearest. */
LMCU_INLINE uint32_t written(const segment_t *s, bool plain, const float *m, float *keep, float p, bool nearest, uint32_t random16)
{
    const float value = new_value(s, plain, p, *m);
    if (!plain) {
        *keep = *m;
    }
    return nearest ? lmcu_half_nearest(value) : lmcu_half_stochastic_quick(value, random16);
}

/* Parameter i takes one half of the random word i / 2. `plain` and `nearest` are constants after inlining. */
LMCU_INLINE void write_segment(const segment_t s, bool plain, bool nearest)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_UPDATE, lmcu_context.step);
    uint16_t *half = lmcu_model.factors + s.first, *const end = lmcu_model.factors + s.end;
    const float *m = lmcu_model.gradients + s.first;
    float *keep = momentum() + s.first;
    lmcu_random_t words = lmcu_rand_from(key, s.first >> 1);
    if ((s.first & 1u) != 0u && half != end) {
        const uint32_t random = lmcu_rand_next(&words);
        *half = (uint16_t)written(&s, plain, m++, keep++, lmcu_half_to_float(*half), nearest, random >> 16);
        ++half;
    }
    for (; end - half >= 2; half += 2, m += 2, keep += 2) {
        const uint32_t random = nearest ? 0u : lmcu_rand_next(&words);
        float p0, p1;
        lmcu_halves_to_floats(half, &p0, &p1);
        half[0] = (uint16_t)written(&s, plain, m, keep, p0, nearest, random & 0xffffu);
        half[1] = (uint16_t)written(&s, plain, m + 1, keep + 1, p1, nearest, random >> 16);
    }
    if (half != end) {
        *half = (uint16_t)written(&s, plain, m, keep, lmcu_half_to_float(*half), nearest, lmcu_rand_next(&words) & 0xffffu);
    }
}

/* Functions of their own: inside lmcu_update the loop would find too few registers left. */
LMCU_NOINLINE static void write_nearest(const segment_t s)
{
    write_segment(s, false, true);
}

LMCU_NOINLINE static void write_stochastic(const segment_t s)
{
    write_segment(s, false, false);
}

LMCU_NOINLINE static void write_plain(const segment_t s)
{
    write_segment(s, true, false);
}

bool lmcu_update(uint32_t samples)
{
    const uint32_t count = 2u * lmcu_model.adapter_count;
    float rest;
    if (!clip_gradients(1.0f / (float)samples, &rest)) {
        return false;
    }
    for (uint32_t index = 0u; index < count; ++index) {
        const segment_t s = segment(index);
        const float covers = is_plain() ? scale_segment(s, rest) : advance_segment(s, rest);
        if (!is_small_segment(&s, covers) && !is_finite_segment(s)) {
            return false;
        }
    }
    for (uint32_t index = 0u; index < count; ++index) {
        if (lmcu_context.settings.rounding == LMCU_ROUND_NEAREST) {
            write_nearest(segment(index));
        } else if (is_plain()) {
            write_plain(segment(index));
        } else {
            write_stochastic(segment(index));
        }
    }
    lmcu_factors_changed();
    return true;
}

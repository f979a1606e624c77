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

/* gradients *= 1/samples; returns their sum of squares in parameter order where clipping asks for it. */
static float scale_gradients(float factor)
{
    float *g = lmcu_model.gradients, *const end = g + lmcu_model.param_count;
    float sum = 0.0f;
    if (lmcu_context.settings.clip_norm == 0.0f) {
        for (; g != end; ++g) {
            *g = *g * factor;
        }
        return sum;
    }
    for (; g != end; ++g) {
        const float scaled = *g * factor;
        *g = scaled;
        sum = sum + scaled * scaled;
    }
    return sum;
}

/* Scales the gradients so that their norm is at most clip_norm; false if the norm is not finite. */
static bool clip_gradients(float squares)
{
    const float clip = lmcu_context.settings.clip_norm;
    if (clip == 0.0f) {
        return true;
    }
    if (!lmcu_is_finite(squares)) {
        return false;
    }
    const float norm = lmcu_sqrt(squares);
    if (norm > clip) {
        const float factor = clip / norm;
        for (uint32_t i = 0u; i < lmcu_model.param_count; ++i) {
            lmcu_model.gradients[i] = lmcu_model.gradients[i] * factor;
        }
    }
    return true;
}

/* v = (p - lr * m) - lr_decay * p */
LMCU_INLINE float new_value(const segment_t *s, float p, float m)
{
    return (p - s->lr * m) - s->lr_decay * p;
}

/* Without a buffer mu is 0, and the gradients stand in: what is written there is what they are already. */
static float *momentum(void)
{
    return lmcu_model.momentum ? lmcu_model.momentum : lmcu_model.gradients;
}

/* The gradients become the new momentum m = mu * m + g. False where a new value is not finite, as it is not where the
 * gradient or m is not: products with 0 add up to 0 of finite values only. */
static bool advance_segment(const segment_t s)
{
    const float mu = lmcu_context.settings.momentum;
    const uint16_t *p = lmcu_model.factors + s.first;
    const float *m = momentum() + s.first;
    float *g = lmcu_model.gradients + s.first, *const end = lmcu_model.gradients + s.end;
    float poison = 0.0f;
    for (; end - g >= 2; g += 2, m += 2, p += 2) {
        float p0, p1;
        lmcu_halves_to_floats(p, &p0, &p1);
        const float m0 = mu * m[0] + g[0], m1 = mu * m[1] + g[1];
        g[0] = m0;
        g[1] = m1;
        poison = poison + new_value(&s, p0, m0) * 0.0f;
        poison = poison + new_value(&s, p1, m1) * 0.0f;
    }
    if (g != end) {
        *g = mu * *m + *g;
        poison = poison + new_value(&s, lmcu_half_to_float(*p), *g) * 0.0f;
    }
    return poison == 0.0f;
}

/* One parameter takes the momentum that advance_segment left and rounds with 16 random bits, or to nearest. */
LMCU_INLINE void write_one(const segment_t *s, float *keep, uint32_t i, float p, bool nearest, uint32_t random16)
{
    const float m = lmcu_model.gradients[i], value = new_value(s, p, m);
    keep[i] = m;
    lmcu_model.factors[i] = nearest ? lmcu_half_nearest(value) : lmcu_half_stochastic_quick(value, random16);
}

/* Parameter i takes one half of the random word i / 2. */
static void write_segment(const segment_t s)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_UPDATE, lmcu_context.step);
    const bool nearest = lmcu_context.settings.rounding == LMCU_ROUND_NEAREST;
    float *keep = momentum();
    uint32_t i = s.first;
    if ((i & 1u) != 0u && i < s.end) {
        write_one(&s, keep, i, lmcu_half_to_float(lmcu_model.factors[i]), nearest, lmcu_rand_at(key, i >> 1) >> 16);
        ++i;
    }
    for (; i + 2u <= s.end; i += 2u) {
        const uint32_t random = nearest ? 0u : lmcu_rand_at(key, i >> 1);
        float p0, p1;
        lmcu_halves_to_floats(lmcu_model.factors + i, &p0, &p1);
        write_one(&s, keep, i, p0, nearest, random & 0xffffu);
        write_one(&s, keep, i + 1u, p1, nearest, random >> 16);
    }
    if (i < s.end) {
        write_one(&s, keep, i, lmcu_half_to_float(lmcu_model.factors[i]), nearest, lmcu_rand_at(key, i >> 1) & 0xffffu);
    }
}

bool lmcu_update(uint32_t samples)
{
    if (!clip_gradients(scale_gradients(1.0f / (float)samples))) {
        return false;
    }
    for (uint32_t index = 0u; index < 2u * lmcu_model.adapter_count; ++index) {
        if (!advance_segment(segment(index))) {
            return false;
        }
    }
    for (uint32_t index = 0u; index < 2u * lmcu_model.adapter_count; ++index) {
        write_segment(segment(index));
    }
    return true;
}

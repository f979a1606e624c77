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

/* gradients *= 1/samples; false if one is not finite. *squares is their sum of squares in parameter order. */
static bool scale_gradients(float factor, float *squares)
{
    float sum = 0.0f;
    bool finite = true;
    for (uint32_t i = 0u; i < lmcu_model.param_count; ++i) {
        const float g = lmcu_model.gradients[i] * factor;
        lmcu_model.gradients[i] = g;
        finite = finite && lmcu_is_finite(g);
        sum = sum + g * g;
    }
    *squares = sum;
    return finite;
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

/* m = mu * m + g; returns v = (p - lr * m) - lr_decay * p */
LMCU_INLINE float new_value(const segment_t *s, uint32_t i, float *momentum)
{
    const float m = lmcu_context.settings.momentum * lmcu_model.momentum[i] + lmcu_model.gradients[i];
    const float p = lmcu_half_to_float(lmcu_model.factors[i]);
    *momentum = m;
    return (p - s->lr * m) - s->lr_decay * p;
}

static bool segment_is_finite(const segment_t *s)
{
    bool finite = true;
    for (uint32_t i = s->first; i < s->end; ++i) {
        float momentum;
        const float value = new_value(s, i, &momentum);
        finite = finite && lmcu_is_finite(momentum) && lmcu_is_finite(value);
    }
    return finite;
}

/* Parameter i takes one half of the random word i / 2. */
static void write_segment(const segment_t *s)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_UPDATE, lmcu_context.step);
    const bool nearest = lmcu_context.settings.rounding == LMCU_ROUND_NEAREST;
    for (uint32_t i = s->first; i < s->end; ++i) {
        const float value = new_value(s, i, &lmcu_model.momentum[i]);
        if (nearest) {
            lmcu_model.factors[i] = lmcu_half_nearest(value);
        } else {
            const uint32_t random = lmcu_rand_at(key, i >> 1);
            lmcu_model.factors[i] = lmcu_half_stochastic(value, (i & 1u) != 0u ? random >> 16 : random & 0xffffu);
        }
    }
}

bool lmcu_update(uint32_t samples)
{
    float squares;
    if (!scale_gradients(1.0f / (float)samples, &squares) || !clip_gradients(squares)) {
        return false;
    }
    for (uint32_t index = 0u; index < 2u * lmcu_model.adapter_count; ++index) {
        const segment_t s = segment(index);
        if (!segment_is_finite(&s)) {
            return false;
        }
    }
    for (uint32_t index = 0u; index < 2u * lmcu_model.adapter_count; ++index) {
        const segment_t s = segment(index);
        write_segment(&s);
    }
    return true;
}

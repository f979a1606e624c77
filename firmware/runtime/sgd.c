/* SPDX-License-Identifier: Apache-2.0 */
/* SGD with momentum, weight decay, LoRA+ ratio and norm clipping on fp16 factors: all or nothing. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "patch.h"
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

/* The gradients times `rest`. */
static void scale_segment(const segment_t s, float rest)
{
    float *g = lmcu_model.gradients + s.first, *const end = lmcu_model.gradients + s.end;
    for (; rest != 1.0f && g != end; ++g) {
        *g = *g * rest;
    }
}

/* The gradients, times `rest`, become the new momentum m = mu * m + g. */
static void advance_segment(const segment_t s, float rest)
{
    const float mu = lmcu_context.settings.momentum;
    const float *m = momentum() + s.first;
    float *g = lmcu_model.gradients + s.first, *const end = lmcu_model.gradients + s.end;
    for (; g != end; ++g, ++m) {
        *g = mu * *m + *g * rest;
    }
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

/* The same known from the largest m, with factors below 2^16; false: not known. */
static bool is_small_segment(const segment_t *s)
{
    const float most = lmcu_float_from_bits(lmcu_largest(lmcu_model.gradients + s->first, (int32_t)(s->end - s->first)));
    return s->lr * most <= 0x1p125f && s->lr_decay <= 0x1p100f;
}

/* v as binary16: rounded with 16 random bits, or to nearest */
LMCU_INLINE uint16_t rounded(float v, bool nearest, uint32_t random16)
{
    return (uint16_t)(nearest ? lmcu_half_nearest(v) : lmcu_half_stochastic_quick(v, random16));
}

/* Parameter i takes the momentum that advance_segment left and one half of the random word i / 2. `nearest` is a constant after
 * inlining. */
LMCU_INLINE void write_segment(const segment_t s, bool nearest)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_UPDATE, lmcu_context.step);
    uint16_t *half = lmcu_model.factors + s.first, *const end = lmcu_model.factors + s.end;
    const float *m = lmcu_model.gradients + s.first;
    float *keep = momentum() + s.first;
    lmcu_random_t words = lmcu_rand_from(key, s.first >> 1);
    if ((s.first & 1u) != 0u && half != end) {
        const uint32_t random = lmcu_rand_next(&words);
        *half = rounded(new_value(&s, false, lmcu_half_to_float(*half), *m), nearest, random >> 16);
        ++half;
        *keep++ = *m++;
    }
    for (; end - half >= 2; half += 2, m += 2, keep += 2) {
        const uint32_t random = nearest ? 0u : lmcu_rand_next(&words);
        float p0, p1;
        lmcu_halves_to_floats(half, &p0, &p1);
        half[0] = rounded(new_value(&s, false, p0, m[0]), nearest, random & 0xffffu);
        half[1] = rounded(new_value(&s, false, p1, m[1]), nearest, random >> 16);
        keep[0] = m[0];
        keep[1] = m[1];
    }
    if (half != end) {
        *half = rounded(new_value(&s, false, lmcu_half_to_float(*half), *m), nearest, lmcu_rand_next(&words) & 0xffffu);
        *keep = *m;
    }
}

/* Functions of their own: inside lmcu_update the loop would find too few registers left. */
LMCU_NOINLINE static void write_nearest(const segment_t s)
{
    write_segment(s, true);
}

LMCU_NOINLINE static void write_stochastic(const segment_t s)
{
    write_segment(s, false);
}

/* ---- without momentum and weight decay ---- */

#if LMCU_HALF_HARDWARE && LMCU_DSP
/* Both ways below begin alike: v - lr * m of two neighbours in s0 and s1, their bits in v and w, the first steps of a random word. */
#define TWO_VALUES                                                                                                     \
    "1:\n\tldr %[v], [%[half]]\n\tvmov s0, %[v]\n\tvldmia %[m]!, {s2, s3}\n\tvcvtt.f32.f16 s1, s0\n\t"                \
    "vcvtb.f32.f16 s0, s0\n\tvmul.f32 s2, %[lr], s2\n\tvmul.f32 s3, %[lr], s3\n\tvsub.f32 s0, s0, s2\n\t"             \
    "vsub.f32 s1, s1, s3\n\teor %[x], %[next], %[next], lsr #16\n\tvmov %[v], %[w], s0, s1\n\t"                       \
    "mul %[x], %[x], %[first]\n\teor %[x], %[x], %[x], lsr #15\n\tmul %[x], %[x], %[second]\n\t"
#define KEEP_TWO "str %[v], [%[half]], #4\n\tcmp %[half], %[end]\n\tbne 1b\n\t2:"
#define OPERANDS                                                                                                       \
    [half] "+&r"(half), [m] "+&r"(m), [next] "+&r"(next), [x] "=&r"(x), [y] "=&r"(y), [z] "=&r"(z), [v] "=&r"(v),       \
        [w] "=&r"(w)                                                                                                   \
        : [end] "r"(end), [step] "r"(words->step), [first] "r"(words->first), [second] "r"(words->second), [lr] "t"(s->lr)

/* Pairs of parameters as long as both new values, before they are rounded, are 2^-14 at least and below 4: with random bits added to
 * the 13 that binary16 has not, and these cut off, the conversion is exact. Returns where it stopped, before `end`. */
static uint16_t *write_middling(const segment_t *s, uint16_t *half, const uint16_t *end, lmcu_random_t *words)
{
    const float *m = lmcu_model.gradients + (half - lmcu_model.factors);
    const uint32_t least = 0u - (0x38800000u << 1);
    uint32_t next = words->next, x, y, z, v, w;
    __asm__ volatile(TWO_VALUES "add %[y], %[least], %[v], lsl #1\n\tadd %[z], %[least], %[w], lsl #1\n\t"
                     "orr %[y], %[y], %[z]\n\tcmp %[y], #0x10000000\n\tbhs 2f\n\teor %[x], %[x], %[x], lsr #16\n\t"
                     "add %[next], %[next], %[step]\n\tubfx %[y], %[x], #3, #13\n\tadd %[w], %[w], %[x], lsr #19\n\t"
                     "add %[v], %[v], %[y]\n\tbfc %[w], #0, #13\n\tbfc %[v], #0, #13\n\tvmov s0, s1, %[v], %[w]\n\t"
                     "vcvtb.f16.f32 s0, s0\n\tvcvtt.f16.f32 s0, s1\n\tvmov %[v], s0\n\t" KEEP_TWO
                     : OPERANDS, [least] "r"(least)
                     : "s0", "s1", "s2", "s3", "cc", "memory");
    words->next = next;
    return half;
}

/* The same as long as both are below 2^-14: a unit is 2^-24 there, so that value * 2^40 is the result and 16 bits of its fraction. */
static uint16_t *write_small(const segment_t *s, uint16_t *half, const uint16_t *end, lmcu_random_t *words)
{
    const float *m = lmcu_model.gradients + (half - lmcu_model.factors);
    uint32_t next = words->next, x, y, z, v, w;
    __asm__ volatile(TWO_VALUES "vabs.f32 s2, s0\n\tvabs.f32 s3, s1\n\tvmul.f32 s2, s2, %[units]\n\tvmul.f32 s3, s3, %[units]\n\t"
                     "vcvt.u32.f32 s2, s2\n\tvcvt.u32.f32 s3, s3\n\tvmov %[y], %[z], s2, s3\n\tvadd.f32 s0, s0, %[zero]\n\t"
                     "vadd.f32 s1, s1, %[zero]\n\torr %[v], %[y], %[z]\n\tcmp %[v], #0x4000000\n\tbhs 2f\n\t"
                     "eor %[x], %[x], %[x], lsr #16\n\tadd %[next], %[next], %[step]\n\tvmov %[v], %[w], s0, s1\n\t"
                     "uxtah %[y], %[y], %[x]\n\tadd %[z], %[z], %[x], lsr #16\n\tand %[v], %[v], #0x80000000\n\t"
                     "pkhtb %[z], %[z], %[y], asr #16\n\tand %[w], %[w], #0x80000000\n\torr %[z], %[z], %[v], lsr #16\n\t"
                     "orr %[v], %[z], %[w]\n\t" KEEP_TWO
                     : OPERANDS, [units] "t"(0x1p40f), [zero] "t"(0.0f)
                     : "s0", "s1", "s2", "s3", "cc", "memory");
    words->next = next;
    return half;
}
#undef TWO_VALUES
#undef KEEP_TWO
#undef OPERANDS
#define SELDOM LMCU_NOINLINE static
#else
#define SELDOM LMCU_INLINE
static uint16_t *write_middling(const segment_t *s, uint16_t *half, const uint16_t *end, lmcu_random_t *words)
{
    (void)s, (void)end, (void)words;
    return half;
}

static uint16_t *write_small(const segment_t *s, uint16_t *half, const uint16_t *end, lmcu_random_t *words)
{
    return write_middling(s, half, end, words);
}
#endif

SELDOM void write_one(const segment_t *s, uint16_t *half, uint32_t random16)
{
    const float m = lmcu_model.gradients[half - lmcu_model.factors];
    *half = rounded(new_value(s, true, lmcu_half_to_float(*half), m), false, random16);
}

/* The gradients, scaled, are the momentum, and none is kept. */
LMCU_NOINLINE static void write_plain(const segment_t s)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_UPDATE, lmcu_context.step);
    uint16_t *half = lmcu_model.factors + s.first, *const end = lmcu_model.factors + s.end;
    lmcu_random_t words = lmcu_rand_from(key, s.first >> 1);
    if ((s.first & 1u) != 0u && half != end) {
        write_one(&s, half++, lmcu_rand_next(&words) >> 16);
    }
    uint16_t *const whole = half + ((end - half) & ~1);
    while (half != whole) {
        half = write_middling(&s, half, whole, &words);
        half = half != whole ? write_small(&s, half, whole, &words) : half;
        if (half != whole) { /* one of each, or beyond 4 */
            const uint32_t random = lmcu_rand_next(&words);
            write_one(&s, half++, random & 0xffffu);
            write_one(&s, half++, random >> 16);
        }
    }
    if (half != end) {
        write_one(&s, half, lmcu_rand_next(&words) & 0xffffu);
    }
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
        if (is_plain()) {
            scale_segment(s, rest);
        } else {
            advance_segment(s, rest);
        }
        if (!is_small_segment(&s) && !is_finite_segment(s)) {
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Mode i16: the backward pass of a layer with weights in integers (docs/numerics.md). Gradients between operators stay
 * float32; inside a layer they are int16 with one power of two as their unit. */
#ifndef LMCU_BLOCK_H
#define LMCU_BLOCK_H

#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"
#include "lora.h"

#if LMCU_NUMERICS_I16

extern int16_t lmcu_tables[];
extern const lmcu_lora_t *const lmcu_loras[]; /* [adapter_count] */

/* Bits that `value` takes: 0 for 0. */
LMCU_INLINE int32_t lmcu_bits(uint32_t value)
{
#if defined(__GNUC__)
    return value != 0u ? 32 - __builtin_clz(value) : 0;
#else
    int32_t bits = 0;
    for (; value != 0u; value >>= 1) {
        ++bits;
    }
    return bits;
#endif
}

/* The smallest n with 2^n >= value > 0. */
LMCU_INLINE int32_t lmcu_log2_up(uint32_t value)
{
    return lmcu_bits(value - 1u);
}

/* The most bits, up to 15, that integers may have so that `terms` products with patch values, abs <= 255, sum up in int32. */
LMCU_INLINE int32_t lmcu_sum_bits(int32_t terms)
{
    const int32_t bits = lmcu_bits(0x7fffffffu / (255u * (uint32_t)terms) + 1u) - 1;
    return bits < 15 ? bits : 15;
}

/* 2^exponent, within what a normal float32 can be */
typedef struct {
    float power;
    int32_t exponent;
} lmcu_unit_t;

lmcu_unit_t lmcu_unit(int32_t exponent);

/* value times the unit */
LMCU_INLINE float lmcu_in_units(int32_t value, lmcu_unit_t unit)
{
    const float converted = (float)value;
#if LMCU_SOFT_FLOAT
    const uint32_t bits = lmcu_float_bits(converted), exponent = (bits >> 23 & 255u) + (uint32_t)unit.exponent;
    if (value == 0) {
        return 0.0f;
    }
    if (exponent - 1u < 254u) { /* the product is exact */
        return lmcu_float_from_bits(bits + ((uint32_t)unit.exponent << 23));
    }
#endif
    return converted * unit.power;
}

/* One layer's backward pass over one sample. Of each output's gradient g = G * 2^unit, V stands for s_w[o] * g. */
typedef struct {
    const lmcu_lora_t *lora;  /* NULL: not adapted */
    lmcu_factors_t f;
    const int8_t *weights;    /* [m][k] */
    int32_t weight_zero_point, positions, k, m;
    float *words;             /* G in the low half, V in the high half, of [rows][m] outputs: in the place of dy, or one row */
    const float *row;         /* the current position's words */
    uint16_t *list;           /* its outputs that have a gradient */
    int32_t count;
    int32_t *da, *db;         /* [rank][k], [m][rank] sums over the positions; NULL where there is one position */
    lmcu_unit_t da_unit, db_unit, value_unit;
    int32_t t_shift, h_shift, h_limit, align;
    uint32_t key, h_random;   /* of the random stream; the index of h's first word */
    int32_t h[LMCU_MAX_RANK]; /* of the current position */
} lmcu_layer_t;

typedef enum { LMCU_GRADIENT_ZERO, LMCU_GRADIENT_READY, LMCU_GRADIENT_NOT_FINITE } lmcu_gradient_t;

/* Bits that V gives up so that sums of `terms` products with weights stay below 2^30: bits(terms) <= 7 gives up none. */
LMCU_INLINE int32_t lmcu_terms_shift(int32_t terms)
{
    const int32_t bits = lmcu_log2_up((uint32_t)terms);
    return bits > 7 ? bits - 7 : 0;
}

/* Quantizes `rows` rows of m gradients into `words`, which may be dy. `largest` gets the greatest row sum of abs(G), `unit` the
 * exponent of G's unit. */
lmcu_gradient_t lmcu_quantize_gradient(const lmcu_block_t *block, int32_t shift, int32_t rows, int32_t m, const float *dy,
                                       float *words, uint32_t *largest, int32_t *unit);

/* The random bits of the open batch's current sample: the stream's key, and the index of the layer's first word. */
uint32_t lmcu_block_key(void);
uint32_t lmcu_block_index(const lmcu_block_t *block);

/* The halves of a word. */
LMCU_INLINE int32_t lmcu_word_g(float word)
{
    return (int16_t)lmcu_float_bits(word);
}

LMCU_INLINE int32_t lmcu_word_v(float word)
{
    return (int32_t)lmcu_float_bits(word) >> 16;
}

/* Whether one output's G is stopped. */
LMCU_INLINE int lmcu_is_masked(int32_t g, int32_t y, const lmcu_clamp_t *clamp)
{
    return (y >= clamp->act_max && (clamp->max_is_bound != 0 || g < 0)) ||
           (y <= clamp->act_min && (clamp->min_is_bound != 0 || g > 0));
}

/* Begins with lora, weights, weight_zero_point, positions, k, m, words set and `sums`: 4 * rank * (k + m) + 2 * m bytes, or 2 * m
 * where there is no adapter or one position. rows: 1 where all positions share a gradient. */
lmcu_gradient_t lmcu_layer_begin(lmcu_layer_t *l, const lmcu_block_t *block, const float *dy, int32_t rows, void *sums);
/* Lists what masking leaves of one position; 0: nothing. */
int32_t lmcu_layer_list(lmcu_layer_t *l, const float *words, const int8_t *y, const lmcu_clamp_t *clamp);
/* dB, h and dA of the listed position. */
void lmcu_layer_adapter(lmcu_layer_t *l, int32_t position, const int16_t *patch);
/* val [k] = W^T V + A^T h of the listed position, in value_unit */
void lmcu_layer_values(const lmcu_layer_t *l, int32_t *val);
/* Adds the sums to the gradient buffers. */
void lmcu_layer_end(const lmcu_layer_t *l);
/* dx [count] += val in units */
LMCU_INLINE void lmcu_layer_add_values(const int32_t *restrict val, int32_t count, lmcu_unit_t unit, float *restrict dx)
{
    for (int32_t i = 0; i < count; ++i) {
        dx[i] = dx[i] + lmcu_in_units(val[i], unit);
    }
}
/* A gradient that is not finite makes the layer's, and all of dx [count], which may be NULL, NaN: the step will be skipped. */
void lmcu_layer_poison(const lmcu_lora_t *lora, float *dx, int32_t count);

#endif
#endif

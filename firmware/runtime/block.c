/* SPDX-License-Identifier: Apache-2.0 */
/* Mode i16: gradients quantized to int16, and one layer's gradients and W^T g from them in exact integer sums. */
#include "lmcu_strict.h"

#include "block.h"

#if LMCU_NUMERICS_I16

#include "lmcu_math.h"
#include "random.h"

/* ---- quantization ---- */

uint32_t lmcu_block_key(void)
{
    return lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_GRADIENT, lmcu_context.step);
}

uint32_t lmcu_block_index(const lmcu_block_t *block)
{
    return block->random + lmcu_context.batch_fill * block->words;
}

static float power(int32_t exponent)
{
    const int32_t limited = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
    return lmcu_float_from_bits((uint32_t)(limited + 127) << 23);
}

float lmcu_scaled(float value, int32_t exponent)
{
    const int32_t first = exponent / 2;
    return value * power(first) * power(exponent - first);
}

/* The exponent field of the largest of all magnitudes. */
static int32_t largest_exponent(const float *values, int32_t count)
{
    uint32_t most = 0;
    for (int32_t i = 0; i < count; ++i) {
        const uint32_t magnitude = lmcu_float_bits(values[i]) << 1;
        most = magnitude > most ? magnitude : most;
    }
    return (int32_t)(most >> 24);
}

/* One gradient as G, at random up or down, and V = G * S, rounded. */
LMCU_INLINE uint32_t quantized(uint32_t bits, int32_t top, uint32_t random16, int32_t scale, int32_t shift)
{
    const int32_t exponent = (int32_t)(bits >> 23 & 255u), down = top - exponent;
    if (exponent == 0 || down > 31) {
        return 0;
    }
    const uint32_t magnitude = ((((bits & 0x7fffffu) | 0x800000u) << 7 >> down) + random16) >> 16;
    const int32_t limited = (int32_t)(magnitude < 0x7fffu ? magnitude : 0x7fffu);
    const int32_t g = bits >> 31 != 0u ? -limited : limited;
    const int32_t v = (g * scale + (1 << (14 + shift))) >> (15 + shift);
    return ((uint32_t)g & 0xffffu) | (uint32_t)v << 16;
}

lmcu_gradient_t lmcu_quantize_gradient(const lmcu_block_t *block, int32_t shift, int32_t rows, int32_t m, const float *dy,
                                       float *words, uint32_t *largest, int32_t *unit)
{
    const int32_t top = largest_exponent(dy, rows * m);
    if (top == 0 || top == 255) {
        return top == 0 ? LMCU_GRADIENT_ZERO : LMCU_GRADIENT_NOT_FINITE;
    }
    lmcu_random_t random = lmcu_rand_from(lmcu_block_key(), lmcu_block_index(block));
    uint32_t most = 0, pair = 0;
    int32_t odd = 0;
    for (int32_t row = 0; row < rows; ++row) {
        uint32_t sum = 0;
        for (int32_t o = 0; o < m; ++o, ++dy, ++words, odd ^= 1) {
            pair = odd ? pair >> 16 : lmcu_rand_next(&random);
            const uint32_t word = quantized(lmcu_float_bits(*dy), top, pair & 0xffffu, block->scales[o], shift);
            const int32_t g = (int16_t)word;
            sum += (uint32_t)(g < 0 ? -g : g);
            *words = lmcu_float_from_bits(word);
        }
        most = sum > most ? sum : most;
    }
    *largest = most;
    *unit = top - 141;
    return LMCU_GRADIENT_READY;
}

/* ---- one layer ---- */

/* The shift that leaves `bits` of integers up to `bound`. */
static int32_t shift_to(uint64_t bound, int32_t bits)
{
    const uint32_t high = (uint32_t)(bound >> 32);
    const int32_t needed = high != 0u ? 32 + lmcu_bits(high) : lmcu_bits((uint32_t)bound);
    return needed > bits ? needed - bits : 0;
}

/* Units, shifts and sums of an adapted layer. */
static void begin_adapter(lmcu_layer_t *l, uint32_t largest, int32_t unit_g, int32_t unit_v, int32_t *sums)
{
    const lmcu_lora_t *lora = l->lora;
    const int32_t rank_bits = lmcu_log2_up((uint32_t)lora->rank), a_bits = lmcu_sum_bits(l->k);
    const int32_t t_bits = lmcu_bits(255u * (uint32_t)l->k * ((1u << a_bits) - 1u));
    int32_t h_bits = lmcu_sum_bits(l->positions);
    h_bits = h_bits < 30 - a_bits - rank_bits ? h_bits : 30 - a_bits - rank_bits;
    l->f = lmcu_lora_direct(lora, l->k, l->m);
    l->t_shift = 31 - t_bits - lmcu_log2_up((uint32_t)l->positions);
    l->h_shift = shift_to((uint64_t)largest << (30 - rank_bits), h_bits);
    l->h_limit = (1 << h_bits) - 1;
    const int32_t unit_h = unit_g + l->f.b_unit + lora->gamma_exponent + l->h_shift;
    l->align = l->f.a_unit + unit_h - unit_v;
    l->da_scale = lmcu_scaled(lora->input_scale, unit_h);
    l->db_scale = lmcu_scaled(lora->gamma * lora->input_scale, 16 + unit_g + l->f.a_unit - l->t_shift);
    l->da = l->positions > 1 ? sums : 0;
    l->db = l->positions > 1 ? sums + lora->rank * l->k : 0;
    for (int32_t i = 0; l->da && i < lora->rank * (l->k + l->m); ++i) {
        sums[i] = 0;
    }
}

lmcu_gradient_t lmcu_layer_begin(lmcu_layer_t *l, const lmcu_block_t *block, const float *dy, int32_t rows, void *sums)
{
    const int32_t shift = lmcu_terms_shift(l->m);
    uint32_t largest;
    int32_t unit;
    const lmcu_gradient_t found = lmcu_quantize_gradient(block, shift, rows, l->m, dy, l->words, &largest, &unit);
    if (found != LMCU_GRADIENT_READY) {
        return found;
    }
    const int32_t unit_v = unit + block->exponent + 15 + shift;
    l->list = sums;
    l->key = lmcu_block_key();
    l->h_random = lmcu_block_index(block) + (uint32_t)(rows * l->m + 1) / 2u;
    l->align = 0;
    if (l->lora) {
        begin_adapter(l, largest, unit, unit_v, (int32_t *)sums + l->m);
    }
    l->value_scale = lmcu_scaled(1.0f, unit_v + (l->lora && l->align > 0 ? l->align : 0));
    return LMCU_GRADIENT_READY;
}

int32_t lmcu_layer_list(lmcu_layer_t *l, const float *words, const int8_t *y, const lmcu_clamp_t *clamp)
{
    uint32_t *to = l->list;
    for (int32_t o = 0; o < l->m; ++o) {
        const int32_t g = lmcu_word_g(words[o]);
        if (g != 0 && !lmcu_is_masked(g, y[o], clamp)) {
            *to++ = (uint32_t)o << 16 | (lmcu_float_bits(words[o]) >> 16);
        }
    }
    l->count = (int32_t)(to - l->list);
    return l->count;
}

/* dB[o,j] += T[j] * G[o] / 2^16 */
static void add_db(lmcu_layer_t *l, const float *words, const int32_t *t)
{
    const int32_t rank = l->f.rank;
    float *db = lmcu_model.gradients + l->lora->b_offset;
    for (int32_t i = 0; i < l->count; ++i) {
        const int32_t o = (int32_t)(l->list[i] >> 16), g = lmcu_word_g(words[o]);
        for (int32_t j = 0; j < rank; ++j) {
            const int32_t product = (int32_t)((int64_t)t[j] * g >> 16);
            if (l->db) {
                l->db[o * rank + j] += product;
            } else {
                db[o * rank + j] = db[o * rank + j] + l->db_scale * (float)product;
            }
        }
    }
}

/* h[j] = gamma * sum_o B[o,j] * G[o], rounded at random to h_limit */
static void make_h(lmcu_layer_t *l, const float *words, int32_t position)
{
    const int32_t rank = l->f.rank;
    int64_t sum[LMCU_MAX_RANK];
    for (int32_t j = 0; j < rank; ++j) {
        sum[j] = 0;
    }
    for (int32_t i = 0; i < l->count; ++i) {
        const int32_t o = (int32_t)(l->list[i] >> 16), g = lmcu_word_g(words[o]);
        const int16_t *b = l->f.b + o * l->f.rank2;
        for (int32_t j = 0; j < rank; ++j) {
            sum[j] += b[j] * g;
        }
    }
    for (int32_t j = 0; j < rank; ++j) {
        const uint32_t index = (uint32_t)(position * rank + j);
        const uint32_t random = lmcu_rand_at(l->key, l->h_random + (index >> 1)) >> (16u * (index & 1u)) & 0xffffu;
        const int64_t h = (sum[j] * l->lora->gamma_whole + (int64_t)(((uint64_t)random << l->h_shift) >> 16)) >> l->h_shift;
        l->h[j] = h > l->h_limit ? l->h_limit : h < -l->h_limit ? -l->h_limit : (int32_t)h;
    }
}

/* dA[j,k] += h[j] * patch[k] */
static void add_da(lmcu_layer_t *l, const int16_t *patch)
{
    const int32_t k = l->k;
    float *da = lmcu_model.gradients + l->lora->a_offset;
    for (int32_t j = 0; j < l->f.rank; ++j) {
        for (int32_t i = 0; i < k; ++i) {
            const int32_t product = l->h[j] * patch[(i & ~3) | LMCU_PLACE(i & 3)];
            if (l->da) {
                l->da[j * k + i] += product;
            } else {
                da[j * k + i] = da[j * k + i] + l->da_scale * (float)product;
            }
        }
    }
}

void lmcu_layer_adapter(lmcu_layer_t *l, int32_t position, const float *words, const int16_t *patch)
{
    int32_t t[LMCU_MAX_RANK];
    lmcu_lora_products(&l->f, patch, LMCU_GROUP, t);
    for (int32_t j = 0; j < l->f.rank; ++j) {
        t[j] = l->t_shift >= 0 ? t[j] * (int32_t)(1u << l->t_shift) : t[j] >> -l->t_shift;
    }
    add_db(l, words, t);
    make_h(l, words, position);
    add_da(l, patch);
}

/* ---- W^T V + A^T h ---- */

/* Four listed outputs a pass, so that val is loaded and stored once for four products. */
LMCU_INLINE void add_rows(const lmcu_layer_t *l, const uint32_t *list, int32_t rows, int32_t zero_point, int32_t *restrict val)
{
    for (int32_t r = 0; r < rows; ++r) {
        const int8_t *w = l->weights + (intptr_t)(list[r] >> 16) * l->k;
        const int32_t v = (int16_t)list[r];
        for (int32_t i = 0; i < l->k; ++i) {
            val[i] += v * (w[i] - zero_point);
        }
    }
}

/* A^T h, aligned with what stands in val */
static void add_adapter(const lmcu_layer_t *l, int32_t *val)
{
    const int32_t up = l->align > 0 ? (l->align < 31 ? l->align : 31) : 0;
    const int32_t down = l->align < 0 ? (l->align > -31 ? -l->align : 31) : 0;
    for (int32_t i = 0; i < l->k; ++i) {
        const int16_t *a = l->f.a + ((i & ~3) | LMCU_PLACE(i & 3));
        int32_t sum = 0;
        for (int32_t j = 0; j < l->f.rank; ++j) {
            sum += a[j * l->f.k4] * l->h[j];
        }
        val[i] = (val[i] >> up) + (sum >> down);
    }
}

void lmcu_layer_values(const lmcu_layer_t *l, int32_t *val)
{
    for (int32_t i = 0; i < l->k; ++i) {
        val[i] = 0;
    }
    for (int32_t i = 0; i < l->count; i += 4) {
        add_rows(l, l->list + i, l->count - i < 4 ? l->count - i : 4, l->weight_zero_point, val);
    }
    if (l->lora) {
        add_adapter(l, val);
    }
}

static void add_sums(float *gradient, const int32_t *sums, int32_t count, float scale)
{
    for (int32_t i = 0; i < count; ++i) {
        gradient[i] = gradient[i] + scale * (float)sums[i];
    }
}

void lmcu_layer_end(const lmcu_layer_t *l)
{
    if (l->lora && l->da) {
        add_sums(lmcu_model.gradients + l->lora->a_offset, l->da, l->f.rank * l->k, l->da_scale);
        add_sums(lmcu_model.gradients + l->lora->b_offset, l->db, l->m * l->f.rank, l->db_scale);
    }
}

void lmcu_layer_poison(const lmcu_lora_t *lora, float *dx, int32_t count)
{
    const float nan = lmcu_float_from_bits(0x7fc00000u);
    if (lora) {
        lmcu_model.gradients[lora->a_offset] = nan;
    }
    for (int32_t i = 0; dx && i < count; ++i) {
        dx[i] = nan;
    }
}

#else
typedef int lmcu_block_is_not_used_t;
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA, mode i16: the factors as block-scaled int16 tables, made anew when they change; integer products in every pass. */
#include "lmcu_strict.h"

#include "block.h"
#include "lora.h"
#include "lmcu_math.h"
#include "patch.h"

#if LMCU_NUMERICS_I16

enum { TABLE_HEAD = 4 }; /* units of A and of B, and room to the next multiple of 8 bytes */

/* ---- tables: unit exponents, A [rank][k4] in the order of patches, B [m][rank2] ---- */

static int32_t even(int32_t rank)
{
    return (rank + 1) & ~1;
}

static int16_t *table_of(const lmcu_lora_t *lora)
{
    return lmcu_tables + lora->tables;
}

static int16_t *table_a(const lmcu_lora_t *lora)
{
    return table_of(lora) + TABLE_HEAD;
}

static int16_t *table_b(const lmcu_lora_t *lora)
{
    return table_a(lora) + lora->rank * lmcu_patch_length(lora->k);
}

/* magnitude * 2^shift, rounded half up, at most 2^bits - 1; magnitude < 2^11 */
static int32_t fitted(uint32_t magnitude, int32_t shift, int32_t bits)
{
    const uint32_t limit = (1u << bits) - 1u;
    if (shift >= 0) {
        magnitude <<= shift;
    } else if (shift > -13) {
        magnitude = (magnitude + (1u << (-shift - 1))) >> -shift;
    } else {
        return 0;
    }
    return (int32_t)(magnitude < limit ? magnitude : limit);
}

static int32_t half_exponent(uint16_t half)
{
    const int32_t field = half >> 10 & 31;
    return field > 0 ? field : 1;
}

/* The exponent of the largest of `count` factors. */
static int32_t top_exponent(const uint16_t *half, int32_t count)
{
    uint32_t most = 0;
    for (int32_t i = 0; i < count; ++i) {
        const uint32_t magnitude = half[i] & 0x7fffu;
        most = magnitude > most ? magnitude : most;
    }
    return half_exponent((uint16_t)most);
}

/* One factor in units of 2^(top - 14 - bits). */
LMCU_INLINE int16_t tabulated(uint16_t half, int32_t top, int32_t bits)
{
    const uint32_t magnitude = (half & 0x3ffu) | ((half & 0x7c00u) != 0u ? 0x400u : 0u);
    const int32_t value = fitted(magnitude, bits - 11 + half_exponent(half) - top, bits);
    return (int16_t)((half & 0x8000u) != 0u ? -value : value);
}

static void make_a(const lmcu_lora_t *lora)
{
    const uint16_t *half = lmcu_model.factors + lora->a_offset;
    const int32_t k = lora->k, k4 = lmcu_patch_length(k), bits = lmcu_sum_bits(k);
    const int32_t top = top_exponent(half, lora->rank * k);
    int16_t *to = table_a(lora);
    table_of(lora)[0] = (int16_t)(top - 14 - bits);
    for (int32_t j = 0; j < lora->rank; ++j, to += k4, half += k) {
        for (int32_t i = 0; i < k4; ++i) {
            to[(i & ~3) | LMCU_PLACE(i & 3)] = i < k ? tabulated(half[i], top, bits) : 0;
        }
    }
}

static void make_b(const lmcu_lora_t *lora)
{
    const uint16_t *half = lmcu_model.factors + lora->b_offset;
    const int32_t rank = lora->rank, rank2 = even(rank), bits = 15 - lmcu_log2_up((uint32_t)rank);
    const int32_t top = top_exponent(half, lora->m * rank);
    int16_t *to = table_b(lora);
    table_of(lora)[1] = (int16_t)(top - 14 - bits);
    for (int32_t o = 0; o < lora->m; ++o, to += rank2, half += rank) {
        to[rank2 - 1] = 0;
        for (int32_t j = 0; j < rank; ++j) {
            to[j] = tabulated(half[j], top, bits);
        }
    }
}

void lmcu_lora_tables(void)
{
    for (uint32_t i = 0; i < lmcu_model.adapter_count; ++i) {
        make_a(lmcu_loras[i]);
        make_b(lmcu_loras[i]);
    }
}

lmcu_factors_t lmcu_lora_direct(const lmcu_lora_t *lora, int32_t k, int32_t m)
{
    const int16_t *table = table_of(lora);
    const lmcu_factors_t f = {lora, table_a(lora), table_b(lora), lora->rank, even(lora->rank), lmcu_patch_length(k), table[0],
                              table[1]};
    (void)m;
    return f;
}

/* ---- forward ---- */

/* sums[j] = sum_k A[j,k] * patch[k] of `count` (constant) rows, exact */
LMCU_INLINE void dot_rows(const int16_t *a, int32_t k4, const int16_t *patch, int32_t step, int32_t count, int32_t *sums)
{
    int32_t sum[4] = {0, 0, 0, 0};
    for (int32_t i = 0; i < k4; i += LMCU_GROUP, patch += step) {
        for (int32_t j = 0; j < count; ++j) {
            const int16_t *row = a + j * k4 + i;
            sum[j] += row[0] * patch[0] + row[1] * patch[1] + row[2] * patch[2] + row[3] * patch[3];
        }
    }
    for (int32_t j = 0; j < count; ++j) {
        sums[j] = sum[j];
    }
}

void lmcu_lora_products(const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *t)
{
    int32_t j = 0;
    for (; j + 4 <= f->rank; j += 4) {
        dot_rows(f->a + j * f->k4, f->k4, patch, step, 4, t + j);
    }
    for (; j < f->rank; ++j) {
        dot_rows(f->a + j * f->k4, f->k4, patch, step, 1, t + j);
    }
}

void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, int32_t step, lmcu_projection_t *to)
{
    int32_t t[LMCU_MAX_RANK];
    uint32_t any = 0;
    lmcu_lora_products(f, patch, step, t);
    for (int32_t j = 0; j < f->rank; ++j) {
        any |= (uint32_t)(t[j] ^ (t[j] >> 31));
    }
    const int32_t bits = lmcu_bits(any), shift = bits > 15 ? bits - 15 : 0;
    to->t[f->rank2 - 1] = 0;
    for (int32_t j = 0; j < f->rank; ++j) {
        to->t[j] = (int16_t)(t[j] >> shift);
    }
    to->exponent = shift + f->a_unit + f->b_unit;
}

/* s * 2^exponent, to the nearest integer, halves up, limited to +-2^30; abs(s) <= 2^30 */
LMCU_INLINE int32_t to_steps(int32_t s, int32_t exponent)
{
    if (exponent < 0) {
        return exponent > -31 ? (s + (int32_t)(1u << (-exponent - 1))) >> -exponent : 0;
    }
    const int32_t limit = exponent > 30 ? 0 : 0x40000000 >> exponent;
    return s > limit ? 0x40000000 : s < -limit ? -0x40000000 : s == 0 ? 0 : s * (int32_t)(1u << exponent);
}

LMCU_INLINE int32_t change_of(const lmcu_factors_t *f, int32_t rank2, const int16_t *t, int32_t o)
{
    const int16_t *b = f->b + o * rank2;
    int32_t s = 0;
    for (int32_t j = 0; j < rank2; j += 2) {
        s += b[j] * t[j] + b[j + 1] * t[j + 1];
    }
    return s;
}

/* s * c / 2^32, rounded half up; abs(s) < 2^31 */
LMCU_INLINE int32_t high_product(int32_t s, int32_t c)
{
#if LMCU_DSP
    int32_t high;
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(s), "r"(c));
    return high;
#else
    return (int32_t)(((int64_t)s * c + ((int64_t)1 << 31)) >> 32);
#endif
}

LMCU_INLINE void add(const lmcu_factors_t *f, int32_t rank2, const lmcu_projection_t *t, int32_t o, int32_t rows, int32_t *acc)
{
    const int32_t *c = f->lora->c + o;
    const int8_t *exponent = f->lora->c_exponent + o;
    for (int32_t i = 0; i < rows; ++i) {
        const int32_t scaled = high_product(2 * change_of(f, rank2, t->t, o + i), c[i]);
        acc[i] = lmcu_add_limited(acc[i], to_steps(scaled, t->exponent + exponent[i]));
    }
}

void lmcu_lora_add(const lmcu_factors_t *f, const lmcu_projection_t *t, int32_t o, int32_t rows, int32_t *acc)
{
    if (f->rank2 == 4) {
        add(f, 4, t, o, rows, acc);
    } else {
        add(f, f->rank2, t, o, rows, acc);
    }
}

void lmcu_lora_add_pair(const lmcu_factors_t *f, const lmcu_projection_t *t, int32_t o, int32_t rows, int32_t *acc)
{
    lmcu_lora_add(f, t, o, rows, acc);
    lmcu_lora_add(f, t + 1, o, rows, acc + 2);
}

#else
typedef int lmcu_lora_i16_is_not_used_t; /* ISO C wants something in a file */
#endif

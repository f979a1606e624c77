/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA, mode i16: the factors as block-scaled int16 tables, made anew when they change; integer products in every pass. */
#include "lmcu_strict.h"

#include "block.h"
#include "lora.h"
#include "lmcu_math.h"
#include "patch.h"

#if LMCU_NUMERICS_I16

enum { TABLE_HEAD = 4 }; /* units of A and of B, and room to the next multiple of 8 bytes */

/* ---- tables: unit exponents, A [k4 / 4][rank][4] in the order of patches, B [m][rank2] ---- */

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

/* The exponent field of the largest of `count` factors, 1 for subnormals. */
static int32_t top_exponent(const uint16_t *half, int32_t count)
{
    uint32_t most = 0;
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (int32_t u = 0; u < 4; ++u) {
            const uint32_t magnitude = (uint32_t)half[i + u] << 17;
            most = magnitude > most ? magnitude : most;
        }
    }
    for (; i < count; ++i) {
        const uint32_t magnitude = (uint32_t)half[i] << 17;
        most = magnitude > most ? magnitude : most;
    }
    return most >> 27 != 0u ? (int32_t)(most >> 27) : 1;
}

/* How factors become integers of `bits` bits: their unit is 2^(top - 14 - bits). */
typedef struct {
    int32_t bits, from; /* from - exponent: the shift of a magnitude's top bits down to twice the result */
    float scale;        /* 2 / unit */
} fit_t;

static fit_t fit_to(int32_t top, int32_t bits)
{
    const fit_t fit = {bits, 30 - bits + top, lmcu_float_from_bits((uint32_t)(128 - top + 14 + bits) << 23)};
    return fit;
}

/* The nearest integer, halves away from zero, at most 2^bits - 1 */
LMCU_INLINE int16_t fitted(uint16_t half, const fit_t *fit)
{
    const int32_t limit = (1 << fit->bits) - 1, field = half >> 10 & 31;
    const uint32_t magnitude = (half & 0x3ffu) | (field != 0 ? 0x400u : 0u);
    const int32_t down = fit->from - (field != 0 ? field : 1);
    int32_t value = down > 31 ? 0 : (int32_t)(((magnitude << 20 >> down) + 1u) >> 1);
    value = value > limit ? limit : value;
    return (int16_t)((half & 0x8000u) != 0u ? -value : value);
}

/* Two neighbours. */
LMCU_INLINE void fit_two(const uint16_t *half, const fit_t *fit, int16_t *first, int16_t *second)
{
#if LMCU_HALF_HARDWARE
    if (fit->bits >= 11) { /* the largest is exact: nothing exceeds the limit. Halves are kept, one bit, for the rounding. */
        float a, b;
        int32_t x, y;
        lmcu_halves_to_floats(half, &a, &b);
        x = (int32_t)(a * fit->scale);
        y = (int32_t)(b * fit->scale);
        *first = (int16_t)((x + (x >> 31) + 1) >> 1);
        *second = (int16_t)((y + (y >> 31) + 1) >> 1);
        return;
    }
#endif
    *first = fitted(half[0], fit);
    *second = fitted(half[1], fit);
}

static void make_a(const lmcu_lora_t *lora)
{
    const uint16_t *half = lmcu_model.factors + lora->a_offset;
    const int32_t k = lora->k, k4 = lmcu_patch_length(k), bits = lmcu_sum_bits(k);
    const int32_t top = top_exponent(half, lora->rank * k);
    const fit_t fit = fit_to(top, bits);
    int16_t *to = table_a(lora);
    table_of(lora)[0] = (int16_t)(top - 14 - bits);
    for (int32_t i = 0; i < k4; i += LMCU_GROUP) {
        for (int32_t j = 0; j < lora->rank; ++j, to += LMCU_GROUP) {
            const uint16_t *from = half + j * k + i;
            if (i + LMCU_GROUP <= k) {
                fit_two(from, &fit, &to[LMCU_PLACE(0)], &to[LMCU_PLACE(1)]);
                fit_two(from + 2, &fit, &to[LMCU_PLACE(2)], &to[LMCU_PLACE(3)]);
                continue;
            }
            for (int32_t u = 0; u < LMCU_GROUP; ++u) {
                to[LMCU_PLACE(u)] = i + u < k ? fitted(from[u], &fit) : 0;
            }
        }
    }
}

static void make_b(const lmcu_lora_t *lora)
{
    const uint16_t *half = lmcu_model.factors + lora->b_offset;
    const int32_t rank = lora->rank, rank2 = even(rank), bits = 15 - lmcu_log2_up((uint32_t)rank);
    const int32_t top = top_exponent(half, lora->m * rank);
    const fit_t fit = fit_to(top, bits);
    int16_t *to = table_b(lora);
    table_of(lora)[1] = (int16_t)(top - 14 - bits);
    for (int32_t o = 0; o < lora->m; ++o, to += rank2, half += rank) {
        int32_t j = 0;
        for (; j + 2 <= rank; j += 2) {
            fit_two(half + j, &fit, &to[j], &to[j + 1]);
        }
        if (j < rank) {
            to[j] = fitted(half[j], &fit);
            to[j + 1] = 0;
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

/* t [rank] of a lone patch or, with `step` LMCU_PAIR, of one of two whose groups alternate. */
LMCU_INLINE void products(const lmcu_factors_t *f, int32_t rank, const int16_t *patch, int32_t step, int32_t *t)
{
    const int16_t *a = f->a, *end = a + rank * f->k4;
    for (int32_t j = 0; j < rank; ++j) {
        t[j] = 0;
    }
    for (; a != end; patch += step) {
        for (int32_t j = 0; j < rank; ++j, a += LMCU_GROUP) {
            t[j] += a[0] * patch[0] + a[1] * patch[1] + a[2] * patch[2] + a[3] * patch[3];
        }
    }
}

#if LMCU_DSP
/* Two words of a row of A meet two words of the patch. */
#define ROW(s)                                                                                                         \
    "ldrd %[w0], %[w1], [%[a]], #8\n\tsmlad %[" s "], %[w0], %[even], %[" s "]\n\t"                                    \
    "smlad %[" s "], %[w1], %[odd], %[" s "]\n\t"
#define GROUP(step) "ldrd %[even], %[odd], [%[patch]], " step "\n\t" ROW("s0") ROW("s1") ROW("s2") ROW("s3")
#define LOOP(body, stop)                                                                                               \
    __asm__ volatile("1:\n\t" body "cmp %[a], %[end]\n\tbne 1b"                                                       \
                     : [patch] "+&r"(patch), [a] "+&r"(a), [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2),             \
                       [s3] "+&r"(s3), [even] "=&r"(even), [odd] "=&r"(odd), [w0] "=&r"(w0), [w1] "=&r"(w1)            \
                     : [end] "r"(stop)                                                                                 \
                     : "cc", "memory")

/* The same for rank 4; `step` is a constant after inlining. */
LMCU_INLINE void products_of_four(const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *t)
{
    const int16_t *a = f->a, *many = a + 4 * (f->k4 & ~7), *end = a + 4 * f->k4;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t even, odd, w0, w1;
    if (a != many && step == LMCU_PAIR) {
        LOOP(GROUP("#16") GROUP("#16"), many);
    } else if (a != many) {
        LOOP(GROUP("#8") GROUP("#8"), many);
    }
    if (a != end) {
        LOOP(GROUP("#8"), end);
    }
    t[0] = s0;
    t[1] = s1;
    t[2] = s2;
    t[3] = s3;
}
#undef LOOP
#undef GROUP
#undef ROW
#else
LMCU_INLINE void products_of_four(const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *t)
{
    products(f, 4, patch, step, t);
}
#endif

LMCU_NOINLINE void lmcu_lora_products(const lmcu_factors_t *f, const int16_t *patch, int32_t step, int32_t *t)
{
    if (f->rank != 4) {
        products(f, f->rank, patch, step, t);
    } else if (step == LMCU_PAIR) {
        products_of_four(f, patch, LMCU_PAIR, t);
    } else {
        products_of_four(f, patch, LMCU_GROUP, t);
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
    to->half = -1 - (shift + f->a_unit + f->b_unit);
}

/* s * c / 2^32, rounded half up; abs(s) < 2^30, so that abs(result) < 2^29 */
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

/* x * 2^left, limited to +-2^30 */
static int32_t enlarged(int32_t x, int32_t left)
{
    const int32_t limit = left > 30 ? 0 : 0x40000000 >> left;
    return x > limit ? 0x40000000 : x < -limit ? -0x40000000 : x == 0 ? 0 : x * (int32_t)(1u << left);
}

/* x / 2^(half + 1), rounded half up; 0 <= half < 256 */
LMCU_INLINE int32_t shrunk(int32_t x, int32_t half)
{
#if LMCU_DSP
    __asm__("asr %0, %0, %1" : "+r"(x) : "r"(half)); /* the sign only from 32 on, as it should be */
#else
    x >>= half < 31 ? half : 31;
#endif
    return (x + 1) >> 1;
}

/* The same; -1 and below enlarge. */
LMCU_INLINE int32_t to_steps(int32_t x, int32_t half)
{
    return half < 0 ? enlarged(x, -1 - half) : shrunk(x, half);
}

/* sum_j B[o,j] * t[j]; abs below 2^30 */
LMCU_INLINE int32_t product(const int16_t *b, const int16_t *t, int32_t rank2)
{
    int32_t s = 0;
    for (int32_t j = 0; j < rank2; j += 2) {
#if LMCU_DSP
        __asm__("smlad %0, %1, %2, %0" : "+r"(s) : "r"(lmcu_load_word(b + j)), "r"(lmcu_load_word(t + j)));
#else
        s += b[j] * t[j] + b[j + 1] * t[j + 1];
#endif
    }
    return s;
}

/* The outputs whose exponents are above `least`; what wraps around is not small. */
static uint32_t bias_of_some(const lmcu_factors_t *f, const lmcu_projection_t *t, int32_t least, const int32_t *bias,
                             int32_t first, int32_t count, int32_t *with_delta)
{
    uint32_t any = 0;
    for (int32_t i = 0, o = first; i < count; ++i, ++o) {
        const int32_t exponent = f->lora->c_exponent[o];
        if (exponent > least) {
            const int32_t scaled = high_product(product(f->b + o * f->rank2, t->t, f->rank2), f->lora->c[o]);
            const uint32_t sum = (bias ? (uint32_t)bias[i] : 0u) + (uint32_t)to_steps(scaled, t->half - exponent);
            with_delta[i] = (int32_t)sum;
            any |= sum + 0x20000000u;
        }
    }
    return any;
}

#if LMCU_DSP
/* Rank 3 or 4; where a result would have to be enlarged, the bias alone. */
static uint32_t bias_of_four(const lmcu_factors_t *f, const lmcu_projection_t *t, const int32_t *bias, int32_t first,
                             int32_t count, int32_t *to)
{
    const int16_t *b = f->b + 4 * first;
    const int32_t *c = f->lora->c + first, *const end = to + count;
    const int8_t *exponent = f->lora->c_exponent + first;
    const uint32_t t01 = lmcu_load_word(t->t), t23 = lmcu_load_word(t->t + 2);
    uint32_t any = 0, s, x, y;
    __asm__ volatile("1:\n\tldrd %[x], %[y], [%[b]], #8\n\tsmuad %[s], %[x], %[t01]\n\tldr %[x], [%[c]], #4\n\t"
                     "smlad %[s], %[y], %[t23], %[s]\n\tldrsb %[y], [%[e]], #1\n\tsmmulr %[s], %[s], %[x]\n\t"
                     "sub %[y], %[half], %[y]\n\tldr %[x], [%[bias]], #4\n\tasr %[s], %[s], %[y]\n\tadd %[s], %[s], #1\n\t"
                     "add %[s], %[x], %[s], asr #1\n\tstr %[s], [%[to]], #4\n\tadd %[s], %[s], #0x20000000\n\t"
                     "orr %[any], %[any], %[s]\n\tcmp %[to], %[end]\n\tbne 1b"
                     : [b] "+&r"(b), [c] "+&r"(c), [e] "+&r"(exponent), [bias] "+&r"(bias), [to] "+&r"(to), [any] "+&r"(any),
                       [s] "=&r"(s), [x] "=&r"(x), [y] "=&r"(y)
                     : [t01] "r"(t01), [t23] "r"(t23), [half] "r"(t->half), [end] "r"(end)
                     : "cc", "memory");
    return any;
}
#endif

int lmcu_lora_bias(const lmcu_factors_t *f, const lmcu_projection_t *t, const int32_t *bias, int32_t first, int32_t count,
                   int32_t *with_delta)
{
    uint32_t any = 0;
    int32_t done = -256; /* up to this exponent */
#if LMCU_DSP
    if (f->rank2 == 4 && bias) {
        any = bias_of_four(f, t, bias, first, count, with_delta);
        done = t->half;
    }
#endif
    if (done < f->lora->c_top) { /* of channels whose weights hardly have a scale */
        any |= bias_of_some(f, t, done, bias, first, count, with_delta);
    }
    return any < 0x40000000u;
}

/* Where biases do not take in what the adapter adds: seldom. */
void lmcu_lora_add(const lmcu_factors_t *f, const lmcu_projection_t *t, int32_t o, int32_t rows, int32_t *acc)
{
    for (int32_t i = 0; i < rows; ++i, ++o) {
        const int32_t scaled = high_product(product(f->b + o * f->rank2, t->t, f->rank2), f->lora->c[o]);
        acc[i] = lmcu_add_limited(acc[i], to_steps(scaled, t->half - f->lora->c_exponent[o]));
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

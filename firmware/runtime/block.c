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

lmcu_unit_t lmcu_unit(int32_t exponent)
{
    const int32_t limited = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
    const lmcu_unit_t unit = {lmcu_float_from_bits((uint32_t)(limited + 127) << 23), limited};
    return unit;
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

/* What one row's quantization needs, and the word of random bits of which half is left where a row ends between two. */
typedef struct {
    lmcu_random_t random;
    uint32_t left;
    int32_t has_left;
} draw_t;

/* words [m] = quantized(dy) of one row; returns the sum of abs(G). */
static uint32_t quantize_row(const int16_t *scales, int32_t shift, int32_t top, int32_t m, const float *dy, float *words,
                             draw_t *draw)
{
    lmcu_random_t random = draw->random;
    uint32_t sum = 0;
    const float *const end = dy + m;
#define ONE(random16)                                                                                                  \
    do {                                                                                                               \
        const uint32_t word = quantized(lmcu_float_bits(*dy++), top, (random16), *scales++, shift);                    \
        const int32_t g = (int16_t)word;                                                                               \
        sum += (uint32_t)(g < 0 ? -g : g);                                                                             \
        *words++ = lmcu_float_from_bits(word);                                                                         \
    } while (0)
    if (draw->has_left != 0 && dy != end) {
        ONE(draw->left);
        draw->has_left = 0;
    }
    while (end - dy >= 2) {
        const uint32_t both = lmcu_rand_next(&random);
        ONE(both & 0xffffu);
        ONE(both >> 16);
    }
    if (dy != end) {
        const uint32_t both = lmcu_rand_next(&random);
        ONE(both & 0xffffu);
        draw->left = both >> 16;
        draw->has_left = 1;
    }
#undef ONE
    draw->random = random;
    return sum;
}

#if LMCU_DSP
/* One gradient takes the low or, `random` being "lsr %[x], %[x], #16" and "x", the high half of the random word x: as quantized() for
 * shift 0. QADD limits what is to become 2^15, the sign is multiplied in; abs(G) is added to the sum. */
#define ONE(random, from)                                                                                              \
    "ldr %[bits], [%[dy]], #4\n\tubfx %[v], %[bits], #23, #8\n\tlsl %[word], %[bits], #8\n\tsub %[v], %[top], %[v]\n\t"  \
    "orr %[word], %[word], #0x80000000\n\tlsr %[word], %[word], %[v]\n\t" random                                       \
    "qadd %[word], %[word], %[" from "]\n\tasr %[v], %[bits], #31\n\torr %[v], %[v], #1\n\t"                          \
    "uxtah %[sum], %[sum], %[word], ror #16\n\tsmultb %[word], %[word], %[v]\n\tldrsh %[v], [%[scales]], #2\n\t"       \
    "smlabb %[v], %[word], %[v], %[half]\n\tpkhbt %[word], %[word], %[v], lsl #1\n\tstr %[word], [%[dy], #-4]\n\t"
/* The same in place, for an even m, top >= 32 and shift 0, as most are. */
LMCU_NOINLINE static uint32_t quantize_quickly(const int16_t *scales, int32_t top, int32_t m, float *dy, draw_t *draw)
{
    const float *const end = dy + m;
    uint32_t sum = 0, x, bits, word, v;
    __asm__ volatile("1:\n\teor %[x], %[next], %[next], lsr #16\n\tadd %[next], %[next], %[step]\n\tmul %[x], %[x], %[first]\n\t"
                     "eor %[x], %[x], %[x], lsr #15\n\tmul %[x], %[x], %[second]\n\teor %[x], %[x], %[x], lsr #16\n\t"
                     ONE("uxth %[v], %[x]\n\t", "v") ONE("lsr %[x], %[x], #16\n\t", "x") "cmp %[dy], %[end]\n\tbne 1b"
                     : [dy] "+&r"(dy), [scales] "+&r"(scales), [next] "+&r"(draw->random.next), [sum] "+&r"(sum), [x] "=&r"(x),
                       [bits] "=&r"(bits), [word] "=&r"(word), [v] "=&r"(v)
                     : [end] "r"(end), [step] "r"(LMCU_RAND_STEP), [first] "r"(LMCU_MIX_1), [second] "r"(LMCU_MIX_2),
                       [top] "r"(top + 1), [half] "r"(1 << 14)
                     : "cc", "memory");
    return sum;
}
#undef ONE
#endif

static uint32_t quantize_any_row(const int16_t *scales, int32_t shift, int32_t top, int32_t m, const float *dy, float *words,
                                 draw_t *draw)
{
#if LMCU_DSP
    if (shift == 0 && top >= 32 && draw->has_left == 0 && m % 2 == 0 && dy == words) {
        return quantize_quickly(scales, top, m, words, draw);
    }
#endif
    return quantize_row(scales, shift, top, m, dy, words, draw);
}

lmcu_gradient_t lmcu_quantize_gradient(const lmcu_block_t *block, int32_t shift, int32_t rows, int32_t m, const float *dy,
                                       float *words, uint32_t *largest, int32_t *unit)
{
    const int32_t top = (int32_t)(lmcu_largest(dy, rows * m) >> 23);
    if (top == 0 || top == 255) {
        return top == 0 ? LMCU_GRADIENT_ZERO : LMCU_GRADIENT_NOT_FINITE;
    }
    draw_t draw = {lmcu_rand_from(lmcu_block_key(), lmcu_block_index(block)), 0, 0};
    uint32_t most = 0;
    for (int32_t row = 0; row < rows; ++row, dy += m, words += m) {
        const uint32_t sum = quantize_any_row(block->scales, shift, top, m, dy, words, &draw);
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

static void clear(int32_t *values, int32_t count)
{
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        values[i] = values[i + 1] = values[i + 2] = values[i + 3] = 0;
    }
    for (; i < count; ++i) {
        values[i] = 0;
    }
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
    l->da_unit = lmcu_unit(unit_h + lora->input_exponent + 15);
    l->db_unit = lmcu_unit(unit_g + l->f.a_unit - l->t_shift + lora->step_exponent + 15 + 16);
    l->da = l->positions > 1 ? sums : 0;
    l->db = l->positions > 1 ? sums + lora->rank * l->k : 0;
    if (l->da) {
        clear(sums, lora->rank * (l->k + l->m));
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
        begin_adapter(l, largest, unit, unit_v, sums);
    }
    if (l->lora && l->da) {
        l->list = (uint16_t *)(void *)(l->db + l->m * l->lora->rank);
    }
    l->value_unit = lmcu_unit(unit_v + (l->lora && l->align > 0 ? l->align : 0));
    return LMCU_GRADIENT_READY;
}

int32_t lmcu_layer_list(lmcu_layer_t *l, const float *words, const int8_t *y, const lmcu_clamp_t *clamp)
{
    const lmcu_clamp_t local = *clamp;
    const int32_t m = l->m;
    uint16_t *to = l->list;
    for (int32_t o = 0; o < m; ++o) {
        const int32_t g = lmcu_word_g(words[o]);
        if (g != 0 && !lmcu_is_masked(g, y[o], &local)) {
            *to++ = (uint16_t)o;
        }
    }
    l->row = words;
    l->count = (int32_t)(to - l->list);
    return l->count;
}

/* t * g / 2^16 + sum */
LMCU_INLINE int32_t add_high(int32_t sum, int32_t t, int32_t g)
{
#if LMCU_DSP
    __asm__("smlawb %0, %1, %2, %0" : "+r"(sum) : "r"(t), "r"(g));
    return sum;
#else
    return sum + (int32_t)((int64_t)t * g >> 16);
#endif
}

/* dB[o,j] += T[j] * G[o] / 2^16; T is t times gamma * s_x */
static void add_db(const lmcu_layer_t *l, const int32_t *t)
{
    const int32_t rank = l->f.rank;
    for (const uint16_t *at = l->list, *const end = at + l->count; at != end; ++at) {
        const int32_t o = *at, g = lmcu_word_g(l->row[o]);
        int32_t *sums = l->db + o * rank;
        for (int32_t j = 0; j < rank; ++j) {
            sums[j] = add_high(sums[j], t[j], g);
        }
    }
}

/* The same for rank 4. */
static void add_four_db(const lmcu_layer_t *l, const int32_t *t)
{
    const int32_t t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3];
    int32_t *const db = l->db;
    const float *const row = l->row;
    for (const uint16_t *at = l->list, *const end = at + l->count; at != end; ++at) {
        const int32_t o = *at, g = lmcu_word_g(row[o]);
        int32_t *sums = db + 4 * o;
        const int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
        sums[0] = add_high(s0, t0, g);
        sums[1] = add_high(s1, t1, g);
        sums[2] = add_high(s2, t2, g);
        sums[3] = add_high(s3, t3, g);
    }
}

#if LMCU_DSP && defined(__ARM_FP)
/* sum += the integers a, b, c, d in units, for four neighbouring sums */
LMCU_INLINE void add_four_in_units(float *sums, int32_t a, int32_t b, int32_t c, int32_t d, lmcu_unit_t unit)
{
    __asm__ volatile("vmov s0, s1, %[a], %[b]\n\tvmov s2, s3, %[c], %[d]\n\tvldmia %[sums], {s4, s5, s6, s7}\n\t"
                     "vcvt.f32.s32 s0, s0\n\tvcvt.f32.s32 s1, s1\n\tvcvt.f32.s32 s2, s2\n\tvcvt.f32.s32 s3, s3\n\t"
                     "vmul.f32 s0, s0, %[unit]\n\tvmul.f32 s1, s1, %[unit]\n\tvmul.f32 s2, s2, %[unit]\n\t"
                     "vmul.f32 s3, s3, %[unit]\n\tvadd.f32 s4, s4, s0\n\tvadd.f32 s5, s5, s1\n\tvadd.f32 s6, s6, s2\n\t"
                     "vadd.f32 s7, s7, s3\n\tvstmia %[sums], {s4, s5, s6, s7}"
                     :
                     : [sums] "r"(sums), [a] "r"(a), [b] "r"(b), [c] "r"(c), [d] "r"(d), [unit] "t"(unit.power)
                     : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "memory");
}
#else
LMCU_INLINE void add_four_in_units(float *sums, int32_t a, int32_t b, int32_t c, int32_t d, lmcu_unit_t unit)
{
    sums[0] = sums[0] + lmcu_in_units(a, unit);
    sums[1] = sums[1] + lmcu_in_units(b, unit);
    sums[2] = sums[2] + lmcu_in_units(c, unit);
    sums[3] = sums[3] + lmcu_in_units(d, unit);
}
#endif

/* The same where there is one position: straight into the gradients. */
static void add_db_once(const lmcu_layer_t *l, const int32_t *t)
{
    const int32_t rank = l->f.rank;
    const lmcu_unit_t unit = l->db_unit;
    float *const gradients = lmcu_model.gradients + l->lora->b_offset;
    for (const uint16_t *at = l->list, *const end = at + l->count; at != end; ++at) {
        const int32_t o = *at, g = lmcu_word_g(l->row[o]);
        float *db = gradients + o * rank;
        int32_t j = 0;
        for (; j + 4 <= rank; j += 4) {
            add_four_in_units(db + j, add_high(0, t[j], g), add_high(0, t[j + 1], g), add_high(0, t[j + 2], g),
                              add_high(0, t[j + 3], g), unit);
        }
        for (; j < rank; ++j) {
            db[j] = db[j] + lmcu_in_units(add_high(0, t[j], g), unit);
        }
    }
}

/* sum[j] += B[o,j] * G[o] over all listed outputs */
static void sum_h(const lmcu_layer_t *l, int64_t *sum)
{
    for (const uint16_t *at = l->list, *const end = at + l->count; at != end; ++at) {
        const int32_t o = *at, g = lmcu_word_g(l->row[o]);
        const int16_t *b = l->f.b + o * l->f.rank2;
        for (int32_t j = 0; j < l->f.rank; ++j) {
            sum[j] += b[j] * g;
        }
    }
}

/* The same for rank 4, whose products are below 2^28: eight of them fit into int32. */
static void sum_four_h(const lmcu_layer_t *l, int64_t *sum)
{
    const uint16_t *at = l->list;
    const float *const row = l->row;
    const int16_t *const table = l->f.b;
    for (int32_t left = l->count; left > 0; left -= 8) {
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (const uint16_t *const end = at + (left < 8 ? left : 8); at != end; ++at) {
            const int32_t o = *at, g = lmcu_word_g(row[o]);
            const int16_t *b = table + 4 * o;
#if LMCU_DSP
            const uint32_t b01 = lmcu_load_word(b), b23 = lmcu_load_word(b + 2);
            __asm__("smlabb %0, %1, %2, %0" : "+r"(s0) : "r"(b01), "r"(g));
            __asm__("smlatb %0, %1, %2, %0" : "+r"(s1) : "r"(b01), "r"(g));
            __asm__("smlabb %0, %1, %2, %0" : "+r"(s2) : "r"(b23), "r"(g));
            __asm__("smlatb %0, %1, %2, %0" : "+r"(s3) : "r"(b23), "r"(g));
#else
            s0 += b[0] * g;
            s1 += b[1] * g;
            s2 += b[2] * g;
            s3 += b[3] * g;
#endif
        }
        sum[0] += s0;
        sum[1] += s1;
        sum[2] += s2;
        sum[3] += s3;
    }
}

/* h[j] = gamma * sum_o B[o,j] * G[o], rounded at random to h_limit */
static void make_h(lmcu_layer_t *l, int32_t position)
{
    const int32_t rank = l->f.rank;
    int64_t sum[LMCU_MAX_RANK];
    for (int32_t j = 0; j < rank; ++j) {
        sum[j] = 0;
    }
    if (rank == 4) {
        sum_four_h(l, sum);
    } else {
        sum_h(l, sum);
    }
    for (int32_t j = 0; j < rank; ++j) {
        const uint32_t index = (uint32_t)(position * rank + j);
        const uint32_t random = lmcu_rand_at(l->key, l->h_random + (index >> 1)) >> (16u * (index & 1u)) & 0xffffu;
        const int64_t h = (sum[j] * l->lora->gamma_whole + (int64_t)(((uint64_t)random << l->h_shift) >> 16)) >> l->h_shift;
        l->h[j] = h > l->h_limit ? l->h_limit : h < -l->h_limit ? -l->h_limit : (int32_t)h;
    }
}

/* da[k] += h * patch[k] */
LMCU_INLINE void add_da(int32_t *restrict da, int32_t h, const int16_t *restrict patch, int32_t k)
{
    int32_t i = 0;
    for (; i + LMCU_GROUP <= k; i += LMCU_GROUP, patch += LMCU_GROUP, da += LMCU_GROUP) {
#if LMCU_DSP
        uint32_t x, y;
        int32_t s0, s1, s2, s3;
        __asm__ volatile("ldrd %[x], %[y], [%[patch]]\n\tldrd %[s0], %[s1], [%[da]]\n\tldrd %[s2], %[s3], [%[da], #8]\n\t"
                         "smlabb %[s0], %[x], %[h], %[s0]\n\tsmlabb %[s1], %[y], %[h], %[s1]\n\t"
                         "smlatb %[s2], %[x], %[h], %[s2]\n\tsmlatb %[s3], %[y], %[h], %[s3]\n\t"
                         "strd %[s0], %[s1], [%[da]]\n\tstrd %[s2], %[s3], [%[da], #8]"
                         : [x] "=&r"(x), [y] "=&r"(y), [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2), [s3] "=&r"(s3)
                         : [patch] "r"(patch), [da] "r"(da), [h] "r"(h)
                         : "memory");
#else
        for (int32_t u = 0; u < LMCU_GROUP; ++u) {
            da[u] += h * patch[u];
        }
#endif
    }
    for (int32_t u = 0; i + u < k; ++u) {
        da[u] += h * patch[LMCU_PLACE(u)];
    }
}

/* h, 16 bits, times the four values of a group */
LMCU_INLINE void products_of_group(const int16_t *patch, int32_t h, int32_t *to)
{
#if LMCU_DSP
    const uint32_t x = lmcu_load_word(patch), y = lmcu_load_word(patch + 2);
    __asm__("smulbb %0, %1, %2" : "=r"(to[0]) : "r"(x), "r"(h));
    __asm__("smulbb %0, %1, %2" : "=r"(to[1]) : "r"(y), "r"(h));
    __asm__("smultb %0, %1, %2" : "=r"(to[2]) : "r"(x), "r"(h));
    __asm__("smultb %0, %1, %2" : "=r"(to[3]) : "r"(y), "r"(h));
#else
    for (int32_t u = 0; u < LMCU_GROUP; ++u) {
        to[u] = h * patch[u];
    }
#endif
}

/* The same where there is one position: straight into the gradients. */
static void add_da_once(float *restrict da, int32_t h, lmcu_unit_t unit, const int16_t *restrict patch, int32_t k)
{
    int32_t i = 0;
    for (; i + LMCU_GROUP <= k; i += LMCU_GROUP, patch += LMCU_GROUP, da += LMCU_GROUP) {
        int32_t x[LMCU_GROUP];
        products_of_group(patch, h, x);
        add_four_in_units(da, x[0], x[1], x[2], x[3], unit);
    }
    for (int32_t u = 0; i + u < k; ++u) {
        da[u] = da[u] + lmcu_in_units(h * patch[LMCU_PLACE(u)], unit);
    }
}

void lmcu_layer_adapter(lmcu_layer_t *l, int32_t position, const int16_t *patch)
{
    const int32_t rank = l->f.rank, k = l->k;
    int32_t t[LMCU_MAX_RANK];
    lmcu_lora_products(&l->f, patch, LMCU_GROUP, t);
    for (int32_t j = 0; j < rank; ++j) {
        t[j] = l->t_shift >= 0 ? t[j] * (int32_t)(1u << l->t_shift) : t[j] >> -l->t_shift;
        t[j] = (int32_t)((int64_t)t[j] * l->lora->step_whole >> 15);
    }
    if (!l->da) {
        add_db_once(l, t);
    } else if (rank == 4) {
        add_four_db(l, t);
    } else {
        add_db(l, t);
    }
    make_h(l, position);
    float *gradients = lmcu_model.gradients + l->lora->a_offset;
    for (int32_t j = 0; j < rank; ++j) {
        const int32_t h = (l->h[j] * l->lora->input_whole + (1 << 14)) >> 15;
        if (l->da) {
            add_da(l->da + j * k, h, patch, k);
        } else {
            add_da_once(gradients + j * k, h, l->da_unit, patch, k);
        }
    }
}

/* ---- W^T V + A^T h ---- */

/* val[i] += the rows of `rows` <= 4 listed outputs, times their V, of columns from `first` on */
LMCU_INLINE void add_rows(const lmcu_layer_t *l, const uint16_t *list, int32_t rows, int32_t first, int32_t zero_point,
                          int32_t *restrict val)
{
    for (int32_t r = 0; r < rows; ++r) {
        const int8_t *w = l->weights + (intptr_t)list[r] * l->k;
        const int32_t v = lmcu_word_v(l->row[list[r]]);
        for (int32_t i = first; i < l->k; ++i) {
            val[i] += v * (w[i] - zero_point);
        }
    }
}

#if LMCU_DSP
/* A word of a row becomes two pairs, each of which meets one V: `half` is b or t. */
#define ROW(w, v, half)                                                                                                \
    "ldr %[x], [%[" w "]], #4\n\tsxtb16 %[y], %[x]\n\tsxtb16 %[x], %[x], ror #8\n\t"                                   \
    "smlab" half " %[s0], %[y], %[" v "], %[s0]\n\tsmlab" half " %[s1], %[x], %[" v "], %[s1]\n\t"                     \
    "smlat" half " %[s2], %[y], %[" v "], %[s2]\n\tsmlat" half " %[s3], %[x], %[" v "], %[s3]\n\t"

/* add_rows of four rows, whole groups of columns: k & ~3 of them. Rows that are not there have V = 0. */
static void add_four_rows(const lmcu_layer_t *l, const uint16_t *list, int32_t rows, int32_t *val)
{
    const int32_t k = l->k;
    const int8_t *w0 = l->weights + (intptr_t)list[0] * k, *w1 = w0, *w2 = w0, *w3 = w0;
    uint32_t v01 = lmcu_float_bits(l->row[list[0]]) >> 16, v23 = 0;
    if (rows > 1) {
        w1 = l->weights + (intptr_t)list[1] * k;
        v01 |= lmcu_float_bits(l->row[list[1]]) & 0xffff0000u;
    }
    if (rows > 2) {
        w2 = l->weights + (intptr_t)list[2] * k;
        v23 = lmcu_float_bits(l->row[list[2]]) >> 16;
    }
    if (rows > 3) {
        w3 = l->weights + (intptr_t)list[3] * k;
        v23 |= lmcu_float_bits(l->row[list[3]]) & 0xffff0000u;
    }
    int32_t *const end = val + (k & ~3);
    int32_t s0, s1, s2, s3, x, y;
    if (val == end) {
        return;
    }
    __asm__ volatile("1:\n\tldrd %[s0], %[s1], [%[val]]\n\tldrd %[s2], %[s3], [%[val], #8]\n\t" ROW("w0", "v01", "b")
                     ROW("w1", "v01", "t") ROW("w2", "v23", "b") ROW("w3", "v23", "t")
                     "strd %[s2], %[s3], [%[val], #8]\n\tstrd %[s0], %[s1], [%[val]], #16\n\tldr %[x], %[end]\n\t"
                     "cmp %[val], %[x]\n\tbne 1b"
                     : [val] "+&r"(val), [w0] "+&r"(w0), [w1] "+&r"(w1), [w2] "+&r"(w2), [w3] "+&r"(w3), [s0] "=&r"(s0),
                       [s1] "=&r"(s1), [s2] "=&r"(s2), [s3] "=&r"(s3), [x] "=&r"(x), [y] "=&r"(y)
                     : [v01] "r"(v01), [v23] "r"(v23), [end] "m"(end)
                     : "cc", "memory");
}
#undef ROW

static void add_listed(const lmcu_layer_t *l, const uint16_t *list, int32_t rows, int32_t *val)
{
    if (l->weight_zero_point != 0) {
        add_rows(l, list, rows, 0, l->weight_zero_point, val);
        return;
    }
    add_four_rows(l, list, rows, val);
    add_rows(l, list, rows, l->k & ~3, 0, val);
}

/* Four columns of A^T h for rank 4: a group of A against h in pairs. */
LMCU_INLINE void group_of_four(const int16_t *a, uint32_t h01, uint32_t h23, int32_t *sum)
{
    uint32_t x, y;
    __asm__("ldrd %[x], %[y], [%[a]]\n\tsmulbb %[s0], %[x], %[h01]\n\tsmulbb %[s1], %[y], %[h01]\n\t"
            "smultb %[s2], %[x], %[h01]\n\tsmultb %[s3], %[y], %[h01]\n\tldrd %[x], %[y], [%[a], #8]\n\t"
            "smlabt %[s0], %[x], %[h01], %[s0]\n\tsmlabt %[s1], %[y], %[h01], %[s1]\n\tsmlatt %[s2], %[x], %[h01], %[s2]\n\t"
            "smlatt %[s3], %[y], %[h01], %[s3]\n\tldrd %[x], %[y], [%[a], #16]\n\tsmlabb %[s0], %[x], %[h23], %[s0]\n\t"
            "smlabb %[s1], %[y], %[h23], %[s1]\n\tsmlatb %[s2], %[x], %[h23], %[s2]\n\tsmlatb %[s3], %[y], %[h23], %[s3]\n\t"
            "ldrd %[x], %[y], [%[a], #24]\n\tsmlabt %[s0], %[x], %[h23], %[s0]\n\tsmlabt %[s1], %[y], %[h23], %[s1]\n\t"
            "smlatt %[s2], %[x], %[h23], %[s2]\n\tsmlatt %[s3], %[y], %[h23], %[s3]"
            : [s0] "=&r"(sum[0]), [s1] "=&r"(sum[1]), [s2] "=&r"(sum[2]), [s3] "=&r"(sum[3]), [x] "=&r"(x), [y] "=&r"(y)
            : [a] "r"(a), [h01] "r"(h01), [h23] "r"(h23)
            : "memory");
}
#else
/* Four rows at once: val is loaded and stored once for four products. */
static void add_four_rows(const lmcu_layer_t *l, const uint16_t *list, int32_t *restrict val)
{
    const int8_t *w0 = l->weights + (intptr_t)list[0] * l->k, *w1 = l->weights + (intptr_t)list[1] * l->k;
    const int8_t *w2 = l->weights + (intptr_t)list[2] * l->k, *w3 = l->weights + (intptr_t)list[3] * l->k;
    const int32_t v0 = lmcu_word_v(l->row[list[0]]), v1 = lmcu_word_v(l->row[list[1]]);
    const int32_t v2 = lmcu_word_v(l->row[list[2]]), v3 = lmcu_word_v(l->row[list[3]]);
    for (int32_t i = 0; i < l->k; ++i) {
        val[i] += v0 * w0[i] + v1 * w1[i] + v2 * w2[i] + v3 * w3[i];
    }
}

static void add_listed(const lmcu_layer_t *l, const uint16_t *list, int32_t rows, int32_t *val)
{
    if (l->weight_zero_point != 0) {
        add_rows(l, list, rows, 0, l->weight_zero_point, val);
    } else if (rows == 4) {
        add_four_rows(l, list, val);
    } else {
        add_rows(l, list, rows, 0, 0, val);
    }
}
#endif

/* One column of A^T h */
LMCU_INLINE int32_t column(const lmcu_layer_t *l, int32_t i)
{
    const int16_t *a = l->f.a + (i & ~3) * l->f.rank + LMCU_PLACE(i & 3);
    int32_t sum = 0;
    for (int32_t j = 0; j < l->f.rank; ++j, a += LMCU_GROUP) {
        sum += *a * l->h[j];
    }
    return sum;
}

/* A^T h, aligned with what stands in val */
static void add_adapter(const lmcu_layer_t *l, int32_t *restrict val)
{
    const int32_t up = l->align > 0 ? (l->align < 31 ? l->align : 31) : 0;
    const int32_t down = l->align < 0 ? (l->align > -31 ? -l->align : 31) : 0;
    int32_t i = 0;
#if LMCU_DSP
    const int32_t *h = l->h;
    const uint32_t h01 = ((uint32_t)h[0] & 0xffffu) | (uint32_t)h[1] << 16, h23 = ((uint32_t)h[2] & 0xffffu) | (uint32_t)h[3] << 16;
    for (; l->f.rank == 4 && i + 4 <= l->k; i += 4) {
        int32_t sum[4];
        group_of_four(l->f.a + 4 * i, h01, h23, sum);
        for (int32_t u = 0; u < 4; ++u) {
            val[i + u] = (val[i + u] >> up) + (sum[u] >> down);
        }
    }
#endif
    for (; i < l->k; ++i) {
        val[i] = (val[i] >> up) + (column(l, i) >> down);
    }
}

void lmcu_layer_values(const lmcu_layer_t *l, int32_t *val)
{
    clear(val, l->k);
    for (int32_t i = 0; i < l->count; i += 4) {
        add_listed(l, l->list + i, l->count - i < 4 ? l->count - i : 4, val);
    }
    if (l->lora) {
        add_adapter(l, val);
    }
}

static void add_sums(float *restrict gradient, const int32_t *restrict sums, int32_t count, lmcu_unit_t unit)
{
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        add_four_in_units(gradient + i, sums[i], sums[i + 1], sums[i + 2], sums[i + 3], unit);
    }
    for (; i < count; ++i) {
        gradient[i] = gradient[i] + lmcu_in_units(sums[i], unit);
    }
}

void lmcu_layer_end(const lmcu_layer_t *l)
{
    if (l->lora && l->da) {
        add_sums(lmcu_model.gradients + l->lora->a_offset, l->da, l->f.rank * l->k, l->da_unit);
        add_sums(lmcu_model.gradients + l->lora->b_offset, l->db, l->m * l->f.rank, l->db_unit);
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

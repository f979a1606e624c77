/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter merged into weights that stand in SRAM: W' = W + gamma B A with fresh scales, in double and in the order of
 * lora_mcu/adapters/merging.py, so that a merged device computes what its merged .tflite computes, byte for byte. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_mem.h"
#include "merge.h"
#include "train.h"

#if LMCU_SRAM_WEIGHTS

#define BIAS_LIMIT 1073741824.0  /* of a bias, in steps: half of int32 stays for the products */
#define SMALLEST 0x1p-126        /* normal float32 */
#define LARGEST_RATIO 0x1p20     /* of s_x * s_w' to s_y, as the compiler bounds it */
#define HIGHEST_ACC 0x1p31

/* One layer while it is merged. */
typedef struct {
    const lmcu_resident_t *p;
    const uint16_t *a, *b; /* [rank][k], [m][rank] */
    const int8_t *from;    /* base weights [m][k] */
} layer_t;

/* What a channel's change asks of its scale, or all channels' where they share one. */
typedef struct {
    double most;    /* what the largest weight and the bias need */
    bool changed;
} need_t;

static const uint8_t *base(uint32_t offset)
{
    return (const uint8_t *)lmcu_base_weights + offset;
}

static int32_t base_bias(const lmcu_resident_t *p, uint32_t o)
{
    int32_t bias = 0;
    if (p->bias >= 0) {
        memcpy(&bias, base((uint32_t)p->bias + 4u * o), 4u);
    }
    return bias;
}

static double magnitude(double value)
{
    return value < 0.0 ? -value : value;
}

/* Half away from zero; |value| < 2^62. */
static int64_t rounded(double value)
{
    const int64_t whole = (int64_t)(magnitude(value) + 0.5);
    return value < 0.0 ? -whole : whole;
}

/* gamma sum_j B[o,j] A[j,i] */
static double change(const layer_t *l, uint32_t o, uint32_t i)
{
    const lmcu_resident_t *p = l->p;
    double sum = 0.0;
    for (uint32_t j = 0u; j < p->rank; ++j) {
        const double b = (double)lmcu_half_to_float(l->b[o * p->rank + j]);
        sum = sum + b * (double)lmcu_half_to_float(l->a[j * p->k + i]);
    }
    return (double)p->gamma * sum;
}

static double wanted(const layer_t *l, uint32_t o, uint32_t i, double delta)
{
    return (double)l->from[o * l->p->k + i] * (double)l->p->weight_scale[o] + delta;
}

static void look_at(const layer_t *l, uint32_t o, need_t *need)
{
    const lmcu_resident_t *p = l->p;
    double largest = 0.0;
    for (uint32_t i = 0u; i < p->k; ++i) {
        const double delta = change(l, o, i);
        const double size = magnitude(wanted(l, o, i, delta));
        need->changed = need->changed || delta != 0.0;
        largest = size > largest ? size : largest;
    }
    largest = largest / 127.0;
    const double bias = magnitude((double)base_bias(p, o) * (double)p->weight_scale[o]) / BIAS_LIMIT;
    largest = bias > largest ? bias : largest;
    need->most = largest > need->most ? largest : need->most;
}

static void write_row(const layer_t *l, uint32_t o, float scale)
{
    const lmcu_resident_t *p = l->p;
    int8_t *to = (int8_t *)lmcu_weights + p->weights + (size_t)o * p->k;
    for (uint32_t i = 0u; i < p->k; ++i) {
        const int64_t q = rounded(wanted(l, o, i, change(l, o, i)) / (double)scale);
        to[i] = (int8_t)(q > 127 ? 127 : q < -128 ? -128 : q);
    }
    if (p->bias >= 0) {
        const int32_t bias = (int32_t)rounded((double)base_bias(p, o) * ((double)p->weight_scale[o] / (double)scale));
        memcpy(lmcu_weights + p->bias + 4u * o, &bias, 4u);
    }
}

/* value = mantissa * 2^(exponent - 53), 2^52 <= mantissa < 2^53, of a normal value > 0 */
static uint64_t mantissa_of(double value, int32_t *exponent)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    *exponent = (int32_t)(bits >> 52) - 1022;
    return (bits & 0xfffffffffffffull) | 0x10000000000000ull;
}

/* codegen/quantmath.py, double_rounding */
static void write_requant(const lmcu_resident_t *p, uint32_t o, double ratio)
{
    int32_t exponent;
    uint64_t fixed = (mantissa_of(ratio, &exponent) + (1u << 21)) >> 22;
    if (fixed == 1ull << 31) {
        fixed >>= 1;
        exponent += 1;
    }
    const uint32_t fraction = exponent < -31 ? 0u : (uint32_t)(2u * fixed);
    const int8_t right = exponent < -31 ? -1 : (int8_t)(-1 - exponent);
    memcpy(lmcu_weights + p->multiplier + 4u * o, &fraction, 4u);
    memcpy(lmcu_weights + p->shift + o, &right, 1u);
}

/* The multipliers of the quick form that put every threshold up to `limit` where it belongs: [low, high]. */
typedef struct {
    int32_t shift; /* below 0: there is no quick form */
    uint64_t exact, low, high;
    int64_t limit;
} quick_t;

static quick_t quick_of(int32_t exponent, uint64_t mantissa, int64_t limit)
{
    quick_t q = {exponent < -22 ? 20 : -2 - exponent, 1u, 0u, 0x7fffffffu, limit};
    const int32_t down = 20 - exponent - q.shift;
    if (q.shift >= 0 && down < 64) {
        q.exact = (mantissa + (1ull << down) - 1u) >> down; /* rounded up */
    }
    return q;
}

/* The n-th threshold is `acc`: M * acc lies above the edge, M * (acc - 1) below. */
static void narrow(quick_t *q, uint32_t n, int64_t acc)
{
    if (q->shift >= 0 && acc <= q->limit) {
        const uint64_t edge = (uint64_t)(2u * n - 1u) << (q->shift + 32), low = edge / (uint64_t)acc + 1u;
        const uint64_t high = acc > 1 ? (edge - 1u) / (uint64_t)(acc - 1) : UINT64_MAX;
        q->low = low > q->low ? low : q->low;
        q->high = high < q->high ? high : q->high;
    }
}

/* codegen/rounding.py: the quick form where it puts every threshold up to `limit` in its place, or else the wide one: the exact
 * multiplier, moved where double arithmetic, the definition, rounds a threshold to the other side. A threshold is an acc at which the
 * output steps; only one whose product is within 2^-40 of it can do so, and then edge - acc * multiplier fits 64 bits whatever
 * wraps. False: neither serves. */
static bool write_rounding(const lmcu_resident_t *p, uint32_t o, double ratio, int64_t limit)
{
    int32_t exponent;
    const uint64_t mantissa = mantissa_of(ratio, &exponent);
    const uint32_t shift = exponent < -33 ? 95u : (uint32_t)(62 - exponent);
    const int32_t left = (int32_t)shift + exponent - 53;
    const uint64_t exact = left >= 0 ? mantissa << left : left > -64 ? mantissa >> -left : 0u;
    int64_t low = INT64_MIN, high = INT64_MAX; /* of what is added to it */
    quick_t quick = quick_of(exponent, mantissa, limit);
    for (uint32_t n = 1u; n <= 255u; ++n) {
        const double step = (double)n - 0.5, place = step / ratio;
        if (place >= HIGHEST_ACC) {
            break;
        }
        const int64_t acc = (int64_t)(place + 0.5);
        const double product = (double)acc * ratio;
        narrow(&quick, n, acc > 0 && product >= step ? acc : acc + 1);
        if (acc == 0 || magnitude(product - step) > step * 0x1p-40) {
            continue;
        }
        const uint64_t edge = shift > 64u ? 0u : (uint64_t)(2u * n - 1u) << (shift - 1u);
        const int64_t behind = (int64_t)(edge - (uint64_t)acc * exact);
        if (product >= step && acc <= INT32_MAX) {
            const int64_t needed = behind > 0 ? (behind + acc - 1) / acc : -(-behind / acc);
            low = needed > low ? needed : low;
        } else if (product < step && acc < INT32_MAX) {
            const int64_t allowed = behind > 0 ? (behind - 1) / acc : -((acc - behind) / acc);
            high = allowed < high ? allowed : high;
        }
    }
    const int64_t more = low > 0 ? low : 0;
    const bool is_quick = quick.shift >= 0 && quick.low <= quick.high;
    const uint64_t least = quick.exact > quick.low ? quick.exact : quick.low, narrowed = least < quick.high ? least : quick.high;
    const uint64_t wide = exact + (uint64_t)(more < high ? more : high);
    const uint64_t multiplier = is_quick ? narrowed | (uint64_t)quick.shift << 32 : wide;
    const uint8_t byte = is_quick ? 0u : (uint8_t)shift;
    memcpy(lmcu_weights + p->multiplier + 8u * o, &multiplier, 8u);
    memcpy(lmcu_weights + p->shift + o, &byte, 1u);
    return is_quick || low <= high;
}

/* No sum of merged channels' bias and products exceeds it; with room for an adapter, as the compiler reckons. */
static int64_t reach_of(const layer_t *l, uint32_t first, uint32_t count)
{
    const lmcu_resident_t *p = l->p;
    int64_t most = 0;
    for (uint32_t o = first; o < first + count; ++o) {
        const int8_t *w = (const int8_t *)lmcu_weights + p->weights + (size_t)o * p->k;
        int32_t bias = 0;
        if (p->bias >= 0) {
            memcpy(&bias, lmcu_weights + p->bias + 4u * o, 4u);
        }
        int64_t sum = bias < 0 ? -(int64_t)bias : bias;
        for (uint32_t i = 0; i < p->k; ++i) {
            sum += 255 * (w[i] < 0 ? -w[i] : w[i]);
        }
        most = sum > most ? sum : most;
    }
    return most + 0x40000000 < INT32_MAX ? most + 0x40000000 : INT32_MAX;
}

/* Channels [first, first + count), which share a scale; false: it does not fit the output's. */
static bool merge_channels(const layer_t *l, uint32_t first, uint32_t count)
{
    const lmcu_resident_t *p = l->p;
    need_t need = {0.0, false};
    for (uint32_t o = first; o < first + count; ++o) {
        look_at(l, o, &need);
        lmcu_layer_done();
    }
    if (!need.changed) {
        return true; /* the base's numbers stay */
    }
    const float fresh = (float)(need.most > SMALLEST ? need.most : SMALLEST);
    const float scale = need.most > 0.0 ? fresh : p->weight_scale[first];
    const double ratio = (double)p->input_scale * (double)scale / (double)p->output_scale;
    if (!(ratio < LARGEST_RATIO)) {
        return false;
    }
    for (uint32_t o = first; o < first + count; ++o) {
        write_row(l, o, scale);
        lmcu_layer_done();
    }
    if (p->rounds != 0u) {
        return write_rounding(p, first, ratio, reach_of(l, first, count));
    }
    write_requant(p, first, ratio);
    return true;
}

static bool merge_layer(const lmcu_resident_t *p, const lmcu_adapter_t *adapter)
{
    const layer_t l = {p, lmcu_model.factors + adapter->a_offset, lmcu_model.factors + adapter->b_offset,
                       (const int8_t *)base(p->weights)};
    const uint32_t count = p->m / p->scales;
    bool fits = true;
    for (uint32_t o = 0u; fits && o < p->m; o += count) {
        fits = merge_channels(&l, o, count);
    }
    return fits;
}

/* A multiply-add in double takes up to 200 instructions without hardware, the rest of a weight 1,500, a multiplier of a
 * dense layer 500,000. */
uint64_t lmcu_merge_instructions(void)
{
    uint64_t sum = 0u;
    for (uint32_t i = 0u; i < lmcu_model.adapter_count; ++i) {
        const lmcu_resident_t *p = &lmcu_residents[i];
        sum += (uint64_t)p->m * p->k * (400u * p->rank + 1500u) + (uint64_t)p->scales * (p->rounds != 0u ? 500000u : 1000u);
    }
    return sum;
}

void lmcu_weights_restore(void)
{
    memcpy(lmcu_weights, lmcu_base_weights, lmcu_weight_bytes);
    lmcu_context.merged = 0u;
}

lmcu_status_t lmcu_merge(void)
{
    if (lmcu_context.float_ok == 0u) {
        return LMCU_FLOAT_ENV;
    }
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    if (lmcu_is_merged()) {
        return LMCU_OK;
    }
    for (uint32_t i = 0u; i < lmcu_model.adapter_count; ++i) {
        if (!merge_layer(&lmcu_residents[i], &lmcu_model.adapters[i])) {
            lmcu_weights_restore();
            return LMCU_SCALE_RANGE;
        }
    }
    lmcu_context.merged = 1u;
    return LMCU_OK;
}

lmcu_status_t lmcu_unmerge(void)
{
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    lmcu_weights_restore();
    return LMCU_OK;
}

#else

lmcu_status_t lmcu_merge(void)
{
    return LMCU_UNSUPPORTED;
}

lmcu_status_t lmcu_unmerge(void)
{
    return LMCU_UNSUPPORTED;
}

#endif

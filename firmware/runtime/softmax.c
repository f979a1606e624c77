/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax over rows [rows][depth], int8 to int8 in fixed point. Qn below: int32 with n integer bits and 31 - n fraction bits. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

/* x * 2^exponent, saturated */
static int32_t shift_left(int32_t x, int32_t exponent)
{
    const int64_t wide = (int64_t)x * ((int64_t)1 << exponent);
    return wide > 0x7fffffff ? 0x7fffffff : wide < -(int64_t)0x80000000 ? (int32_t)-0x7fffffff - 1 : (int32_t)wide;
}

/* exp(a) in Q0 for a in Q0, -1/4 <= a < 0: fourth order around -1/8 */
static int32_t exp_quarter(int32_t a)
{
    const int32_t exp_eighth = 1895147668; /* exp(-1/8) */
    const int32_t third = 715827883;
    const int32_t x = a + (1 << 28);
    const int32_t x2 = lmcu_high_mul(x, x);
    const int32_t x3 = lmcu_high_mul(x2, x);
    const int32_t x4_quarter = lmcu_divide_by_power(lmcu_high_mul(x2, x2), 2);
    const int32_t rest = lmcu_divide_by_power(lmcu_high_mul(x4_quarter + x3, third) + x2, 1);
    return exp_eighth + lmcu_high_mul(exp_eighth, x + rest);
}

/* exp(a) in Q0 for a <= 0 in Q5: the last quarter by series, then one factor for each bit of the rest */
static int32_t exp_negative(int32_t a)
{
    /* exp(-2^e) for e = -2 ... 4 */
    static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    if (a == 0) {
        return 0x7fffffff;
    }
    const int32_t quarter = 1 << 24;
    const int32_t last = (a & (quarter - 1)) - quarter;
    const int32_t rest = last - a;
    int32_t result = exp_quarter(shift_left(last, 5));
    for (int32_t i = 0; i < 7; ++i) {
        if ((rest & (quarter << i)) != 0) {
            result = lmcu_high_mul(result, factors[i]);
        }
    }
    return result;
}

/* 1 / (1 + a) in Q0 for a in Q0, 0 <= a < 1: three Newton steps on (1 + a) / 2 */
static int32_t reciprocal(int32_t a)
{
    const int32_t half = (int32_t)(((int64_t)a + 0x7fffffff + 1) / 2);
    int32_t x = 1515870810 + lmcu_high_mul(half, -1010580540); /* 48/17 - 32/17 half, in Q2 */
    for (int32_t i = 0; i < 3; ++i) {
        const int32_t error = (1 << 29) - lmcu_high_mul(half, x);
        x += shift_left(lmcu_high_mul(x, error), 2);
    }
    return shift_left(x, 1);
}

static int32_t leading_zeros(uint32_t x)
{
    int32_t n = 0;
    for (; n < 32 && (x & 0x80000000u) == 0u; ++n) {
        x <<= 1;
    }
    return n;
}

static int32_t row_maximum(const int8_t *x, int32_t depth)
{
    int32_t max = x[0];
    for (int32_t i = 1; i < depth; ++i) {
        max = x[i] > max ? x[i] : max;
    }
    return max;
}

/* exp of a difference to the maximum, which is not below diff_min */
static int32_t exp_difference(const lmcu_softmax_t *p, int32_t difference)
{
    const int32_t scaled = lmcu_high_mul(difference * (int32_t)(1u << p->input_left_shift), p->input_multiplier);
    return exp_negative(scaled);
}

static void softmax_row(const lmcu_softmax_t *p, const int8_t *x, int8_t *y)
{
    const int32_t max = row_maximum(x, p->depth);
    int32_t sum = 0; /* Q12 */
    for (int32_t i = 0; i < p->depth; ++i) {
        if (x[i] - max >= p->diff_min) {
            sum += lmcu_divide_by_power(exp_difference(p, x[i] - max), 12);
        }
    }
    const int32_t headroom = leading_zeros((uint32_t)sum);
    const int32_t scale = reciprocal((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    const int32_t shift = 12 - headroom + 31 - 8;
    for (int32_t i = 0; i < p->depth; ++i) {
        int32_t value = -128;
        if (x[i] - max >= p->diff_min) {
            value = lmcu_divide_by_power(lmcu_high_mul(scale, exp_difference(p, x[i] - max)), shift) + p->output_zero_point;
        }
        y[i] = (int8_t)lmcu_clamp_i32(value, -128, 127);
    }
}

void lmcu_softmax_forward(const lmcu_softmax_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; ++row) {
        softmax_row(p, x + (intptr_t)row * p->depth, y + (intptr_t)row * p->depth);
    }
}

/* dx[i] += (beta * p[i]) * (g[i] - sum_j g[j] * p[j]) with the probabilities p = (y + 128) / 256 that forward gave */
static void backward_row(const lmcu_softmax_t *p, const int8_t *y, float *g, float *dx)
{
    const lmcu_clamp_t rails = {-128, 127, 0, 0};
    float sum = 0.0f;
    for (int32_t i = 0; i < p->depth; ++i) {
        g[i] = lmcu_masked(g[i], y[i], &rails);
        sum = sum + g[i] * ((float)(y[i] - p->output_zero_point) * 0x1p-8f);
    }
    for (int32_t i = 0; i < p->depth; ++i) {
        const float probability = (float)(y[i] - p->output_zero_point) * 0x1p-8f;
        dx[i] = dx[i] + (p->beta * probability) * (g[i] - sum);
    }
}

void lmcu_softmax_backward(const lmcu_softmax_t *p, const int8_t *y, float *dy, float *dx)
{
    for (int32_t row = 0; row < p->rows; ++row) {
        const intptr_t at = (intptr_t)row * p->depth;
        backward_row(p, y + at, dy + at, dx + at);
    }
}

/* ---- logarithm of softmax ---- */

/* log(z) in Q5 for z in Q12, z >= 1: z = 2^e r with r around 2^(-1/4), whichever of two splits is nearer, then a rational
 * function of r. */
static int32_t logarithm(int32_t z)
{
    const int32_t sqrt_half = 1518500250, fourth_root_half = 1805811301, log_2 = 1488522236;
    const int32_t leading = leading_zeros((uint32_t)z);
    const int32_t z_b = lmcu_high_mul(z, sqrt_half);
    const int32_t headroom = leading_zeros((uint32_t)z_b) - 1;
    const int32_t r_a = shift_left(lmcu_high_mul(shift_left(z, leading - 1), sqrt_half), 1);
    const int32_t r_b = shift_left(z, headroom);
    const int32_t power_a = (12 - leading) * (1 << 25) + (1 << 23); /* the exponents in Q6 */
    const int32_t power_b = (12 - headroom) * (1 << 25) - (1 << 23);
    const int32_t r = r_a < r_b ? r_a : r_b;
    const int32_t power = power_a > power_b ? power_a : power_b;

    const int32_t half_sum = (int32_t)(((int64_t)r + fourth_root_half + 1) / 2);
    const int32_t q = 2 * (r - fourth_root_half);
    const int32_t square = lmcu_high_mul(q, q);
    const int32_t numerator = lmcu_high_mul(q, r) + lmcu_high_mul(lmcu_high_mul(q, square), 117049297);
    const int32_t inner = 1057819769 + q + lmcu_high_mul(square, 127690142);
    const int32_t denominator = lmcu_high_mul(half_sum, inner) + lmcu_high_mul(q, 638450708);
    const int32_t fraction = lmcu_high_mul(lmcu_divide_by_power(numerator, 6), reciprocal(denominator));
    return shift_left(lmcu_high_mul(power, log_2) + fraction, 1);
}

static int32_t input_difference(const lmcu_log_softmax_t *p, int32_t difference)
{
    return lmcu_multiply(difference, p->input_multiplier, p->input_shift);
}

static void log_softmax_row(const lmcu_log_softmax_t *p, const int8_t *x, int8_t *y)
{
    const int32_t max = row_maximum(x, p->depth);
    int32_t sum = 0; /* Q12 */
    for (int32_t i = 0; i < p->depth; ++i) {
        if (x[i] - max >= p->diff_min) {
            sum += lmcu_divide_by_power(exp_negative(input_difference(p, x[i] - max)), 12);
        }
    }
    const int32_t log_sum = logarithm(sum);
    const int32_t lowest = lmcu_multiply(log_sum - 0x7fffffff - 1, p->reverse_multiplier, p->reverse_shift);
    const int32_t limit = p->diff_min - 1 > lowest ? p->diff_min - 1 : lowest;
    for (int32_t i = 0; i < p->depth; ++i) {
        int32_t value = -128;
        if (x[i] - max > limit) {
            value = lmcu_divide_by_power(input_difference(p, x[i] - max) - log_sum, 22) + 127; /* Q5 to 1/16 */
        }
        y[i] = (int8_t)lmcu_clamp_i32(value, -128, 127);
    }
}

void lmcu_log_softmax_forward(const lmcu_log_softmax_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; ++row) {
        log_softmax_row(p, x + (intptr_t)row * p->depth, y + (intptr_t)row * p->depth);
    }
}

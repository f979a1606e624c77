/* SPDX-License-Identifier: Apache-2.0 */
/* Between float32, int8 and uint8: the edges of a model, and rescaling inside it. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "lmcu_ops.h"
#include "requant.h"

/* q = round(x / scale) + zero_point, halves away from zero; far values saturate (NaN becomes the lowest). */
static int8_t quantized(float x, const lmcu_affine_t *p)
{
    const float ratio = x / p->scale;
    float limited = ratio > -0x1p+20f ? ratio : -0x1p+20f;
    limited = limited < 0x1p+20f ? limited : 0x1p+20f;
    return (int8_t)lmcu_clamp_i32(lmcu_nearest(limited) + p->zero_point, -128, 127);
}

void lmcu_quantize_forward(const lmcu_affine_t *p, const float *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = quantized(x[i], p);
    }
}

void lmcu_dequantize_forward(const lmcu_affine_t *p, const int8_t *x, float *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = p->scale * (float)(x[i] - p->zero_point);
    }
}

LMCU_INLINE int32_t requantized(const lmcu_requantize_t *p, int32_t x)
{
    const int32_t value = lmcu_multiply(x - p->input_zero_point, p->multiplier, p->shift);
    return lmcu_clamp_i32(value + p->output_zero_point, p->output_min, p->output_max);
}

void lmcu_requantize_i8_i8(const lmcu_requantize_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = (int8_t)requantized(p, x[i]);
    }
}

void lmcu_requantize_u8_i8(const lmcu_requantize_t *p, const uint8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = (int8_t)requantized(p, x[i]);
    }
}

void lmcu_requantize_i8_u8(const lmcu_requantize_t *p, const int8_t *x, uint8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = (uint8_t)requantized(p, x[i]);
    }
}

/* Passes through; a rail stops what would push further out. */
void lmcu_requantize_backward(const lmcu_requantize_t *p, const int8_t *y, float *dy, float *dx)
{
    const lmcu_clamp_t rails = {p->output_min, p->output_max, 0, 0};
    for (int32_t i = 0; i < p->count; ++i) {
        const float g = lmcu_masked(dy[i], p->output_min == 0 ? (int32_t)(uint8_t)y[i] : y[i], &rails);
        dx[i] = (dx == dy ? 0.0f : dx[i]) + g;
    }
}

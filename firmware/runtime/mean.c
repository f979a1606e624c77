/* SPDX-License-Identifier: Apache-2.0 */
/* Mean over one run of axes: x [outer][count][inner] -> y [outer][inner]. The multiplier holds s_x / (s_y * count). */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

static const lmcu_clamp_t rails = {-128, 127, 0, 0};

void lmcu_mean_forward(const lmcu_mean_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t outer = 0; outer < p->outer; ++outer, x += (intptr_t)p->count * p->inner) {
        for (int32_t c = 0; c < p->inner; ++c) {
            int32_t sum = 0;
            for (int32_t i = 0; i < p->count; ++i) {
                sum += x[(intptr_t)i * p->inner + c];
            }
            sum -= p->count * p->input_zero_point;
            *y++ = lmcu_to_output(lmcu_requant(sum, p->multiplier, p->shift), p->output_zero_point, &rails);
        }
    }
}

void lmcu_mean_backward(const lmcu_mean_t *p, const int8_t *y, float *dy, float *dx)
{
    for (int32_t outer = 0; outer < p->outer; ++outer, dy += p->inner, y += p->inner) {
        for (int32_t c = 0; c < p->inner; ++c) {
            dy[c] = lmcu_masked(dy[c], y[c], &rails);
        }
        for (int32_t i = 0; i < p->count; ++i, dx += p->inner) {
            for (int32_t c = 0; c < p->inner; ++c) {
                dx[c] = dx[c] + dy[c] * p->inverse_count;
            }
        }
    }
}

void lmcu_mean_backward_shared(const lmcu_clamp_t *clamp, int32_t channels, float share, const int8_t *y, const float *dy,
                               float *dx)
{
    for (int32_t c = 0; c < channels; ++c) {
        dx[c] = 0.0f + lmcu_masked(dy[c], y[c], clamp) * share;
    }
}

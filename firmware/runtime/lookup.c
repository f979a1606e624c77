/* SPDX-License-Identifier: Apache-2.0 */
/* y = table[x]: every int8 function of one int8 value, x [count] -> y [count]. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

static const lmcu_clamp_t rails = {-128, 127, 0, 0};

void lmcu_lookup_forward(const lmcu_lookup_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = p->table[x[i] + 128];
    }
}

/* The slope is 0 where an activation's bound stops the gradient; y is looked up again rather than kept. */
void lmcu_lookup_backward(const lmcu_lookup_t *p, const int8_t *x, float *dy, float *dx)
{
    for (int32_t i = 0; i < p->count; ++i) {
        const int32_t at = x[i] + 128;
        const float g = lmcu_masked(dy[i], p->table[at], &rails);
        dx[i] = (dx == dy ? 0.0f : dx[i]) + g * p->slopes[at];
    }
}

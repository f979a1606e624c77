/* SPDX-License-Identifier: Apache-2.0 */
/* The boot test of the float environment. Inputs are volatile, so that the core computes and not the compiler. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "train.h"

static float product_sum(float a, float b, float c)
{
    volatile float va = a, vb = b, vc = c;
    return va * vb + vc;
}

static float sum(float a, float b)
{
    volatile float va = a, vb = b;
    return va + vb;
}

/* (1 + 2^-12)^2 - (1 + 2^-11) is 0 with a rounded product and 2^-24 with a fused one. */
static bool rounds_products(void)
{
    return product_sum(0x1.001p+0f, 0x1.001p+0f, -0x1.002p+0f) == 0.0f;
}

/* Neither a subnormal result nor a subnormal operand is taken for zero. */
static bool keeps_subnormals(void)
{
    return lmcu_float_bits(sum(0x1.8p-126f, -0x1p-126f)) == 0x00400000u && sum(0x1p-127f, 0x1p-127f) == 0x1p-126f;
}

static bool keeps_half_subnormals(void)
{
    volatile uint16_t smallest = 1u, largest = 0x03ffu;
    return lmcu_half_to_float(smallest) == 0x1p-24f && lmcu_half_to_float(largest) == 0x1.ff8p-15f &&
           lmcu_half_nearest(0x1p-24f) == 1u && lmcu_half_stochastic(0x1.8p-24f, 0x8000u) == 2u;
}

/* Halves go to even, more than halves up in magnitude, whatever the sign. */
static bool rounds_to_nearest_even(void)
{
    return sum(1.0f, 0x1p-24f) == 1.0f && sum(0x1.000002p+0f, 0x1p-24f) == 0x1.000004p+0f &&
           sum(1.0f, 0x1.8p-24f) == 0x1.000002p+0f && sum(-1.0f, -0x1.8p-24f) == -0x1.000002p+0f &&
           sum(-1.0f, -0x1p-24f) == -1.0f;
}

bool lmcu_self_test(void)
{
    return rounds_products() && keeps_subnormals() && keeps_half_subnormals() && rounds_to_nearest_even();
}

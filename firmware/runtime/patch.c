/* SPDX-License-Identifier: Apache-2.0 */
/* int8 activations widened to patches. */
#include "lmcu_strict.h"

#include "patch.h"

#if LMCU_DSP
/* Whole groups of the run. */
static int32_t head(int16_t *patch, int32_t step, const int8_t *x, int32_t zero_point, int32_t count)
{
    const uint32_t minus = (uint32_t)(-zero_point & 0xffff) * 0x10001u;
    const int8_t *end = x + (count & ~3);
    uint32_t even, odd;
    for (; x != end; patch += step) {
        __asm__ volatile("ldr %[odd], [%[x]], #4\n\tsxtab16 %[even], %[minus], %[odd]\n\t"
                         "sxtab16 %[odd], %[minus], %[odd], ror #8\n\tstrd %[even], %[odd], [%[patch]]"
                         : [x] "+&r"(x), [even] "=&r"(even), [odd] "=&r"(odd)
                         : [minus] "r"(minus), [patch] "r"(patch)
                         : "memory");
    }
    return count & ~3;
}
#else
static int32_t head(int16_t *patch, int32_t step, const int8_t *x, int32_t zero_point, int32_t count)
{
    int32_t i = 0;
    for (; i + LMCU_GROUP <= count; i += LMCU_GROUP, patch += step) {
        for (int32_t j = 0; j < LMCU_GROUP; ++j) {
            patch[j] = (int16_t)(x[i + j] - zero_point);
        }
    }
    return i;
}
#endif

int16_t *lmcu_patch_values(int16_t *patch, int32_t step, const int8_t *x, int32_t zero_point, int32_t count)
{
    const int32_t done = head(patch, step, x, zero_point, count);
    patch += done / LMCU_GROUP * step;
    if (done == count) {
        return patch;
    }
    for (int32_t j = 0; j < LMCU_GROUP; ++j) {
        patch[LMCU_PLACE(j)] = done + j < count ? (int16_t)(x[done + j] - zero_point) : 0;
    }
    return patch + step;
}

int16_t *lmcu_patch_zeros(int16_t *patch, int32_t step, int32_t count)
{
    for (; count > 0; count -= LMCU_GROUP, patch += step) {
        for (int32_t j = 0; j < LMCU_GROUP; ++j) {
            patch[j] = 0;
        }
    }
    return patch;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Bilinear resizing: x [in_h][in_w][channels] -> y [out_h][out_w][channels], four neighbours weighted in 1/1024 by row and
 * column. A line of a table is {first neighbour, second neighbour, weight of the second}. */
#include "lmcu_strict.h"

#include "lmcu_ops.h"
#include "requant.h"

#define ONE 1024

static const lmcu_clamp_t rails = {-128, 127, 0, 0};

typedef struct {
    intptr_t offset[4]; /* of the neighbours' channels in x: rows first, then columns */
    int32_t weight[4];  /* they sum to 2^20 */
} neighbours_t;

static neighbours_t neighbours(const lmcu_resize_bilinear_t *p, int32_t oy, int32_t ox)
{
    const int16_t *row = p->rows + 3 * oy, *column = p->columns + 3 * ox;
    neighbours_t n;
    for (int32_t i = 0; i < 4; ++i) {
        const int32_t down = i >> 1, right = i & 1;
        n.offset[i] = ((intptr_t)row[down] * p->in_w + column[right]) * p->channels;
        n.weight[i] = (down ? row[2] : ONE - row[2]) * (right ? column[2] : ONE - column[2]);
    }
    return n;
}

/* Halves away from zero; |sum| <= 2^27. */
static int8_t rounded(int32_t sum)
{
    return (int8_t)((sum + (sum > 0 ? ONE * ONE / 2 : -(ONE * ONE / 2))) / (ONE * ONE));
}

void lmcu_resize_bilinear_forward(const lmcu_resize_bilinear_t *p, const int8_t *x, int8_t *y)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const neighbours_t n = neighbours(p, oy, ox);
            for (int32_t c = 0; c < p->channels; ++c) {
                int32_t sum = 0;
                for (int32_t i = 0; i < 4; ++i) {
                    sum += x[n.offset[i] + c] * n.weight[i];
                }
                *y++ = rounded(sum);
            }
        }
    }
}

void lmcu_resize_bilinear_backward(const lmcu_resize_bilinear_t *p, const int8_t *y, const float *dy, float *dx)
{
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        for (int32_t ox = 0; ox < p->out_w; ++ox) {
            const neighbours_t n = neighbours(p, oy, ox);
            for (int32_t c = 0; c < p->channels; ++c) {
                const float g = lmcu_masked(*dy++, *y++, &rails);
                for (int32_t i = 0; i < 4; ++i) {
                    float *to = dx + n.offset[i] + c;
                    *to = *to + g * ((float)n.weight[i] * 0x1p-20f);
                }
            }
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The int8 matrix products that dense and convolution share: rows of w [m][k] against one int16 patch [k]. */
#ifndef LMCU_MATVEC_H
#define LMCU_MATVEC_H

#include "lmcu_strict.h"

#include <stdint.h>

/* acc[r] = bias[r] + sum_k w[r][k] * patch[k] for `rows` <= 4 rows, exact; bias may be NULL */
void lmcu_dot_block(const int16_t *patch, const int8_t *w, const int32_t *bias, int32_t k, int32_t rows, int32_t *acc);

/* val[k] = sum over o ascending of (scale[o] * g[o]) * (float)(w[o][k] - zero_point), from +0; rows with g = 0 skipped */
void lmcu_transposed_product(const int8_t *w, int32_t zero_point, const float *scale, const float *g, int32_t m, int32_t k,
                             float *val);

#endif

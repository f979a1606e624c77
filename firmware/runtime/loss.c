/* SPDX-License-Identifier: Apache-2.0 */
/* Losses on the dequantized int8 logits [logit_count], and their gradients in real units, of one sample. */
#include "lmcu_strict.h"

#include "lmcu_math.h"
#include "train.h"

static float dequantized(uint32_t i)
{
    return lmcu_model.logit_scale * (float)(lmcu_model.logits[i] - lmcu_model.logit_zero_point);
}

static uint32_t first_largest(void)
{
    uint32_t best = 0u;
    for (uint32_t i = 1u; i < lmcu_model.logit_count; ++i) {
        best = lmcu_model.logits[i] > lmcu_model.logits[best] ? i : best;
    }
    return best;
}

/* loss = log(sum e) - (z_label - max), e = exp(z - max); gradient = e / sum - onehot */
static lmcu_loss_t cross_entropy(uint32_t label, float *gradient)
{
    const uint32_t best = first_largest();
    const float max = dequantized(best);
    float sum = 0.0f;
    for (uint32_t i = 0u; i < lmcu_model.logit_count; ++i) {
        const float e = lmcu_exp(dequantized(i) - max);
        sum = sum + e;
        if (gradient) {
            gradient[i] = e;
        }
    }
    for (uint32_t i = 0u; gradient && i < lmcu_model.logit_count; ++i) {
        gradient[i] = gradient[i] / sum - (i == label ? 1.0f : 0.0f);
    }
    const lmcu_loss_t result = {lmcu_log(sum) - (dequantized(label) - max), best == label};
    return result;
}

/* One logit, p = 1 / (1 + exp(-z)): loss = -log p of the label's class, from exp(-|z|), which never overflows; gradient =
 * p - label. */
static lmcu_loss_t binary_cross_entropy(uint32_t label, float *gradient)
{
    const float z = dequantized(0u);
    const bool positive = lmcu_model.logits[0] > lmcu_model.logit_zero_point;
    const float size = positive ? z : -z;
    const float e = lmcu_exp(-size);
    const float p = (positive ? 1.0f : e) / (1.0f + e);
    const bool correct = positive == (label == 1u);
    if (gradient) {
        gradient[0] = p - (label == 1u ? 1.0f : 0.0f);
    }
    const lmcu_loss_t result = {lmcu_log(1.0f + e) + (correct ? 0.0f : size), correct};
    return result;
}

/* loss = (sum (y - t)^2) / n; gradient = 2 (y - t) / n */
static lmcu_loss_t mean_squared_error(const float *target, float *gradient)
{
    const float n = (float)lmcu_model.logit_count;
    float sum = 0.0f;
    for (uint32_t i = 0u; i < lmcu_model.logit_count; ++i) {
        const float difference = dequantized(i) - target[i];
        sum = sum + difference * difference;
        if (gradient) {
            gradient[i] = 2.0f * difference / n;
        }
    }
    const lmcu_loss_t result = {sum / n, false};
    return result;
}

lmcu_loss_t lmcu_loss(lmcu_label_t label, float *gradient)
{
    if (lmcu_model.loss == LMCU_LOSS_MSE) {
        return mean_squared_error(label.target, gradient);
    }
    return lmcu_model.logit_count == 1u ? binary_cross_entropy(label.class_index, gradient)
                                        : cross_entropy(label.class_index, gradient);
}

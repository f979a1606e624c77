/* SPDX-License-Identifier: Apache-2.0 */
/* The guard: an adapter that is worse than the base, or than the one before, on samples that it was not trained on. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "samples.h"
#include "train.h"

static size_t factor_bytes(void)
{
    return 2u * (size_t)lmcu_model.param_count;
}

lmcu_status_t lmcu_evaluate_held_out(lmcu_stats_t *stats)
{
    const lmcu_stats_t none = {0.0f, 0u, 0u, 0u, 0u};
    *stats = none;
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    for (uint32_t i = 0u; i < lmcu_context.stored; ++i) {
        lmcu_label_t label;
        if (lmcu_samples_held_out(i) && lmcu_samples_load(i, &label)) {
            lmcu_run_record(label, stats);
        }
    }
    return stats->samples > 0u ? LMCU_OK : LMCU_STORE_EMPTY;
}

/* Fewer right answers or, where the loss is what counts, a larger loss; a loss that is no number is worse than any. */
static bool worse(const lmcu_stats_t *a, const lmcu_stats_t *b)
{
    if (lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY) {
        return a->correct < b->correct;
    }
    return !(a->loss_sum <= b->loss_sum);
}

lmcu_status_t lmcu_guard_begin(lmcu_guard_t *guard, uint16_t *saved)
{
    lmcu_status_t status = lmcu_training_status();
    guard->saved = saved;
    if (status != LMCU_OK) {
        return status;
    }
    status = lmcu_evaluate_held_out(&guard->before);
    if (status != LMCU_OK) {
        return status;
    }
    memcpy(saved, lmcu_model.factors, factor_bytes());
    lmcu_initial_factors();
    status = lmcu_evaluate_held_out(&guard->base);
    memcpy(lmcu_model.factors, saved, factor_bytes());
    lmcu_factors_changed();
    return status;
}

lmcu_status_t lmcu_guard_end(lmcu_guard_t *guard)
{
    if (lmcu_is_merged()) {
        return LMCU_MERGED;
    }
    const lmcu_status_t status = lmcu_evaluate_held_out(&guard->after);
    if (status != LMCU_OK) {
        return status;
    }
    if (!worse(&guard->after, &guard->before) && !worse(&guard->after, &guard->base)) {
        return LMCU_OK;
    }
    memcpy(lmcu_model.factors, guard->saved, factor_bytes());
    lmcu_factors_changed();
    lmcu_restart();
    return LMCU_WORSE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the training core that train.c puts together. */
#ifndef LMCU_TRAIN_H
#define LMCU_TRAIN_H

#include "lmcu_strict.h"

#include "lmcu.h"

typedef struct {
    float loss;
    bool correct; /* cross entropy: the first largest logit is the label's */
} lmcu_loss_t;

/* Loss of lmcu_model.logits; writes dL/dlogits to `gradient` [logit_count] unless it is NULL. The label is valid. */
lmcu_loss_t lmcu_loss(lmcu_label_t label, float *gradient);

/* One SGD step from the sums over `samples` in lmcu_model.gradients (scaled in place). False: a value was not finite and
 * nothing was written. */
bool lmcu_update(uint32_t samples);

/* Whether this core computes as docs/numerics.md demands. */
bool lmcu_self_test(void);

/* A run or a transfer of an adapter is in progress. */
bool lmcu_busy(void);

/* Whether training may begin now, and why not. */
lmcu_status_t lmcu_training_status(void) LMCU_MUST_USE;
lmcu_status_t lmcu_check_label(lmcu_label_t label) LMCU_MUST_USE;

/* To be called when lmcu_model.factors were written: what is made from them is made anew. */
void lmcu_factors_changed(void);

/* The initial A and B = 0 into lmcu_model.factors. */
void lmcu_initial_factors(void);

/* A new beginning of training: momentum, step, epoch, open batch and an unfinished transfer are gone. */
void lmcu_restart(void);

/* Forward and loss of a stored sample that lmcu_samples_load put in place; adds to *stats. */
void lmcu_run_record(lmcu_label_t label, lmcu_stats_t *stats);

#endif

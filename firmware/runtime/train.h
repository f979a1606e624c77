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

#endif

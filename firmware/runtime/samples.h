/* SPDX-License-Identifier: Apache-2.0 */
/* The sample store, as the training core sees it. */
#ifndef LMCU_SAMPLES_H
#define LMCU_SAMPLES_H

#include "lmcu_strict.h"

#include "lmcu.h"

/* Puts the parts of stored sample `index` where a pass begins, and its label into *label. False: it cannot be read. */
bool lmcu_samples_load(uint32_t index, lmcu_label_t *label);

/* Whether it is kept for judging and not trained on. */
bool lmcu_samples_held_out(uint32_t index);

/* Fills lmcu_model.order with the samples that are trained on, in order of arrival; how many there are. */
uint32_t lmcu_samples_order(void);

/* Boot: an empty store. */
void lmcu_samples_boot(void);

#endif

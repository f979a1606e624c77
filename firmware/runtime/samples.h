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

/* All that the store is, for keeping it in flash: a head that says what the rest is, counts of classes, the records. */
enum { LMCU_SAMPLES_PARTS = 3 };
typedef struct {
    uint8_t *at;
    uint32_t bytes;
} lmcu_samples_part_t;
typedef struct {
    uint32_t stored, seen;
    lmcu_store_policy_t policy;
    uint32_t record_bytes, cached, classes;
} lmcu_samples_head_t;

/* The parts of the store as it stands, or as `head` says, which it fills or believes. False: `head` is of another store. */
void lmcu_samples_describe(lmcu_samples_head_t *head, lmcu_samples_part_t parts[LMCU_SAMPLES_PARTS]);
bool lmcu_samples_expect(lmcu_samples_head_t *head, lmcu_samples_part_t parts[LMCU_SAMPLES_PARTS]);

/* The parts have been filled from what somebody else may have written: the store holds them, or false and it is empty. */
bool lmcu_samples_accept(const lmcu_samples_head_t *head);

/* Boot: an empty store. */
void lmcu_samples_boot(void);

#endif

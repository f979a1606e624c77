/* SPDX-License-Identifier: Apache-2.0 */
/* The adapter store: a log in the port's flash, where adapters stand by name, and the samples. Nothing of it is kept in RAM. */
#ifndef LMCU_STORE_H
#define LMCU_STORE_H

#include "lmcu.h"

enum { LMCU_SLOT_NAME = 16 }; /* bytes of a name, zeros at the end; at most 15 characters */

typedef struct {
    char name[LMCU_SLOT_NAME];
    uint32_t crc32;     /* of the factors */
    bool right_model;   /* made for this model */
    bool right_layout;  /* and for its adapter layout */
} lmcu_slot_t;

/* 1 to 15 printable ASCII characters, zeros behind them. */
bool lmcu_slot_name_valid(const char name[LMCU_SLOT_NAME]);

/* The factors in use become the slot's, or nothing changes. NO_SPACE, STORAGE, UNSUPPORTED, NO_ADAPTERS. */
lmcu_status_t lmcu_slot_save(const char name[LMCU_SLOT_NAME]) LMCU_MUST_USE;

/* The slot's factors replace those in use, or nothing changes. NOT_FOUND, WRONG_MODEL, WRONG_LAYOUT, BAD_CRC, STORAGE. */
lmcu_status_t lmcu_slot_load(const char name[LMCU_SLOT_NAME]) LMCU_MUST_USE;
lmcu_status_t lmcu_slot_delete(const char name[LMCU_SLOT_NAME]) LMCU_MUST_USE;

/* The slot that is loaded at boot; an empty name: none. */
lmcu_status_t lmcu_slot_set_default(const char name[LMCU_SLOT_NAME]) LMCU_MUST_USE;
void lmcu_slot_default(char name[LMCU_SLOT_NAME]); /* all zeros: none */

/* The stored samples, with the store's policy, as they are: a reset gives them back. None: nothing is kept any more. The saved
 * ones are replaced whole, or nothing changes. NO_SPACE: beside the slots; STORAGE, UNSUPPORTED, BUSY. */
lmcu_status_t lmcu_store_save(void) LMCU_MUST_USE;

/* The saved samples replace those in the store. NOT_FOUND: none are saved; WRONG_MODEL, WRONG_LAYOUT: they are another model's,
 * or features of other layers; BAD_CRC, STORAGE. After an error the store may be empty. */
lmcu_status_t lmcu_store_restore(void) LMCU_MUST_USE;

/* Loads the default slot, if there is one that fits (the initial adapter stays otherwise), and the saved samples. */
void lmcu_slot_boot(void);

/* The slot number `index`, in the order of the log; false: there are not so many. */
bool lmcu_slot_at(uint32_t index, lmcu_slot_t *slot);

/* How many adapters of this model fit into an empty store; 0: the port has no flash for adapters. */
uint32_t lmcu_slot_capacity(void);

/* Called before flash is erased or much of it written, which stalls the core for up to `ms`. The protocol's tells the host; a program without the
 * protocol may define its own, and otherwise gets one that does nothing. */
void lmcu_before_erase(uint32_t ms);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in SRAM: what the compiler generates for them (weights = "sram"). */
#ifndef LMCU_MERGE_H
#define LMCU_MERGE_H

#include "lmcu.h"

/* An adapted layer, in the order of lmcu_model.adapters. Offsets in lmcu_weights and lmcu_base_weights, bytes. */
typedef struct {
    uint32_t m, k, rank;
    uint32_t scales;            /* of the weights: m, or 1 for all channels */
    uint32_t rounds;            /* 1: lmcu_round_t (dense), uint64 and uint8; 0: fraction and right of lmcu_requant_t */
    uint32_t weights;           /* int8 [m][k] */
    int32_t bias;               /* int32 [m]; -1: none */
    uint32_t multiplier, shift; /* [scales] */
    float gamma, input_scale, output_scale;
    const float *weight_scale;  /* [m], of the base */
} lmcu_resident_t;

extern uint8_t lmcu_weights[];
extern const uint64_t lmcu_base_weights[]; /* what lmcu_weights holds of the base */
extern const uint32_t lmcu_weight_bytes;
extern const lmcu_resident_t lmcu_residents[];

/* The base's weights, bit for bit. */
void lmcu_weights_restore(void);

/* How many instructions lmcu_merge takes at most. */
uint64_t lmcu_merge_instructions(void);

#endif

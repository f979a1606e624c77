/* SPDX-License-Identifier: Apache-2.0 */
/* A one-layer model (dense 6 -> 5 with an adapter of rank 2) written by hand, for tests of the training core alone. */
#include <string.h>

#include "lmcu_ops.h"

#ifndef TINY_LOSS
#define TINY_LOSS LMCU_LOSS_CROSS_ENTROPY
#endif
#ifndef TINY_ADAPTERS
#define TINY_ADAPTERS 1
#endif

enum { INPUTS = 6, OUTPUTS = 5, RANK = 2, A_COUNT = RANK * INPUTS, B_COUNT = OUTPUTS * RANK, CAPACITY = 9 };
enum { RECORD = 8 + 4 + (TINY_LOSS == LMCU_LOSS_MSE ? 4 * OUTPUTS : 0), PARAMS = A_COUNT + B_COUNT };

static const int8_t weights[OUTPUTS * INPUTS] = {
    17, -90, 33, 5, -61, 120, -44, 8, 77, -13, 29, -100, 64, 51, -7, -118, 92, 3,
    -25, 70, -36, 11, 105, -58, 99, -2, 46, -83, 20, 15,
};
static const int32_t bias[OUTPUTS] = {40, -200, 310, -15, 90};
static const uint64_t multiplier[1] = {2305843009}; /* 0.002 * 2^40 */
static const uint8_t shift[1] = {40};
static const float weight_scale[OUTPUTS] = {0.01f, 0.01f, 0.01f, 0.01f, 0.01f};
static const float c[OUTPUTS] = {200.0f, 200.0f, 200.0f, 200.0f, 200.0f};
static const uint16_t initial_a[A_COUNT] = {
    0x2e66, 0xb19a, 0x2a00, 0x3266, 0xac00, 0x3000, 0xb400, 0x2e00, 0x3100, 0xa800, 0x2d00, 0xb300,
};
static const lmcu_adapter_t adapters[1] = {{0, A_COUNT, A_COUNT, B_COUNT}};
static const lmcu_lora_t lora = {RANK, 0, A_COUNT, 1, 2.0f, 0.05f, c};
static const lmcu_dense_t dense = {
    1, INPUTS, OUTPUTS, 3, 0, -4, {-128, 127, 0, 0}, {multiplier, shift, 0}, weights, bias, weight_scale,
};

static int8_t arena[8];
static int8_t activation[8];
static int8_t logits[8];
uint8_t tiny_output[8];
static float logit_gradient[OUTPUTS];
static int32_t scratch[16];
uint16_t tiny_factors[PARAMS];
float tiny_gradients[PARAMS];
float tiny_momentum[PARAMS];
static uint32_t store[CAPACITY * RECORD / 4];
uint16_t tiny_order[CAPACITY];
static uint32_t class_seen[OUTPUTS];
int8_t *const tiny_input = arena;
static const lmcu_part_t parts[1] = {{(uint8_t *)arena, INPUTS}};

const lmcu_model_t lmcu_model = {
    .input_bytes = INPUTS, .output_bytes = OUTPUTS, .loss = TINY_LOSS, .logit_count = OUTPUTS,
    .logit_scale = 0.125f, .logit_zero_point = -4, .param_count = PARAMS, .adapter_count = TINY_ADAPTERS,
    .adapters = adapters, .initial_a = initial_a, .store_capacity = CAPACITY, .record_bytes = RECORD,
    .parts = parts, .part_count = 1,
    .input = (uint8_t *)arena, .output = tiny_output, .logits = logits, .logit_gradient = logit_gradient,
    .factors = tiny_factors, .gradients = tiny_gradients, .momentum = tiny_momentum, .store = (uint8_t *)store,
    .order = tiny_order, .class_seen = class_seen,
};

/* The input is gone after a forward pass, as in a real memory plan. */
void lmcu_model_prefix(void)
{
}

void lmcu_model_suffix(void)
{
    memcpy(activation, arena, sizeof activation);
    memset(arena, 0x55, sizeof arena);
    lmcu_dense_forward(&dense, &lora, activation, logits, scratch);
}

void lmcu_model_tail(void)
{
    memcpy(tiny_output, logits, OUTPUTS);
}

void lmcu_model_backward(void)
{
    lmcu_dense_backward(&dense, &lora, activation, logits, logit_gradient, NULL, scratch);
}

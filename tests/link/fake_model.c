/* SPDX-License-Identifier: Apache-2.0 */
/* One adapted dense layer and a port that is two byte queues: the firmware's protocol as a library of the tests. Built with
 * FAKE_INPUT, FAKE_OUTPUT, FAKE_LOSS, FAKE_CAPACITY and fake_info.h (written by fake_device.py). */
#include <stdlib.h>
#include <string.h>

#include "fake_info.h"
#include "lmcu_ops.h"
#include "lmcu_port.h"
#include "protocol.h"
#include "random.h"
#include "store.h"

enum {
    K = FAKE_INPUT,
    M = FAKE_OUTPUT,
    RANK = 2,
    PARAMS = RANK * (K + M),
    TARGET = FAKE_LOSS == LMCU_LOSS_MSE ? 4 * M : 0,
    RECORD = (K + 3) / 4 * 4 + 4 + TARGET,
    QUEUE = 1 << 20
};

static const uint8_t model_sha[32] = {[0 ... 31] = 0xAA};
static const uint8_t layout_sha[32] = {[0 ... 31] = 0xBB};
static const char info[] = FAKE_INFO;
static const lmcu_adapter_t adapters[1] = {{0, RANK * K, RANK * K, RANK * M}};
static int8_t weights[M * K];
static float weight_scale[M], c_factor[M];
static uint16_t initial_a[RANK * K];
static int8_t input[K] LMCU_ALIGNED(8), saved[K], logits[M] LMCU_ALIGNED(8);
static float logit_gradient[M], gradients[PARAMS], momentum[PARAMS], target[M], scratch[2 * (K + M)];
static uint16_t order[FAKE_CAPACITY];
static uint32_t class_seen[M];
#if FAKE_STATE
static uint8_t stream_state[FAKE_STATE];
static const int8_t initial_state[FAKE_STATE] = {1, 2, 3};
#endif
static const lmcu_part_t parts[1] = {{(uint8_t *)input, K}};
uint16_t fake_factors[PARAMS];
uint8_t fake_store[FAKE_CAPACITY * RECORD] LMCU_ALIGNED(8);

const lmcu_model_t lmcu_model = {
    .info = info, .info_bytes = sizeof info - 1, .model_sha256 = model_sha, .layout_sha256 = layout_sha,
    .input_bytes = K, .output_bytes = M, .loss = FAKE_LOSS, .logit_count = M, .logit_scale = 0.05f,
    .param_count = PARAMS, .adapter_count = 1, .adapters = adapters, .initial_a = initial_a,
    .store_capacity = FAKE_CAPACITY, .record_bytes = RECORD, .parts = parts, .part_count = 1, .input = (uint8_t *)input,
    .output = (const uint8_t *)logits, .logits = logits, .logit_gradient = logit_gradient, .factors = fake_factors,
    .gradients = gradients, .momentum = momentum, .store = fake_store, .order = order, .class_seen = class_seen, .target = target,
#if FAKE_STATE
    .state = stream_state, .initial_state = initial_state, .state_bytes = FAKE_STATE,
#endif
};

static const uint64_t multiplier[1] = {14411518807585587u}; /* 0.0125 * 2^60 = 0.0625 * 0.01 / 0.05 */
static const uint8_t shift[1] = {60};
static const lmcu_dense_t dense = {
    .batch = 1, .k = K, .m = M, .clamp = {-128, 127, 0, 0}, .requant = {multiplier, shift, 0},
    .weights = weights, .weight_scale = weight_scale,
};
static const lmcu_lora_t lora = {
    .rank = RANK, .a_offset = 0, .b_offset = RANK * K, .gamma = 2.0f, .input_scale = 0.0625f, .c = c_factor,
};

/* The arena of a real model reuses the input: here it is overwritten at once. */
void lmcu_model_prefix(void)
{
}

void lmcu_model_suffix(void)
{
    memcpy(saved, input, sizeof saved);
    memset(input, 0x55, sizeof input);
    lmcu_dense_forward(&dense, &lora, saved, logits, scratch);
}

void lmcu_model_tail(void)
{
}

void lmcu_model_backward(void)
{
    lmcu_dense_backward(&dense, &lora, saved, logits, logit_gradient, NULL, scratch);
}

/* ---- the port ---- */

static struct {
    uint8_t bytes[QUEUE];
    uint32_t head, tail;
} rx, tx;
static uint32_t boots, reset_wanted;

void lmcu_port_init(void)
{
}

uint32_t lmcu_port_read(uint8_t *buffer, uint32_t capacity)
{
    uint32_t count = 0;
    while (count < capacity && rx.tail != rx.head) {
        buffer[count++] = rx.bytes[rx.tail++ % QUEUE];
    }
    return count;
}

void lmcu_port_write(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && tx.head - tx.tail < QUEUE; ++i) {
        tx.bytes[tx.head++ % QUEUE] = bytes[i];
    }
}

void lmcu_port_idle(void)
{
}

uint64_t fake_ticks = 7;

uint64_t lmcu_port_ticks(void)
{
    return fake_ticks;
}

uint32_t lmcu_port_clock_hz(void)
{
    return 1000000;
}

uint32_t lmcu_port_clock_source(void)
{
    return 1;
}

uint32_t lmcu_port_boot_id(void)
{
    return boots;
}

void lmcu_port_reset(void)
{
    reset_wanted = 1;
}

uint32_t lmcu_port_reset_cause(void)
{
    return LMCU_RESET_PIN;
}

uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
    return ms;
}

void lmcu_port_watchdog_feed(void)
{
}

uint32_t lmcu_port_rx_bytes(void)
{
    return LMCU_RX_RING_BYTES;
}

/* 2 000 000 is the fastest. */
uint32_t lmcu_port_baud_near(uint32_t baud)
{
    return baud < 2000000 ? baud : 2000000;
}

uint32_t fake_baud;

void lmcu_port_baud_set(uint32_t baud)
{
    fake_baud = baud;
}

uint32_t lmcu_port_flash_erase_ms(void)
{
    return 40;
}

uint32_t lmcu_port_stack_used(void)
{
    return 123;
}

/* Flash of the size that the test sets; outlives fake_boot. */
enum { HALF = 4096, UNIT = 8 };
static uint8_t flash[2][HALF];
uint32_t fake_half_bytes = HALF;

lmcu_flash_t lmcu_port_flash(void)
{
    return (lmcu_flash_t){fake_half_bytes, UNIT};
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    if (half > 1 || offset > HALF || count > HALF - offset) {
        abort(); /* beyond the store */
    }
    memcpy(to, flash[half] + offset, count);
    return true;
}

bool lmcu_port_flash_erase(uint32_t half)
{
    memset(flash[half], 0xff, HALF);
    return true;
}

bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    memcpy(flash[half] + offset, unit, UNIT);
    return true;
}

/* ---- for the tests ---- */

uint8_t *fake_flash(uint32_t half)
{
    return flash[half];
}

uint32_t fake_flash_crc(void)
{
    return lmcu_crc32(lmcu_crc32(0, flash[0], fake_half_bytes), flash[1], fake_half_bytes);
}

void fake_boot(void)
{
    for (uint32_t i = 0; i < M * K; ++i) {
        weights[i] = (int8_t)(lmcu_mix(i + 1) >> 24);
    }
    for (uint32_t i = 0; i < M; ++i) {
        weight_scale[i] = 0.01f;
        c_factor[i] = 2.0f / 0.01f;
    }
    for (uint32_t i = 0; i < RANK * K; ++i) {
        initial_a[i] = (uint16_t)(0x2800 + (lmcu_mix(i + 77) & 0x83FF)); /* +-0.03 to 0.06 */
    }
    memset(fake_store, 0, sizeof fake_store);
    memset(input, 0, sizeof input);
    rx.head = rx.tail = reset_wanted = 0; /* what was sent is on the line already */
    boots++;
    (void)!lmcu_init();
    lmcu_slot_boot();
    lmcu_link_init();
}

void fake_feed(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count && rx.head - rx.tail < QUEUE; ++i) {
        rx.bytes[rx.head++ % QUEUE] = bytes[i];
    }
}

void fake_poll(uint32_t turns)
{
    while (turns-- > 0 && lmcu_link_poll()) {
        if (reset_wanted) {
            fake_boot();
        }
    }
}

uint32_t fake_take(uint8_t *buffer, uint32_t capacity)
{
    uint32_t count = 0;
    while (count < capacity && tx.tail != tx.head) {
        buffer[count++] = tx.bytes[tx.tail++ % QUEUE];
    }
    return count;
}

uint8_t *fake_input(void)
{
    return (uint8_t *)input;
}

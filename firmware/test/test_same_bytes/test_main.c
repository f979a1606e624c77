/* SPDX-License-Identifier: Apache-2.0 */
/* What `pio test` runs, on the device in place of the firmware's main loop and on this computer (LMCU_TEST_HOST): both must
 * print the same numbers. Lines: "lmcu_test NAME VALUE", eight hexadecimal digits, the last one is `end`. */
#include "lmcu.h"
#include "lmcu_mem.h"

enum { SAMPLES = 4 };

static void say(const char *text, uint32_t count);

static void report(const char *name, uint32_t value)
{
    char line[48] = "lmcu_test ";
    uint32_t at = 10;
    while (*name != 0) {
        line[at++] = *name++;
    }
    line[at++] = ' ';
    for (int32_t shift = 28; shift >= 0; shift -= 4) {
        line[at++] = "0123456789abcdef"[value >> shift & 15u];
    }
    line[at++] = '\n';
    say(line, at);
}

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* Bytes below 64: finite numbers also where the model takes float32. */
static void fill_input(uint32_t sample)
{
    uint32_t state = sample + 1u;
    for (uint32_t i = 0; i < lmcu_model.input_bytes; i++) {
        lmcu_model.input[i] = (uint8_t)(next(&state) & 63u);
    }
}

static lmcu_label_t label_of(uint32_t sample)
{
    lmcu_label_t label;
    if (lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY) {
        label.class_index = sample % lmcu_model.logit_count;
        return label;
    }
    for (uint32_t i = 0; i < lmcu_model.logit_count; i++) {
        lmcu_model.target[i] = (float)((i + sample) % 9u) * 0.125f - 0.5f;
    }
    label.target = lmcu_model.target;
    return label;
}

static uint32_t outputs(void)
{
    uint32_t crc = 0;
    for (uint32_t sample = 0; sample < SAMPLES; sample++) {
        fill_input(sample);
        lmcu_infer();
        crc = lmcu_crc32(crc, lmcu_model.output, lmcu_model.output_bytes);
    }
    return crc;
}

/* Two steps; returns the first status that is not OK */
static lmcu_status_t train(void)
{
    lmcu_settings_t settings = lmcu_default_settings();
    settings.batch_size = SAMPLES / 2;
    settings.momentum = 0.5f;
    lmcu_status_t status = lmcu_configure(&settings);
    if (status == LMCU_OK) {
        status = lmcu_pass_begin();
    }
    for (uint32_t sample = 0; sample < SAMPLES && status == LMCU_OK; sample++) {
        fill_input(sample);
        status = lmcu_train_sample(label_of(sample));
    }
    return status == LMCU_OK ? lmcu_pass_end() : status;
}

static void run(void)
{
    report("float_environment", (uint32_t)lmcu_init());
    report("inference", outputs());
    if (lmcu_model.param_count != 0) {
        const uint8_t zero[2] = {0, 0};
        report("initial_adapter", lmcu_adapter_crc32());
        report("training", (uint32_t)train());
        report("trained_adapter", lmcu_adapter_crc32());
        report("trained_inference", outputs());
        lmcu_status_t status = lmcu_adapter_begin();
        status = status == LMCU_OK ? lmcu_adapter_data(0, zero, sizeof zero) : status;
        report("half_an_adapter_is_refused", status == LMCU_OK ? (uint32_t)lmcu_adapter_commit(0) : 255u);
        lmcu_adapter_abort();
        report("adapter_afterwards", lmcu_adapter_crc32());
        lmcu_reset();
        report("base_again", outputs());
    }
    report("end", 0);
}

#if defined(LMCU_TEST_HOST)

#include <stdio.h>

static void say(const char *text, uint32_t count)
{
    fwrite(text, 1, count, stdout);
}

int main(void)
{
    run();
    return 0;
}

#else

#include "lmcu_port.h"

static void say(const char *text, uint32_t count)
{
    lmcu_port_write((const uint8_t *)text, count);
}

int lmcu_main(void)
{
    uint8_t byte;
    lmcu_port_init();
    run();
    for (;;) { /* again whenever the other end asks: it may have come late */
        if (lmcu_port_read(&byte, 1) != 0 && byte == '\n') {
            run();
        } else {
            lmcu_port_idle();
        }
    }
}

#endif

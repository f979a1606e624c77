/* SPDX-License-Identifier: Apache-2.0 */
/* A product without a host: its loop recognizes every window that the sensor gives, stores the first ones with what the user
 * says they are, trains on them whenever the sensor has nothing, and keeps the adapter if the held-out samples agree.
 * Takes the place of the firmware's main.c (run.py does that); docs/embedding.md goes through it. */
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "store.h"
#include "windows.h" /* what stands here for a sensor and its user, made by run.py */

enum { LEARNED = 60, EPOCHS = 40, TURNS_A_WINDOW = 64 };

/* Everything that the product adds in RAM. */
static struct {
    uint32_t window, turns;                    /* of the sensor */
    uint32_t right[3], seen[3];                /* before, during and after training */
    enum { BEFORE, DURING, AFTER } phase;
    lmcu_guard_t guard;
    uint16_t factors_before[WINDOWS_PARAMETERS];
} product;

/* ---- text on the serial line ---- */

static void text(const char *words)
{
    uint32_t length = 0u;
    while (words[length] != 0) {
        ++length;
    }
    lmcu_port_write((const uint8_t *)words, length);
}

static void number(uint32_t value, uint32_t base)
{
    char digits[11];
    uint32_t at = sizeof digits - 1u;
    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0u);
    text(digits + at);
}

static void share(const char *before, uint32_t part, uint32_t whole, const char *after)
{
    text(before);
    number(part, 10u);
    text(" of ");
    number(whole, 10u);
    text(after);
}

static void stop(const char *reason)
{
    text(reason);
    text("\nend\n");
    for (;;) {
        lmcu_port_watchdog_feed();
        lmcu_port_idle();
    }
}

static void check(lmcu_status_t status, const char *what)
{
    if (status != LMCU_OK) {
        text(what);
        text(" refused with status ");
        number((uint32_t)status, 10u);
        stop("");
    }
}

/* ---- the sensor: a window is due every TURNS_A_WINDOW turns of the loop ---- */

static bool sensor_ready(void)
{
    return product.window < WINDOWS_COUNT && ++product.turns % TURNS_A_WINDOW == 0u;
}

static void read_sensor(void)
{
    memcpy(lmcu_model.input, windows_x[product.window], lmcu_model.input_bytes);
}

/* ---- what the product does ---- */

static uint32_t recognize(void)
{
    const int8_t *output = (const int8_t *)lmcu_model.output;
    uint32_t best = 0u;
    lmcu_infer();
    for (uint32_t i = 1u; i < lmcu_model.output_bytes; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    return best;
}

static void begin_training(void)
{
    share("before:   ", product.right[BEFORE], product.seen[BEFORE], " windows right, ");
    share("", lmcu_store_held_out(), lmcu_context.stored, " stored samples held out\n");
    check(lmcu_guard_begin(&product.guard, product.factors_before), "guard");
    check(lmcu_run_begin(EPOCHS), "training");
    product.phase = DURING;
}

static void end_training(void)
{
    share("training: ", product.right[DURING], product.seen[DURING], " windows right meanwhile, ");
    number(lmcu_context.run_steps, 10u);
    text(" steps\n");
    const lmcu_status_t verdict = lmcu_guard_end(&product.guard);
    share("guard:    ", product.guard.after.correct, product.guard.after.samples, " held-out samples right, the base had ");
    number(product.guard.base.correct, 10u);
    text(verdict == LMCU_OK ? ": kept, " : ": not kept, ");
    const bool saved = verdict == LMCU_OK && lmcu_slot_save("user\0\0\0\0\0\0\0\0\0\0\0") == LMCU_OK;
    text(saved ? "saved for the next boot\n" : "not saved\n");
    if (saved) {
        check(lmcu_slot_set_default("user\0\0\0\0\0\0\0\0\0\0\0"), "the default slot");
    }
    product.phase = AFTER;
}

static void on_window(void)
{
    read_sensor();
    product.seen[product.phase] += 1u;
    product.right[product.phase] += recognize() == windows_y[product.window] ? 1u : 0u;
    if (product.phase == BEFORE) { /* the user says what it was; the input's memory was used, so it is read again */
        const lmcu_label_t label = {.class_index = windows_y[product.window]};
        read_sensor();
        check(lmcu_store_sample(label), "storing");
        if (product.seen[BEFORE] == LEARNED) {
            begin_training();
        }
    }
    product.window += 1u;
}

void lmcu_layer_done(void)
{
    lmcu_port_watchdog_feed();
}

int lmcu_main(void)
{
    const lmcu_store_policy_t policy = {.policy = LMCU_STORE_RESERVOIR, .balance = 1u, .hold_out = 5u};
    lmcu_settings_t settings = lmcu_default_settings();
    settings.lr = 0.02f;
    lmcu_port_init();
    check(lmcu_init(), "training on this core");
    lmcu_slot_boot(); /* the adapter of the last time, where there is one */
    (void)lmcu_port_watchdog_start(LMCU_WATCHDOG_MS);
    if (lmcu_model.param_count != WINDOWS_PARAMETERS) {
        stop("windows.h belongs to another model");
    }
    check(lmcu_configure(&settings), "settings");
    check(lmcu_store_configure(&policy), "the store's policy");
    while (product.window < WINDOWS_COUNT || product.phase == DURING) {
        lmcu_port_watchdog_feed();
        if (sensor_ready()) {
            on_window();
        } else if (product.phase == DURING && !lmcu_run_poll()) { /* idle: one stored sample a turn */
            end_training();
        }
    }
    share("after:    ", product.right[AFTER], product.seen[AFTER], " windows right\nadapter   ");
    number(lmcu_adapter_crc32(), 16u);
    stop("");
    return 0;
}

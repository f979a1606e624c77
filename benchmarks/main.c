/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the place of the firmware's main.c in a benchmark build: prints ticks per step and in total as text lines. */
#include "lmcu_port.h"
#include "store.h"

static struct {
    uint64_t last;
    uint32_t overhead;
    uint32_t printing;
} bench;

static void print(const char *name, uint32_t index, uint64_t value)
{
    char line[64];
    uint32_t n = 0;
    while (*name) {
        line[n++] = *name++;
    }
    uint64_t numbers[2] = {index, value};
    for (int i = 0; i < 2; i++) {
        char digits[20];
        uint32_t count = 0;
        do {
            digits[count++] = (char)('0' + (char)(numbers[i] % 10u));
            numbers[i] /= 10u;
        } while (numbers[i] != 0u);
        line[n++] = ' ';
        while (count > 0u) {
            line[n++] = digits[--count];
        }
    }
    line[n++] = '\n';
    lmcu_port_write((const uint8_t *)line, n);
}

/* LMCU_STEP of the generated code */
void lmcu_bench_step(uint32_t step)
{
    if (bench.printing) {
        uint64_t spent = lmcu_port_ticks() - bench.last;
        print("step", step, spent > bench.overhead ? spent - bench.overhead : 0u);
        bench.last = lmcu_port_ticks();
    }
}

static void fill_input(uint32_t seed)
{
    for (uint32_t i = 0; i < lmcu_model.input_bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        lmcu_model.input[i] = (uint8_t)(seed >> 24);
    }
}

static lmcu_label_t label_of(uint32_t i)
{
    lmcu_label_t label;
    if (lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY) {
        label.class_index = i % lmcu_model.logit_count;
    } else {
        for (uint32_t k = 0; k < lmcu_model.logit_count; k++) {
            lmcu_model.target[k] = 0.25f * (float)((k + i) % 8u);
        }
        label.target = lmcu_model.target;
    }
    return label;
}

/* Ticks of one update of `batch` samples, generation of the data not counted; 0 when anything failed. */
static uint64_t train(uint32_t batch)
{
    lmcu_settings_t settings = lmcu_default_settings();
    settings.batch_size = batch;
    settings.lr = 0.0001f; /* random data: B shall be small, as trained ones are, not blown up */
    if (lmcu_configure(&settings) != LMCU_OK || lmcu_pass_begin() != LMCU_OK) {
        return 0;
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < batch; i++) {
        fill_input(i);
        lmcu_label_t label = label_of(i);
        uint64_t start = lmcu_port_ticks();
        if (lmcu_train_sample(label) != LMCU_OK) {
            return 0;
        }
        sum += lmcu_port_ticks() - start;
    }
    return lmcu_context.pass.steps == 1u ? sum : 0u;
}

static void measure(void)
{
    uint64_t start = lmcu_port_ticks();
    bench.overhead = (uint32_t)(lmcu_port_ticks() - start);
    print("train", 1, train(1)); /* B is no longer zero from here on */
    print("train", 1, train(1));
    print("train", 8, train(8));
    fill_input(1);
    start = lmcu_port_ticks();
    lmcu_infer();
    print("infer", 0, lmcu_port_ticks() - start - bench.overhead);
    fill_input(1);
    bench.printing = 1;
    bench.last = lmcu_port_ticks();
    lmcu_infer();
    print("pass", 1, 0);
    fill_input(1);
    bench.last = lmcu_port_ticks();
    lmcu_label_t label = label_of(1);
    lmcu_status_t status = lmcu_gradient_sample(label);
    bench.printing = 0;
    print("status", 0, (uint64_t)status);
    print("stack", 0, lmcu_port_stack_used());
}

/* Ticks of storing SAMPLES and of EPOCHS over them, and what came out. */
static void measure_epochs(void)
{
    enum { SAMPLES = 24, EPOCHS = 20 };
    lmcu_settings_t settings = lmcu_default_settings();
    uint64_t sum = 0;
    lmcu_status_t status = lmcu_configure(&settings);
    for (uint32_t i = 0; i < SAMPLES && status == LMCU_OK; i++) {
        fill_input(i);
        lmcu_label_t label = label_of(i);
        uint64_t start = lmcu_port_ticks();
        status = lmcu_store_sample(label);
        sum += lmcu_port_ticks() - start;
    }
    print("store", SAMPLES, sum);
    if (status == LMCU_OK) {
        status = lmcu_run_begin(EPOCHS);
    }
    uint64_t start = lmcu_port_ticks();
    while (status == LMCU_OK && lmcu_run_poll()) {
    }
    print("epochs", EPOCHS, lmcu_port_ticks() - start);
    print("status", 0, (uint64_t)status);
    print("steps", 0, lmcu_context.run_steps);
    print("adapter", 0, lmcu_adapter_crc32());
}

enum { ADAPTERS = 4 };

static lmcu_status_t load_timed(uint32_t slot, const char *what)
{
    const char name[LMCU_SLOT_NAME] = {(char)('a' + (char)slot)};
    uint64_t start = lmcu_port_ticks();
    lmcu_status_t status = lmcu_slot_load(name);
    print(what, slot, lmcu_port_ticks() - start);
    return status;
}

/* Ticks of changing from one saved adapter to another: with only these in the log, and with a log that is full. */
static lmcu_status_t measure_slots(void)
{
    lmcu_status_t status = LMCU_OK;
    uint32_t saves = lmcu_slot_capacity();
    print("room", 0, saves);
    for (uint32_t i = 0; i < saves && status == LMCU_OK; i++) {
        const char name[LMCU_SLOT_NAME] = {(char)('a' + (char)(i % ADAPTERS))};
        (void)train(1);
        uint64_t start = lmcu_port_ticks();
        status = lmcu_slot_save(name);
        print("save", i, lmcu_port_ticks() - start);
        if (i + 1u == ADAPTERS) {
            for (uint32_t slot = 0; slot < ADAPTERS && status == LMCU_OK; slot++) {
                status = load_timed(slot, "load");
            }
        }
    }
    for (uint32_t slot = 0; slot < ADAPTERS && status == LMCU_OK; slot++) {
        status = load_timed(slot, "full");
    }
    return status;
}

static uint64_t infer_timed(void)
{
    fill_input(1);
    uint64_t start = lmcu_port_ticks();
    lmcu_infer();
    return lmcu_port_ticks() - start;
}

/* Ticks of merging an adapter whose B is not zero, and of an inference with the adapter beside the weights and in them. */
static lmcu_status_t measure_merge(void)
{
    (void)train(1);
    print("beside", 0, infer_timed());
    uint64_t start = lmcu_port_ticks();
    lmcu_status_t status = lmcu_merge();
    print("merge", 0, lmcu_port_ticks() - start);
    if (status == LMCU_OK) {
        print("merged", 0, infer_timed());
        start = lmcu_port_ticks();
        status = lmcu_unmerge();
        print("unmerge", 0, lmcu_port_ticks() - start);
    }
    return status;
}

/* For a count of cycles, benchmarks/cycles.py: one sample that makes B other than zero, one step at batch 1, one at batch 8, an
 * inference. */
static void run_each(void)
{
    (void)train(1);
    (void)train(1);
    (void)train(8);
    fill_input(1);
    lmcu_infer();
}

int lmcu_main(void)
{
    lmcu_port_init();
    lmcu_status_t status = lmcu_init();
    uint8_t go;
    while (lmcu_port_read(&go, 1) == 0u) {
        lmcu_port_idle(); /* until the host listens */
    }
    print("boot", 0, (uint64_t)status);
    if (go == 'e') {
        measure_epochs();
    } else if (go == 'c') {
        run_each();
    } else if (go == 's') {
        print("status", 0, (uint64_t)measure_slots());
    } else if (go == 'm') {
        print("status", 0, (uint64_t)measure_merge());
    } else {
        measure();
    }
    print("end", 0, 0);
    for (;;) {
        (void)lmcu_port_read(&go, 1); /* where there are bytes left, the core does not sleep */
        lmcu_port_idle();
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel that has a body with DSP instructions against its portable body on the same core: random shapes and values,
 * rails and zero points at both ends. Prints one line through semihosting and ends the emulator. */
#include "lmcu_ops.h"
#include "lora.h"

#define KERNEL(name, ...)                                                                                              \
    void lmcu_##name(__VA_ARGS__);                                                                                     \
    void portable_##name(__VA_ARGS__)
KERNEL(dense_forward, const lmcu_dense_t *, const lmcu_lora_t *, const int8_t *, int8_t *, void *);
KERNEL(dense_backward, const lmcu_dense_t *, const lmcu_lora_t *, const int8_t *, const int8_t *, float *, float *, void *);
KERNEL(conv2d_forward, const lmcu_conv2d_t *, const lmcu_lora_t *, const int8_t *, int8_t *, void *);
KERNEL(conv2d_backward, const lmcu_conv2d_t *, const lmcu_lora_t *, const int8_t *, const int8_t *, float *, float *, void *);
KERNEL(depthwise_forward, const lmcu_depthwise_t *, const int8_t *, int8_t *);
KERNEL(depthwise_backward, const lmcu_depthwise_t *, const int8_t *, float *, float *);
int16_t *portable_patch_values(int16_t *, int32_t, const int8_t *, int32_t, int32_t);
lmcu_factors_t portable_lora_direct(const lmcu_lora_t *, int32_t, int32_t);
void portable_lora_project(const lmcu_factors_t *, const int16_t *, int32_t, lmcu_projection_t *);
void portable_lora_deltas(const lmcu_factors_t *, const lmcu_projection_t *, const int32_t *, int32_t, int32_t, int32_t *);
#if !LMCU_NUMERICS_I16
lmcu_factors_t portable_lora_expand(const lmcu_lora_t *, int32_t, int32_t, float *);
#endif
bool lmcu_update(uint32_t samples);
bool portable_update(uint32_t samples);
void lmcu_factors_changed(void);
void portable_factors_changed(void);

enum { VALUES = 2048, CHANNELS = 80, FACTORS = 2048, CASES = 750, UPDATED = 256 };
extern uint16_t blank_factors[];
extern float blank_gradients[];
extern lmcu_adapter_t blank_adapters[];
lmcu_context_t lmcu_context, portable_context;
static int8_t x[VALUES], w[VALUES * 2], y[2][VALUES];
static float dy[2][VALUES], dx[2][VALUES], gradients[FACTORS], scales[CHANNELS], c[CHANNELS];
static int32_t bias[CHANNELS], fraction[CHANNELS];
static int8_t right[CHANNELS];
static uint64_t wide_multiplier[CHANNELS];
static uint8_t wide_shift[CHANNELS];
static uint64_t scratch[2048];

#if LMCU_NUMERICS_I16
/* Each body has tables in its own order. */
void lmcu_lora_tables(void);
void portable_lora_tables(void);
int16_t lmcu_tables[4096], portable_tables[4096];
static lmcu_lora_t current;
const lmcu_lora_t *const lmcu_loras[1] = {&current}, *const portable_loras[1] = {&current};
static lmcu_scaled_t scaled[CHANNELS];
static uint16_t by_exponent[CHANNELS];
static int16_t scales16[CHANNELS];
static const lmcu_block_t block = {scales16, -20, 5, 1000};
#endif
static uint32_t state = 1;

#if LMCU_NUMERICS_I16
#define BLOCK , &block
#define CONV_BLOCK , .block = &block
#else
#define BLOCK
#define CONV_BLOCK
#endif

static int32_t below(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (int32_t)((state >> 8) % n);
}

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void fill(int8_t *to, int32_t count)
{
    const int32_t kind = below(10);
    for (int32_t i = 0; i < count; ++i) {
        to[i] = (int8_t)(kind == 0 ? -128 : kind == 1 ? 127 : below(256) - 128);
    }
}

static int32_t zero_point(void)
{
    const int32_t kind = below(4);
    return kind == 0 ? -128 : kind == 1 ? 127 : below(256) - 128;
}

static lmcu_clamp_t random_clamp(void)
{
    lmcu_clamp_t clamp = {-128, 127, 0, 0};
    if (below(4) == 0) {
        clamp.act_min = below(100) - 100;
        clamp.act_max = below(100);
        clamp.min_is_bound = clamp.max_is_bound = 1;
    }
    return clamp;
}

static void random_constants(void)
{
    const int32_t range = below(8) == 0 ? 1 << 30 : 1 << 16;
    const int32_t left = below(6) == 0, wide = below(2);
    for (int32_t o = 0; o < CHANNELS; ++o) {
        bias[o] = below((uint32_t)range) - range / 2;
        fraction[o] = 2 * (below(1 << 24) * 63 - (1 << 30));
        right[o] = (int8_t)(left ? below(12) - 3 : 1 + below(18));
        wide_shift[o] = (uint8_t)(wide != 0 && below(3) != 0 ? 60 + below(30) : 0);
        wide_multiplier[o] = wide_shift[o] != 0u ? ((uint64_t)1 << 61) + ((uint64_t)below(1 << 24) << 36) + (uint64_t)below(1 << 24)
                                                 : (uint64_t)below(21) << 32 | (uint64_t)((1 << 30) + below(1 << 24) * 63);
        scales[o] = 0.001f * (float)(1 + below(50));
        c[o] = 1.5f / scales[o];
#if LMCU_NUMERICS_I16
        scaled[o].whole = (1 << 30) + below(1 << 24) * 63;
        scaled[o].exponent = below(12) == 0 ? below(40) : below(12);
        scales16[o] = (int16_t)(below(8) == 0 ? below(32768) : 1 + below(32767));
#endif
    }
    for (int32_t i = 0; i < FACTORS; ++i) {
        blank_factors[i] = (uint16_t)(0x2000 + below(0x1400) + below(2) * 0x8000);
    }
}

static void random_gradient(int32_t count)
{
    for (int32_t i = 0; i < count; ++i) {
        dy[0][i] = dy[1][i] = below(3) == 0 ? 0.0f : 0.001f * (float)(below(2000) - 1000);
    }
    for (int32_t i = 0; i < VALUES; ++i) {
        dx[0][i] = dx[1][i] = 0.01f * (float)below(5);
    }
}

static void clear_gradients(void)
{
    for (int32_t i = 0; i < FACTORS; ++i) {
        blank_gradients[i] = 0.0f;
    }
}

static void keep_gradients(void)
{
    for (int32_t i = 0; i < FACTORS; ++i) {
        gradients[i] = blank_gradients[i];
    }
    clear_gradients();
}

static int same(const void *a, const void *b, uint32_t bytes)
{
    const uint8_t *p = a, *q = b;
    for (uint32_t i = 0; i < bytes; ++i) {
        if (p[i] != q[i]) {
            return 0;
        }
    }
    return 1;
}

#if LMCU_NUMERICS_I16
static void sort_outputs(int32_t m)
{
    for (int32_t i = 0; i < m; ++i) {
        int32_t at = i;
        for (; at > 0 && scaled[by_exponent[at - 1]].exponent < scaled[i].exponent; --at) {
            by_exponent[at] = by_exponent[at - 1];
        }
        by_exponent[at] = (uint16_t)i;
    }
}
#endif

static lmcu_lora_t random_lora(int32_t rank, int32_t k, int32_t m)
{
#if LMCU_NUMERICS_I16
    const lmcu_lora_t lora = {rank, 3, 3 + rank * k, below(5) != 0, scaled, by_exponent, k, m, 4, 24576, -14, 20000, -19, 30000, -19};
    lmcu_context.settings.seed = portable_context.settings.seed = (uint32_t)below(1 << 20);
    lmcu_context.batch_fill = portable_context.batch_fill = (uint32_t)below(9);
    current = lora;
    sort_outputs(m);
    if (rank != 0) {
        lmcu_lora_tables();
        portable_lora_tables();
    }
#else
    const lmcu_lora_t lora = {rank, 3, 3 + rank * k, below(5) != 0, 1.5f, 0.05f, c};
    (void)m;
#endif
    return lora;
}

static int32_t random_rank(void)
{
    static const int32_t ranks[5] = {0, 4, 2, 3, 4};
    return ranks[below(5)];
}

static int all_same(void)
{
    return same(y[0], y[1], VALUES) && same(dy[0], dy[1], sizeof dy[0]) && same(dx[0], dx[1], sizeof dx[0]) &&
           same(gradients, blank_gradients, sizeof gradients);
}

static int dense_case(void)
{
    const int32_t batch = 1 + below(3), k = below(2) ? 1 + below(90) : 8 * (1 + below(11)), m = 1 + below(40), rank = random_rank();
    lmcu_dense_t p = {batch, k, m, zero_point(), below(3) == 0 ? 7 : 0, zero_point(), random_clamp(),
                      {wide_multiplier, wide_shift, below(2)}, w, below(4) ? bias : 0, scales BLOCK};
    p.weight_zero_point = rank != 0 ? 0 : p.weight_zero_point; /* adapted weights have none */
    const lmcu_lora_t lora = random_lora(rank, k, m), *adapter = rank ? &lora : 0;
    float *into[2] = {below(4) ? dx[0] : 0, dx[1]};
    into[1] = into[0] ? dx[1] : 0;
    lmcu_dense_forward(&p, adapter, x, y[0], scratch);
    portable_dense_forward(&p, adapter, x, y[1], scratch);
    random_gradient(batch * m);
    clear_gradients();
    lmcu_dense_backward(&p, adapter, x, y[0], dy[0], into[0], scratch);
    keep_gradients();
    portable_dense_backward(&p, adapter, x, y[1], dy[1], into[1], scratch);
    return all_same();
}

/* Sizes of a random window operator that fits the arrays. */
static lmcu_conv2d_t random_window(int32_t in_c, int32_t out_c)
{
    lmcu_conv2d_t p = {.in_h = 1 + below(7), .in_w = 1 + below(7), .in_c = in_c, .out_c = out_c, .kernel_h = 1 + below(4),
                       .kernel_w = 1 + below(4), .stride_h = 1 + below(2), .stride_w = 1 + below(2),
                       .dilation_h = 1, .dilation_w = below(6) == 0 ? 2 : 1, .input_zero_point = zero_point(),
                       .output_zero_point = zero_point(), .clamp = random_clamp(), .requant = {fraction, right},
                       .weights = w, .bias = below(4) ? bias : 0, .weight_scale = scales CONV_BLOCK};
    if (below(3) == 0) {
        p.kernel_h = p.kernel_w = below(2) ? 3 : 1;
    }
    const int32_t wide = (p.kernel_w - 1) * p.dilation_w + 1;
    p.pad_top = below((uint32_t)p.kernel_h);
    p.pad_left = below((uint32_t)p.kernel_w);
    p.in_h = p.in_h < p.kernel_h ? p.kernel_h : p.in_h;
    p.in_w = p.in_w < wide ? wide : p.in_w;
    p.out_h = (p.in_h + 2 * p.pad_top - p.kernel_h) / p.stride_h + 1;
    p.out_w = (p.in_w + 2 * p.pad_left - wide) / p.stride_w + 1;
    return p;
}

static int fits(const lmcu_conv2d_t *p, int32_t weights)
{
    return p->in_h * p->in_w * p->in_c <= VALUES && p->out_h * p->out_w * p->out_c <= VALUES && weights <= 2 * VALUES;
}

static int conv_case(void)
{
    const int32_t rank = random_rank();
    const int32_t in_c = below(3) ? 4 * (1 + below(6)) : 1 + below(9);
    const lmcu_conv2d_t p = random_window(in_c, below(3) ? 2 * (1 + below(10)) : 1 + below(20));
    const int32_t k = p.kernel_h * p.kernel_w * p.in_c;
    const lmcu_lora_t lora = random_lora(rank, k, p.out_c), *adapter = rank ? &lora : 0;
    float *into[2] = {below(4) ? dx[0] : 0, 0};
    into[1] = into[0] ? dx[1] : 0;
    if (!fits(&p, k * p.out_c)) {
        return 1;
    }
    lmcu_conv2d_forward(&p, adapter, x, y[0], scratch);
    portable_conv2d_forward(&p, adapter, x, y[1], scratch);
    random_gradient(p.out_h * p.out_w * p.out_c);
    clear_gradients();
    lmcu_conv2d_backward(&p, adapter, x, y[0], dy[0], into[0], scratch);
    keep_gradients();
    portable_conv2d_backward(&p, adapter, x, y[1], dy[1], into[1], scratch);
    return all_same();
}

static int depthwise_case(void)
{
    const int32_t times = below(4) ? 1 : 1 + below(3), in_c = below(3) ? 4 * (1 + below(6)) : 1 + below(21);
    const lmcu_depthwise_t p = {random_window(in_c, in_c * times), times};
    if (!fits(&p.conv, p.conv.kernel_h * p.conv.kernel_w * p.conv.out_c)) {
        return 1;
    }
    lmcu_depthwise_forward(&p, x, y[0]);
    portable_depthwise_forward(&p, x, y[1]);
    random_gradient(p.conv.out_h * p.conv.out_w * p.conv.out_c);
    keep_gradients();
    lmcu_depthwise_backward(&p, y[0], dy[0], dx[0]);
    portable_depthwise_backward(&p, y[1], dy[1], dx[1]);
    return all_same();
}

/* What the adapter adds to a position's biases, which an output rounded to int8 shows but roughly. */
static int deltas_case(void)
{
    static int16_t patch[2][100];
    static int32_t to[2][CHANNELS];
    const int32_t k = 1 + below(90), m = 1 + below(40), rank = below(2) ? 4 : 1 + below(4), first = below((uint32_t)m);
    const int32_t zero = zero_point(), *from = below(3) ? bias : 0;
    const lmcu_lora_t lora = random_lora(rank, k, m);
    lmcu_factors_t f = lmcu_lora_direct(&lora, k, m), g = portable_lora_direct(&lora, k, m);
    lmcu_projection_t t, u;
#if !LMCU_NUMERICS_I16
    if (below(2)) {
        f = lmcu_lora_expand(&lora, k, m, (float *)(void *)scratch);
        g = portable_lora_expand(&lora, k, m, (float *)(void *)(scratch + 1024));
    }
#endif
    (void)lmcu_patch_values(patch[0], LMCU_GROUP, x, zero, k);
    (void)portable_patch_values(patch[1], LMCU_GROUP, x, zero, k);
    lmcu_lora_project(&f, patch[0], LMCU_GROUP, &t);
    portable_lora_project(&g, patch[1], LMCU_GROUP, &u);
    lmcu_lora_deltas(&f, &t, from, first, m - first, to[0]);
    portable_lora_deltas(&g, &u, from, first, m - first, to[1]);
    return same(to[0], to[1], 4u * (uint32_t)(m - first));
}

void lmcu_factors_changed(void)
{
}

void portable_factors_changed(void)
{
}

/* 10^-exponent and less */
static float small_number(uint32_t exponent)
{
    float value = (float)(below(1 << 20) - (1 << 19)) * 0x1p-19f;
    for (int32_t i = below(exponent); i > 0; --i) {
        value = value * 0.1f;
    }
    return value;
}

/* Factors of any size, most of a like one; now and then a gradient that is not finite. */
static void random_step(uint16_t *factors, float *steps)
{
    static const uint16_t sizes[4] = {0x7c00, 0x0400, 0x4400, 0x3c00};
    const uint16_t size = sizes[below(4)];
    const int32_t spoiled = below(20) == 0 ? below(UPDATED) : -1;
    for (int32_t i = 0; i < UPDATED; ++i) {
        factors[i] = (uint16_t)(below(2) * 0x8000 + below(below(16) == 0 ? 0x7c00 : size));
        steps[i] = i == spoiled ? 3e38f * 10.0f : small_number(10);
    }
    blank_adapters[0].a_offset = (uint32_t)below(3);
    blank_adapters[0].a_count = (uint32_t)below(150);
    blank_adapters[0].b_offset = blank_adapters[0].a_offset + blank_adapters[0].a_count;
    blank_adapters[0].b_count = (uint32_t)below(100);
}

static lmcu_settings_t random_settings(void)
{
    static const float rates[4] = {0.01f, 1.0f, 1e-6f, 3e4f};
    lmcu_settings_t s = {.lr = rates[below(4)], .lr_b_ratio = below(2) ? 1.0f : 16.0f, .seed = (uint32_t)below(1 << 20)};
    s.momentum = below(3) ? 0.0f : 0.5f;
    s.weight_decay = below(3) ? 0.0f : 0.01f;
    s.clip_norm = below(4) ? 0.0f : 0.1f;
    s.rounding = below(5) ? LMCU_ROUND_STOCHASTIC : LMCU_ROUND_NEAREST;
    return s;
}

static int update_case(void)
{
    static uint16_t factors[UPDATED], found[UPDATED];
    static float steps[UPDATED];
    const uint32_t samples = 1u + (uint32_t)below(2) * 6u;
    random_step(factors, steps);
    lmcu_context.settings = portable_context.settings = random_settings();
    lmcu_context.step = portable_context.step = (uint32_t)below(1000);
    for (int32_t i = 0; i < UPDATED; ++i) {
        blank_factors[i] = factors[i];
        blank_gradients[i] = steps[i];
    }
    const bool first = lmcu_update(samples);
    for (int32_t i = 0; i < UPDATED; ++i) {
        found[i] = blank_factors[i];
        blank_factors[i] = factors[i];
        blank_gradients[i] = steps[i];
    }
    return portable_update(samples) == first && same(found, blank_factors, sizeof found);
}

static __attribute__((noinline)) void compare(void)
{
    static int (*const kinds[5])(void) = {dense_case, conv_case, depthwise_case, update_case, deltas_case};
    static const char *const failures[5] = {"dense differs\n", "conv2d differs\n", "depthwise differs\n", "update differs\n",
                                            "lora differs\n"};
    const char *verdict = "equal\n";
    for (int32_t i = 0; i < CASES; ++i) {
        fill(x, VALUES);
        fill(w, VALUES * 2);
        random_constants();
        clear_gradients();
        keep_gradients();
        if (!kinds[i % 5]()) {
            verdict = failures[i % 5];
            break;
        }
    }
    semihost(0x04, verdict);
    semihost(0x18, (const void *)0x20026);
    for (;;) {
    }
}

/* In a function of its own: others save FPU registers first. */
static void reset(void)
{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the FPU on */
    __asm__ volatile("dsb\n\tisb");
    compare();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {(void *)0x20020000, (void *)reset};

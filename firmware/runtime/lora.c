/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA, mode f32: every sum has one accumulator from +0 and ascending indices; loops run across results. Inline bodies
 * take the rank and where the factors stand as constants. */
#include "lmcu_strict.h"

#include "lora.h"

#if !LMCU_NUMERICS_I16

lmcu_factors_t lmcu_lora_direct(const lmcu_lora_t *lora, int32_t k, int32_t m)
{
    const lmcu_factors_t f = {lora, k, m, lmcu_model.factors + lora->a_offset, lmcu_model.factors + lora->b_offset, 0, 0};
    return f;
}

/* to[i * step] = half[i] */
LMCU_INLINE void expand(const uint16_t *half, int32_t count, float *to, int32_t step)
{
    int32_t i = 0;
    for (; i + 2 <= count; i += 2, to += 2 * step) {
        lmcu_halves_to_floats(half + i, to, to + step);
    }
    if (i < count) {
        *to = lmcu_half_to_float(half[i]);
    }
}

#if LMCU_DSP && LMCU_HALF_HARDWARE
/* The columns of four rows of A, two at a time; returns how many that is. */
static int32_t expand_four_rows(const uint16_t *half, int32_t k, float *to)
{
    const uint16_t *h1 = half + k, *h2 = h1 + k, *h3 = h2 + k, *const end = half + (k & ~1);
    uint32_t x, y, z, w;
    if (half != end) {
        __asm__ volatile("1:\n\tldr %[x], [%[h0]], #4\n\tldr %[y], [%[h1]], #4\n\tldr %[z], [%[h2]], #4\n\t"
                         "ldr %[w], [%[h3]], #4\n\tvmov s0, s1, %[x], %[y]\n\tvmov s2, s3, %[z], %[w]\n\t"
                         "vcvtt.f32.f16 s4, s0\n\tvcvtt.f32.f16 s5, s1\n\tvcvtt.f32.f16 s6, s2\n\tvcvtt.f32.f16 s7, s3\n\t"
                         "vcvtb.f32.f16 s0, s0\n\tvcvtb.f32.f16 s1, s1\n\tvcvtb.f32.f16 s2, s2\n\tvcvtb.f32.f16 s3, s3\n\t"
                         "vstmia %[to]!, {s0, s1, s2, s3, s4, s5, s6, s7}\n\tcmp %[h0], %[end]\n\tbne 1b"
                         : [h0] "+&r"(half), [h1] "+&r"(h1), [h2] "+&r"(h2), [h3] "+&r"(h3), [to] "+&r"(to), [x] "=&r"(x),
                           [y] "=&r"(y), [z] "=&r"(z), [w] "=&r"(w)
                         : [end] "r"(end)
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "cc", "memory");
    }
    return k & ~1;
}

/* to[i] = half[i], four at a time; returns how many that is. */
static int32_t expand_groups(const uint16_t *half, int32_t count, float *to)
{
    const uint16_t *const end = half + (count & ~3);
    uint32_t x, y;
    if (half != end) {
        __asm__ volatile("1:\n\tldr %[x], [%[half]], #4\n\tldr %[y], [%[half]], #4\n\tvmov s0, s1, %[x], %[y]\n\t"
                         "vcvtt.f32.f16 s3, s1\n\tvcvtb.f32.f16 s2, s1\n\tvcvtt.f32.f16 s1, s0\n\tvcvtb.f32.f16 s0, s0\n\t"
                         "vstmia %[to]!, {s0, s1, s2, s3}\n\tcmp %[half], %[end]\n\tbne 1b"
                         : [half] "+&r"(half), [to] "+&r"(to), [x] "=&r"(x), [y] "=&r"(y)
                         : [end] "r"(end)
                         : "s0", "s1", "s2", "s3", "cc", "memory");
    }
    return count & ~3;
}
#else
static int32_t expand_four_rows(const uint16_t *half, int32_t k, float *to)
{
    (void)half, (void)k, (void)to;
    return 0;
}

static int32_t expand_groups(const uint16_t *half, int32_t count, float *to)
{
    (void)half, (void)count, (void)to;
    return 0;
}
#endif

lmcu_factors_t lmcu_lora_expand(const lmcu_lora_t *lora, int32_t k, int32_t m, float *scratch)
{
    lmcu_factors_t f = lmcu_lora_direct(lora, k, m);
    f.a_t = scratch;
    f.b = scratch + lora->rank * k;
    const int32_t done = lora->rank == 4 ? expand_four_rows(f.a_half, k, f.a_t) : 0;
    for (int32_t j = 0; j < lora->rank; ++j) {
        expand(f.a_half + j * k + done, k - done, f.a_t + done * lora->rank + j, lora->rank);
    }
    const int32_t whole = expand_groups(f.b_half, m * lora->rank, f.b);
    expand(f.b_half + whole, m * lora->rank - whole, f.b + whole, 1);
    return f;
}

/* A[j,i]; `expanded` is a constant after inlining */
LMCU_INLINE float factor_a(const lmcu_factors_t *f, int expanded, int32_t rank, int32_t j, int32_t i)
{
    return expanded ? f->a_t[i * rank + j] : lmcu_half_to_float(f->a_half[j * f->k + i]);
}

/* A[j,i] and A[j,i+1] */
LMCU_INLINE void factors_a(const lmcu_factors_t *f, int expanded, int32_t rank, int32_t j, int32_t i, float a[2])
{
    if (expanded) {
        a[0] = f->a_t[i * rank + j];
        a[1] = f->a_t[(i + 1) * rank + j];
    } else {
        lmcu_halves_to_floats(f->a_half + j * f->k + i, &a[0], &a[1]);
    }
}

/* ---- forward ---- */

/* t of `count` (constant, 1 or 4) neighbouring j from `first` */
LMCU_INLINE void project(const lmcu_factors_t *f, int expanded, int32_t rank, int32_t first, int32_t count,
                         const int16_t *restrict patch, int32_t step, float *restrict t)
{
    const int32_t whole = f->k & ~(LMCU_GROUP - 1);
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int32_t i = 0; i < whole; i += LMCU_GROUP, patch += step) {
        for (int32_t u = 0; u < LMCU_GROUP; u += 2) {
            const float x0 = (float)patch[LMCU_PLACE(u)], x1 = (float)patch[LMCU_PLACE(u + 1)];
            for (int32_t j = 0; j < count; ++j) {
                float a[2];
                factors_a(f, expanded, rank, first + j, i + u, a);
                sum[j] = sum[j] + a[0] * x0;
                sum[j] = sum[j] + a[1] * x1;
            }
        }
    }
    for (int32_t u = 0; whole + u < f->k; ++u) {
        const float x = (float)patch[LMCU_PLACE(u)];
        for (int32_t j = 0; j < count; ++j) {
            sum[j] = sum[j] + factor_a(f, expanded, rank, first + j, whole + u) * x;
        }
    }
    for (int32_t j = 0; j < count; ++j) {
        t[first + j] = sum[j];
    }
}

LMCU_INLINE void project_all(const lmcu_factors_t *f, int expanded, int32_t rank, const int16_t *patch, int32_t step,
                             float *t)
{
    int32_t j = 0;
    for (; j + 4 <= rank; j += 4) {
        project(f, expanded, rank, j, 4, patch, step, t);
    }
    for (; j < rank; ++j) {
        project(f, expanded, rank, j, 1, patch, step, t);
    }
}

#if LMCU_DSP && defined(__ARM_FP)
/* sum [4] += the products of expanded factors, rank 4, with whole groups of the patch */
static void project_groups(const lmcu_factors_t *f, const int16_t *patch, int32_t step, float *sum)
{
    const float *a = f->a_t, *const end = a + 4 * (f->k & ~(LMCU_GROUP - 1));
    float s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    uint32_t x, y;
#define VALUE(x, a0, a1, a2, a3)                                                                                       \
    "vmul.f32 " a0 ", " a0 ", " x "\n\tvmul.f32 " a1 ", " a1 ", " x "\n\tvmul.f32 " a2 ", " a2 ", " x "\n\t"            \
    "vmul.f32 " a3 ", " a3 ", " x "\n\tvadd.f32 %[s0], %[s0], " a0 "\n\tvadd.f32 %[s1], %[s1], " a1 "\n\t"              \
    "vadd.f32 %[s2], %[s2], " a2 "\n\tvadd.f32 %[s3], %[s3], " a3 "\n\t"
#define ALL_OF_A "vldmia %[a]!, {s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16, s17, s18, s19}\n\t"
    if (a != end) {
        __asm__ volatile("1:\n\tldrd %[x], %[y], [%[patch]]\n\tadd %[patch], %[patch], %[step]\n\tvmov s0, s1, %[x], %[y]\n\t"
                         "lsr %[x], %[x], #16\n\tlsr %[y], %[y], #16\n\tvmov s2, s3, %[x], %[y]\n\tvcvt.f32.s16 s0, s0, #0\n\t"
                         "vcvt.f32.s16 s1, s1, #0\n\tvcvt.f32.s16 s2, s2, #0\n\tvcvt.f32.s16 s3, s3, #0\n\t" ALL_OF_A VALUE("s0", "s4", "s5", "s6", "s7")
                         VALUE("s1", "s8", "s9", "s10", "s11") VALUE("s2", "s12", "s13", "s14", "s15")
                         VALUE("s3", "s16", "s17", "s18", "s19") "cmp %[a], %[end]\n\tbne 1b"
                         : [patch] "+&r"(patch), [a] "+&r"(a), [s0] "+&t"(s0), [s1] "+&t"(s1), [s2] "+&t"(s2), [s3] "+&t"(s3),
                           [x] "=&r"(x), [y] "=&r"(y)
                         : [step] "r"(2 * step), [end] "r"(end)
                         : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15",
                           "s16", "s17", "s18", "s19", "cc", "memory");
    }
#undef VALUE
#undef ALL_OF_A
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
}

static void project_four(const lmcu_factors_t *f, const int16_t *patch, int32_t step, float *t)
{
    const int32_t whole = f->k & ~(LMCU_GROUP - 1);
    t[0] = t[1] = t[2] = t[3] = 0.0f;
    project_groups(f, patch, step, t);
    patch += whole / LMCU_GROUP * step;
    for (int32_t i = whole; i < f->k; ++i) {
        const float x = (float)patch[LMCU_PLACE(i - whole)];
        for (int32_t j = 0; j < 4; ++j) {
            t[j] = t[j] + f->a_t[4 * i + j] * x;
        }
    }
}
#else
static void project_four(const lmcu_factors_t *f, const int16_t *patch, int32_t step, float *t)
{
    project_all(f, 1, 4, patch, step, t);
}
#endif

/* Not copied into lmcu_lora_backward: it is large. */
LMCU_NOINLINE void lmcu_lora_project(const lmcu_factors_t *f, const int16_t *patch, int32_t step, lmcu_projection_t *to)
{
    float *t = to->t;
    const lmcu_factors_t local = *f;
    if (!local.a_t) {
        project_all(&local, 0, local.lora->rank, patch, step, t);
    } else if (local.lora->rank == 4) {
        project_four(&local, patch, step, t);
    } else {
        project_all(&local, 1, local.lora->rank, patch, step, t);
    }
}

/* Nearest integer of l, halves away from zero, limited to +-2^30. */
LMCU_INLINE int32_t round_delta(float l)
{
    const uint32_t bits = lmcu_float_bits(l);
    if (bits << 1 >= 0x4e800000u << 1) { /* 2^30 and above, NaN (which finite factors cannot give) */
        return bits >> 31 != 0u ? -0x40000000 : 0x40000000;
    }
    return lmcu_nearest(l);
}

/* B[o,j] and B[o,j+1] */
LMCU_INLINE void factors_b(const lmcu_factors_t *f, int expanded, int32_t at, float b[2])
{
    if (expanded) {
        b[0] = f->b[at];
        b[1] = f->b[at + 1];
    } else {
        lmcu_halves_to_floats(f->b_half + at, &b[0], &b[1]);
    }
}

LMCU_INLINE void add_deltas(const lmcu_factors_t *f, int expanded, int32_t rank, const float *restrict t, const int32_t *bias,
                            int32_t first, int32_t count, int32_t *restrict to)
{
    const float *c = f->lora->c + first;
    for (int32_t i = 0, at = first * rank; i < count; ++i) {
        float s = 0.0f, b[2];
        int32_t j = 0;
        for (; j + 2 <= rank; j += 2, at += 2) {
            factors_b(f, expanded, at, b);
            s = j == 0 ? b[0] * t[0] : s + b[0] * t[j]; /* the sign of a sum that is zero is lost in the integer */
            s = s + b[1] * t[j + 1];
        }
        if (j < rank) {
            s = s + (expanded ? f->b[at] : lmcu_half_to_float(f->b_half[at])) * t[j];
            ++at;
        }
        to[i] = (bias ? bias[i] : 0) + round_delta(c[i] * s);
    }
}

#if LMCU_DSP && LMCU_HALF_HARDWARE
/* Two outputs: B in s0, b1, b2, s3 and in s4, d1, d2, s7. The sum of each one's products in the written order, times c; twice that,
 * cut off, is limited to +-2^31, and a half that is left over goes up above 0. */
#define DELTAS(b1, b2, d1, d2)                                                                                         \
    "vmul.f32 s0, s0, %[t0]\n\tvmul.f32 s4, s4, %[t0]\n\tvmul.f32 " b1 ", " b1 ", %[t1]\n\tvmul.f32 " d1 ", " d1 ", %[t1]\n\t" \
    "vmul.f32 " b2 ", " b2 ", %[t2]\n\tvmul.f32 " d2 ", " d2 ", %[t2]\n\tvmul.f32 s3, s3, %[t3]\n\tvmul.f32 s7, s7, %[t3]\n\t" \
    "vadd.f32 s0, s0, " b1 "\n\tvadd.f32 s4, s4, " d1 "\n\tvadd.f32 s0, s0, " b2 "\n\tvadd.f32 s4, s4, " d2 "\n\t"        \
    "vadd.f32 s0, s0, s3\n\tvadd.f32 s4, s4, s7\n\tvldmia %[c]!, {s1, s2}\n\tvmul.f32 s0, s1, s0\n\tvmul.f32 s1, s2, s4\n\t" \
    "vcvt.s32.f32 s0, s0, #1\n\tvcvt.s32.f32 s1, s1, #1\n\tldrd %[x], %[w], [%[bias]], #8\n\tvmov %[y], %[z], s0, s1\n\t"  \
    "bic %[v], %[y], %[y], asr #31\n\tlsrs %[v], %[v], #1\n\tadc %[x], %[x], %[y], asr #1\n\t"                          \
    "bic %[v], %[z], %[z], asr #31\n\tlsrs %[v], %[v], #1\n\tadc %[w], %[w], %[z], asr #1\n\t"                          \
    "strd %[x], %[w], [%[to]], #8\n\tcmp %[to], %[end]\n\tbne 1b"
#define OPERANDS                                                                                                       \
    [c] "+&r"(c), [bias] "+&r"(bias), [to] "+&r"(to), [x] "=&r"(x), [y] "=&r"(y), [z] "=&r"(z), [v] "=&r"(v), [w] "=&r"(w) \
        : [t0] "t"(t[0]), [t1] "t"(t[1]), [t2] "t"(t[2]), [t3] "t"(t[3]), [end] "r"(end)                               \
        : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "cc", "memory"

/* Rank 4 */
static void add_four_deltas(const lmcu_factors_t *f, const float *t, const int32_t *bias, int32_t first, int32_t count, int32_t *to)
{
    const float *c = f->lora->c + first, *b = f->b + 4 * first;
    const uint16_t *half = f->b_half + 4 * first;
    const int32_t *const end = to + (count & ~1);
    int32_t x, y, z, v, w;
    if (to != end && f->b) {
        __asm__ volatile("1:\n\tvldmia %[b]!, {s0, s1, s2, s3, s4, s5, s6, s7}\n\t" DELTAS("s1", "s2", "s5", "s6")
                         : [b] "+&r"(b), OPERANDS);
    } else if (to != end) {
        __asm__ volatile("1:\n\tldr %[x], [%[b]], #4\n\tldr %[y], [%[b]], #4\n\tldr %[z], [%[b]], #4\n\tldr %[w], [%[b]], #4\n\t"
                         "vmov s0, s1, %[x], %[y]\n\tvmov s4, s5, %[z], %[w]\n\tvcvtt.f32.f16 s2, s0\n\t"
                         "vcvtt.f32.f16 s3, s1\n\tvcvtt.f32.f16 s6, s4\n\tvcvtt.f32.f16 s7, s5\n\tvcvtb.f32.f16 s0, s0\n\t"
                         "vcvtb.f32.f16 s1, s1\n\tvcvtb.f32.f16 s4, s4\n\tvcvtb.f32.f16 s5, s5\n\t"
                         DELTAS("s2", "s1", "s6", "s5") : [b] "+&r"(half), OPERANDS);
    }
    if ((count & 1) != 0) {
        add_deltas(f, f->b != 0, 4, t, bias, first + count - 1, 1, to);
    }
}
#undef DELTAS
#undef OPERANDS
#else
static void add_four_deltas(const lmcu_factors_t *f, const float *t, const int32_t *bias, int32_t first, int32_t count, int32_t *to)
{
    if (f->b) {
        add_deltas(f, 1, 4, t, bias, first, count, to);
    } else {
        add_deltas(f, 0, 4, t, bias, first, count, to);
    }
}
#endif

void lmcu_lora_deltas(const lmcu_factors_t *f, const lmcu_projection_t *from, const int32_t *bias, int32_t first, int32_t count,
                      int32_t *to)
{
    const float *t = from->t;
    const int32_t rank = f->lora->rank;
    const lmcu_factors_t local = *f;
    if (rank == 4 && bias) {
        add_four_deltas(&local, t, bias, first, count, to);
    } else {
        add_deltas(&local, local.b != 0, rank, t, bias, first, count, to);
    }
}

/* ---- backward ---- */

/* h[j] = sum_o B[o,j] * g[o] and dB[o,j] += (gamma * g[o]) * u[j]; rows with g = 0 change nothing */
LMCU_INLINE void backward_b(const lmcu_factors_t *f, int expanded, int32_t rank, const float *restrict g,
                            const float *restrict u, float *restrict h, float *restrict db)
{
    const float gamma = f->lora->gamma;
    for (int32_t j = 0; j < rank; ++j) {
        h[j] = 0.0f;
    }
    for (int32_t o = 0; o < f->m; ++o) {
        if (g[o] == 0.0f) {
            continue;
        }
        const float scaled = gamma * g[o];
        int32_t j = 0, at = o * rank;
        for (; j + 2 <= rank; j += 2, at += 2) {
            float b0, b1;
            if (expanded) {
                b0 = f->b[at];
                b1 = f->b[at + 1];
            } else {
                lmcu_halves_to_floats(f->b_half + at, &b0, &b1);
            }
            h[j] = h[j] + b0 * g[o];
            h[j + 1] = h[j + 1] + b1 * g[o];
            db[at] = db[at] + scaled * u[j];
            db[at + 1] = db[at + 1] + scaled * u[j + 1];
        }
        if (j < rank) {
            h[j] = h[j] + (expanded ? f->b[at] : lmcu_half_to_float(f->b_half[at])) * g[o];
            db[at] = db[at] + scaled * u[j];
        }
    }
}

/* dA[j,k] += factor[j] * patch[k] for `count` (constant, 1 or 4) rows */
LMCU_INLINE void backward_a(float *restrict da, const float *factor, const int16_t *restrict patch, int32_t k,
                            int32_t count)
{
    const int32_t whole = k & ~(LMCU_GROUP - 1);
    for (int32_t i = 0; i < whole; i += LMCU_GROUP, patch += LMCU_GROUP) {
        for (int32_t u = 0; u < LMCU_GROUP; ++u) {
            const float x = (float)patch[LMCU_PLACE(u)];
            for (int32_t j = 0; j < count; ++j) {
                da[j * k + i + u] = da[j * k + i + u] + factor[j] * x;
            }
        }
    }
    for (int32_t u = 0; whole + u < k; ++u) {
        const float x = (float)patch[LMCU_PLACE(u)];
        for (int32_t j = 0; j < count; ++j) {
            da[j * k + whole + u] = da[j * k + whole + u] + factor[j] * x;
        }
    }
}

static void backward_a_rows(float *da, const float *factor, const int16_t *patch, int32_t k, int32_t rank)
{
    int32_t j = 0;
    for (; j + 4 <= rank; j += 4, da += 4 * k) {
        const float four[4] = {factor[j], factor[j + 1], factor[j + 2], factor[j + 3]};
        backward_a(da, four, patch, k, 4);
    }
    for (; j < rank; ++j, da += k) {
        backward_a(da, factor + j, patch, k, 1);
    }
}

void lmcu_lora_backward(const lmcu_factors_t *f, const int16_t *patch, const float *g, float *h)
{
    const lmcu_lora_t *lora = f->lora;
    const int32_t rank = lora->rank;
    float *db = lmcu_model.gradients + lora->b_offset;
    lmcu_projection_t projection;
    float *u = projection.t, factor[LMCU_MAX_RANK];
    lmcu_lora_project(f, patch, LMCU_GROUP, &projection);
    for (int32_t j = 0; j < rank; ++j) {
        u[j] = lora->input_scale * u[j];
    }
    if (!f->b && rank == 4) {
        backward_b(f, 0, 4, g, u, h, db);
    } else if (!f->b) {
        backward_b(f, 0, rank, g, u, h, db);
    } else if (rank == 4) {
        backward_b(f, 1, 4, g, u, h, db);
    } else {
        backward_b(f, 1, rank, g, u, h, db);
    }
    for (int32_t j = 0; j < rank; ++j) {
        h[j] = lora->gamma * h[j];
        factor[j] = h[j] * lora->input_scale;
    }
    backward_a_rows(lmcu_model.gradients + lora->a_offset, factor, patch, f->k, rank);
}

LMCU_INLINE void add_input_gradient(const lmcu_factors_t *f, int expanded, int32_t rank, const float *restrict h,
                                    float *restrict val)
{
    const int32_t k = f->k;
    for (int32_t i = 0; i < k; ++i) {
        float sum = 0.0f;
        for (int32_t j = 0; j < rank; ++j) {
            sum = sum + factor_a(f, expanded, rank, j, i) * h[j];
        }
        val[i] = val[i] + sum;
    }
}

void lmcu_lora_add_input_gradient(const lmcu_factors_t *f, const float *h, float *val)
{
    const lmcu_factors_t local = *f;
    if (!local.a_t) {
        add_input_gradient(&local, 0, local.lora->rank, h, val);
    } else if (local.lora->rank == 4) {
        add_input_gradient(&local, 1, 4, h, val);
    } else {
        add_input_gradient(&local, 1, local.lora->rank, h, val);
    }
}

#else
typedef int lmcu_lora_is_not_used_t; /* ISO C wants something in a file */
#endif

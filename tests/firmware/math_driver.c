/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one runtime function over binary records from stdin and writes binary results to stdout: see test_runtime_math.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "lmcu_math.h"
#include "random.h"
#include "train.h"

static int put(const void *value, size_t size)
{
    return fwrite(value, size, 1, stdout) == 1;
}

static void expand(void)
{
    uint16_t half;
    while (fread(&half, 2, 1, stdin) == 1) {
        const float value = lmcu_half_to_float_portable(half);
        put(&value, 4);
    }
}

static void nearest(void)
{
    float value;
    while (fread(&value, 4, 1, stdin) == 1) {
        const uint16_t half = lmcu_half_nearest(value);
        put(&half, 2);
    }
}

static void stochastic(void)
{
    struct { float value; uint32_t random; } in;
    while (fread(&in, sizeof in, 1, stdin) == 1) {
        const uint16_t half = lmcu_half_stochastic(in.value, in.random);
        if (half != lmcu_half_stochastic_quick(in.value, in.random)) {
            abort();
        }
        put(&half, 2);
    }
}

static void map(float (*function)(float))
{
    float value;
    while (fread(&value, 4, 1, stdin) == 1) {
        value = function(value);
        put(&value, 4);
    }
}

static void mix(void)
{
    uint32_t value;
    while (fread(&value, 4, 1, stdin) == 1) {
        value = lmcu_mix(value);
        put(&value, 4);
    }
}

static void round_values(void)
{
    float value;
    while (fread(&value, 4, 1, stdin) == 1) {
        const int32_t nearest = lmcu_nearest(value);
        put(&nearest, 4);
    }
}

/* Against the definition, for every float whose magnitude is below 2^30; prints how many differ. */
static void round_every_value(void)
{
    uint32_t wrong = 0;
    for (uint32_t bits = 0; bits < 0x4e800000u; bits++) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            const float value = lmcu_float_from_bits(bits | sign << 31);
            const int32_t whole = (int32_t)value;
            const float rest = value - (float)whole;
            wrong += lmcu_nearest(value) != whole + (rest >= 0.5f) - (rest <= -0.5f);
        }
    }
    put(&wrong, 4);
}

static void random_words(void)
{
    struct { uint32_t seed, stream, step, index; } in;
    while (fread(&in, sizeof in, 1, stdin) == 1) {
        const uint32_t key = lmcu_rand_key(in.seed, in.stream, in.step), value = lmcu_rand_at(key, in.index);
        lmcu_random_t words = lmcu_rand_from(key, in.index - 1u);
        (void)lmcu_rand_next(&words);
        if (lmcu_rand_next(&words) != value) {
            abort();
        }
        put(&value, 4);
    }
}

/* The checksum of stdin, taken in pieces of 1, 2, 3 ... bytes. */
static void checksum(void)
{
    uint8_t piece[4096];
    uint32_t crc = 0u;
    size_t count, size = 1u;
    while ((count = fread(piece, 1, size, stdin)) > 0u) {
        crc = lmcu_crc32(crc, piece, count);
        size = size % sizeof piece + 1u;
    }
    put(&crc, 4);
}

/* Control word bits of the environments that the self-test must refuse. */
static void self_test(unsigned control)
{
#if defined(__SSE2__)
    _mm_setcsr(_mm_getcsr() | control);
#endif
    const uint8_t passed = lmcu_self_test() ? 1u : 0u;
    put(&passed, 1);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "expand") == 0) { expand(); }
    else if (strcmp(name, "nearest") == 0) { nearest(); }
    else if (strcmp(name, "stochastic") == 0) { stochastic(); }
    else if (strcmp(name, "exp") == 0) { map(lmcu_exp); }
    else if (strcmp(name, "log") == 0) { map(lmcu_log); }
    else if (strcmp(name, "sqrt") == 0) { map(lmcu_sqrt); }
    else if (strcmp(name, "mix") == 0) { mix(); }
    else if (strcmp(name, "round") == 0) { round_values(); }
    else if (strcmp(name, "round_every") == 0) { round_every_value(); }
    else if (strcmp(name, "random") == 0) { random_words(); }
    else if (strcmp(name, "crc32") == 0) { checksum(); }
    else if (strcmp(name, "self_test") == 0) { self_test(0u); }
    else if (strcmp(name, "self_test_flush") == 0) { self_test(0x8000u); }
    else if (strcmp(name, "self_test_denormals_are_zero") == 0) { self_test(0x0040u); }
    else if (strcmp(name, "self_test_round_down") == 0) { self_test(0x2000u); }
    else if (strcmp(name, "self_test_round_up") == 0) { self_test(0x4000u); }
    else if (strcmp(name, "self_test_round_to_zero") == 0) { self_test(0x6000u); }
    else { return 2; }
    return 0;
}

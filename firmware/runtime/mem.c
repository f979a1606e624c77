/* SPDX-License-Identifier: Apache-2.0 */
/* The four memory functions that GCC may call; empty where a C library provides them. */
#include "lmcu_strict.h"

#include <stdint.h>

#include "lmcu_mem.h"

#if defined(LMCU_FREESTANDING)

#if defined(__GNUC__) && !defined(__clang__)
/* Otherwise GCC turns these loops into calls of the functions that they implement. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif

/* Words only where both sides are aligned alike: Cortex-M0 and RISC-V cores fault on unaligned access. */
typedef uint32_t __attribute__((may_alias)) lmcu_word_t;

static int aligned(const void *a, const void *b)
{
    return (((uintptr_t)a | (uintptr_t)b) & 3u) == 0u;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if (aligned(to, from)) {
        for (; count >= 4u; count -= 4u, d += 4, s += 4) {
            *(lmcu_word_t *)(void *)d = *(const lmcu_word_t *)(const void *)s;
        }
    }
    while (count-- > 0u) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d <= (uintptr_t)s) {
        if (aligned(to, from)) {
            for (; count >= 4u; count -= 4u, d += 4, s += 4) {
                *(lmcu_word_t *)(void *)d = *(const lmcu_word_t *)(const void *)s;
            }
        }
        while (count-- > 0u) {
            *d++ = *s++;
        }
    } else {
        while (count-- > 0u) {
            d[count] = s[count];
        }
    }
    return to;
}

/* `count` bytes, a multiple of 32; returns their end. */
static uint8_t *set_blocks(uint8_t *d, uint32_t word, size_t count)
{
    uint8_t *const end = d + count;
#if defined(__GNUC__) && defined(__thumb2__)
    if (d != end) {
        __asm__ volatile("mov r8, %[word]\n\tmov r9, r8\n\tmov r10, r8\n\tmov r11, r8\n\t"
                         "1:\n\tstmia %[d]!, {r8, r9, r10, r11}\n\tstmia %[d]!, {r8, r9, r10, r11}\n\tcmp %[d], %[end]\n\tbne 1b"
                         : [d] "+&r"(d)
                         : [word] "r"(word), [end] "r"(end)
                         : "r8", "r9", "r10", "r11", "cc", "memory");
    }
#else
    for (; d != end; d += 32) {
        lmcu_word_t *eight = (lmcu_word_t *)(void *)d;
        eight[0] = eight[1] = eight[2] = eight[3] = word;
        eight[4] = eight[5] = eight[6] = eight[7] = word;
    }
#endif
    return d;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *d = to;
    if (aligned(to, to)) {
        const uint32_t word = (uint32_t)(uint8_t)value * 0x01010101u;
        d = set_blocks(d, word, count & ~(size_t)31u);
        count &= 31u;
        for (; count >= 4u; count -= 4u, d += 4) {
            *(lmcu_word_t *)(void *)d = word;
        }
    }
    while (count-- > 0u) {
        *d++ = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *x = a;
    const uint8_t *y = b;
    for (size_t i = 0; i < count; ++i) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}

#else
typedef int lmcu_mem_unused_t;
#endif

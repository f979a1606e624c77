/* SPDX-License-Identifier: Apache-2.0 */
/* The stack, its high-water mark, and zeroed memory: what start-up code needs on any core. */
#include "lmcu_port.h"
#include "port_state.h"

#define LMCU_STACK_PAINT 0xC5C5C5C5u

uint8_t lmcu_stack[LMCU_STACK_BYTES] LMCU_ALIGNED(16) __attribute__((section(".noinit.stack")));

typedef struct {
    uint32_t *start, *end;
} lmcu_zeroed_t;

extern const lmcu_zeroed_t lmcu_zero_table[], lmcu_zero_table_end[]; /* linker.ld: one for each region of SRAM */

void lmcu_zero_bss(void)
{
    for (const lmcu_zeroed_t *part = lmcu_zero_table; part != lmcu_zero_table_end; part++) {
        for (volatile uint32_t *word = part->start; word != part->end; word++) {
            *word = 0;
        }
    }
}

/* Fills the stack below the stack pointer, so that the deepest use can be read off later. */
void lmcu_paint_stack(void)
{
    uintptr_t pointer;
#if defined(__riscv)
    __asm volatile("mv %0, sp" : "=r"(pointer));
#else
    __asm volatile("mov %0, sp" : "=r"(pointer));
#endif
    for (uintptr_t at = (uintptr_t)lmcu_stack; at < pointer; at += 4) {
        *(volatile uint32_t *)at = LMCU_STACK_PAINT;
    }
}

uint32_t lmcu_port_stack_used(void)
{
    const uint32_t *words = (const uint32_t *)(const void *)lmcu_stack;
    uint32_t clean = 0;
    while (clean < LMCU_STACK_BYTES / 4 && words[clean] == LMCU_STACK_PAINT) {
        clean++;
    }
    return LMCU_STACK_BYTES - 4 * clean;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Vector table and the way from reset to lmcu_main. There is no initialised data to copy: the linker script refuses it. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32f4.h"

#define LMCU_STACK_PAINT 0xC5C5C5C5u

uint8_t lmcu_stack[LMCU_STACK_BYTES] LMCU_ALIGNED(8) __attribute__((section(".noinit.stack")));

extern uint32_t lmcu_bss_start[], lmcu_bss_end[]; /* linker.ld */

/* A fault leaves nothing to trust, not even the stack pointer: reset the part. */
static void fault(void)
{
    SCB_AIRCR = SCB_AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

/* Exceptions 1 to 15, then interrupts (RM0090 section 12.2) up to the serial port's, the only one that is enabled. */
const uintptr_t lmcu_vectors[16 + LMCU_BOARD_UART_IRQ + 1] __attribute__((section(".vectors"), used)) = {
    [0] = (uintptr_t)&lmcu_stack[LMCU_STACK_BYTES],
    [1] = (uintptr_t)lmcu_reset_handler,
    [2] = (uintptr_t)fault,  /* NMI */
    [3] = (uintptr_t)fault,  /* HardFault */
    [4] = (uintptr_t)fault,  /* MemManage */
    [5] = (uintptr_t)fault,  /* BusFault */
    [6] = (uintptr_t)fault,  /* UsageFault */
    [11] = (uintptr_t)fault, /* SVCall */
    [12] = (uintptr_t)fault, /* DebugMonitor */
    [14] = (uintptr_t)fault, /* PendSV */
    [15] = (uintptr_t)lmcu_tick_interrupt,
    [16 + LMCU_BOARD_UART_IRQ] = (uintptr_t)lmcu_serial_interrupt,
};

static void zero_bss(void)
{
    for (volatile uint32_t *word = lmcu_bss_start; word != lmcu_bss_end; word++) {
        *word = 0;
    }
}

/* Fills the stack below the stack pointer, so that the deepest use can be read off later. */
static void paint_stack(void)
{
    uintptr_t pointer;
    __asm volatile("mov %0, sp" : "=r"(pointer));
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

/* FPSCR 0: round to nearest even, subnormals kept, no default NaN. The ISB must come before the first float instruction. */
static void enable_fpu(void)
{
    SCB_CPACR |= 0xFu << 20;
    __asm volatile("dsb\n\tisb" ::: "memory");
    __asm volatile("vmsr fpscr, %0" ::"r"(0));
}

void lmcu_reset_handler(void)
{
    __asm volatile("cpsid i" ::: "memory");
    SCB_VTOR = (uint32_t)(uintptr_t)lmcu_vectors;
    enable_fpu();
    zero_bss();
    paint_stack();
    __asm volatile("cpsie i" ::: "memory");
    (void)lmcu_main();
    fault();
}

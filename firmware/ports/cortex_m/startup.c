/* SPDX-License-Identifier: Apache-2.0 */
/* Vector table and the way from reset to lmcu_main. There is no initialised data to copy: the linker script refuses it. */
#include "cortex_m.h"
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

/* A fault leaves nothing to trust, not even the stack pointer: reset the part. */
void lmcu_fault(void)
{
    lmcu_port_state.fields.reset_note = LMCU_RESET_NOTE | LMCU_RESET_FAULT;
    SCB_AIRCR = SCB_AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

/* Nothing but a watchdog that warns before it resets. */
static void watchdog(void)
{
    lmcu_port_state.fields.reset_note = LMCU_RESET_NOTE | LMCU_RESET_WATCHDOG;
    SCB_AIRCR = SCB_AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

/* A family whose flash reports a torn unit this way has a handler of its own. */
__attribute__((weak)) void lmcu_nmi(void)
{
    lmcu_fault();
}

/* Exceptions 1 to 15, then interrupts up to the serial port's, the only one that is enabled. */
const uintptr_t lmcu_vectors[16 + LMCU_BOARD_UART_IRQ + 1] __attribute__((section(".vectors"), used)) = {
    [0] = (uintptr_t)&lmcu_stack[LMCU_STACK_BYTES],
    [1] = (uintptr_t)lmcu_reset_handler,
    [2] = (uintptr_t)watchdog, /* NMI */
    [3] = (uintptr_t)lmcu_fault,  /* HardFault */
    [4] = (uintptr_t)lmcu_fault,  /* MemManage */
    [5] = (uintptr_t)lmcu_fault,  /* BusFault */
    [6] = (uintptr_t)lmcu_fault,  /* UsageFault */
    [11] = (uintptr_t)lmcu_fault, /* SVCall */
    [12] = (uintptr_t)lmcu_fault, /* DebugMonitor */
    [14] = (uintptr_t)lmcu_fault, /* PendSV */
    [15] = (uintptr_t)lmcu_tick_interrupt,
    [16 + LMCU_BOARD_UART_IRQ] = (uintptr_t)lmcu_serial_interrupt,
};

#define FPSCR_MODES (0x1Fu << 22 | 1u << 19) /* rounding, flush to zero, default NaN, alternative half precision */

/* Round to nearest even, subnormals kept. The ISB must come before the first float instruction. The rest of FPSCR stays:
 * ARMv8.1-M keeps the state of loops there. */
static void enable_fpu(void)
{
    uint32_t fpscr;
    SCB_CPACR |= 0xFu << 20;
    __asm volatile("dsb\n\tisb" ::: "memory");
    __asm volatile("vmrs %0, fpscr" : "=r"(fpscr));
    __asm volatile("vmsr fpscr, %0" ::"r"(fpscr & ~FPSCR_MODES));
}

/* Some parts have memories without a clock after reset. */
__attribute__((weak)) void lmcu_memory_init(void)
{
}

void lmcu_reset_handler(void)
{
    __asm volatile("cpsid i" ::: "memory");
    SCB_VTOR = (uint32_t)(uintptr_t)lmcu_vectors;
    lmcu_cache_init();
    enable_fpu();
    lmcu_memory_init();
    lmcu_zero_bss();
    lmcu_paint_stack();
    __asm volatile("cpsie i" ::: "memory");
    (void)lmcu_main();
    lmcu_fault();
}

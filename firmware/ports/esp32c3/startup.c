/* SPDX-License-Identifier: Apache-2.0 */
/* Direct boot: the ROM finds the magic number twice at the start of flash, maps flash at 0x42000000 (code) and 0x3C000000
 * (constants) and jumps behind it. There is no initialised data to copy: the linker script refuses it. */
#include "esp32c3.h"
#include "lmcu_port.h"
#include "port_state.h"

#define TEXT(x) #x
#define VALUE(x) TEXT(x)

__asm(".section .vectors, \"ax\"\n"
      "    .word 0xAEDB041D, 0xAEDB041D\n"
      "    .globl lmcu_reset_handler\n"
      "    .type lmcu_reset_handler, @function\n"
      "lmcu_reset_handler:\n"
      "    csrci mstatus, 8\n" /* no interrupts: this port polls */
      "    la sp, lmcu_stack + " VALUE(LMCU_STACK_BYTES) "\n"
      "    j lmcu_start\n");

void lmcu_start(void);

typedef char lmcu_note_is_as_the_trap_writes_it[LMCU_RESET_FAULT == 5 && offsetof(lmcu_port_fields_t, reset_note) == 0 ? 1 : -1];

/* Code that must not be fetched from flash, copied here at start-up; it is linked to run at the same bytes' place on the
 * instruction bus. */
uint8_t lmcu_ram_code[LMCU_RAM_CODE_BYTES] LMCU_ALIGNED(256) __attribute__((section(".noinit.ram_code")));

extern const uint32_t lmcu_ram_code_image[], lmcu_ram_code_image_end[]; /* linker.ld */

static void copy_ram_code(void)
{
    volatile uint32_t *to = (volatile uint32_t *)(void *)lmcu_ram_code; /* volatile: no call of memcpy */
    for (const uint32_t *from = lmcu_ram_code_image; from != lmcu_ram_code_image_end; from++) {
        *to++ = *from;
    }
    __asm volatile("fence.i" ::: "memory");
}

/* A trap leaves nothing to trust, not even the stack pointer: reset the part. The core's table of vectors starts at a
 * multiple of 256 bytes; exceptions take its first entry, and no other can be taken. In RAM: a trap may come while flash is
 * written. */
__attribute__((naked, used, aligned(256), section(".ram_code.trap"))) static void trap(void)
{
    __asm volatile("la t0, lmcu_port_state\n\t"
                   "li t1, " VALUE(LMCU_RESET_NOTE) " + 5\n\t" /* LMCU_RESET_FAULT */
                   "sw t1, 0(t0)\n\t"
                   "li t0, 0x60008000\n\t"
                   "li t1, 0x80000000\n\t"
                   "sw t1, 0(t0)\n"
                   "1: j 1b");
}

/* The ROM leaves the flash boot watchdogs running; the super watchdog cannot be turned off, but feeds itself. */
static void stop_watchdogs(void)
{
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_CONFIG0 = 0;
    RTC_WDT_PROTECT = 0;
    RTC_SWD_PROTECT = SWD_KEY;
    RTC_SWD_CONF |= RTC_SWD_CONF_FEED;
    RTC_SWD_PROTECT = 0;
    for (uint32_t group = 0; group < 2; group++) {
        TIMG_WDT_PROTECT(group) = WDT_KEY;
        TIMG_WDT_CONFIG0(group) = 0;
        TIMG_WDT_PROTECT(group) = 0;
    }
}

__attribute__((used)) void lmcu_start(void)
{
    copy_ram_code();
    __asm volatile("csrw mtvec, %0" ::"r"((uintptr_t)trap | 1u)); /* the core knows vectored mode only */
    stop_watchdogs();
    lmcu_zero_bss();
    lmcu_paint_stack();
    (void)lmcu_main();
    lmcu_port_reset();
}

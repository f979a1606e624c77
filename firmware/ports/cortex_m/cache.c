/* SPDX-License-Identifier: Apache-2.0 */
/* Caches of a Cortex-M7 (ARMv7-M architecture reference manual B2.2.7; Cortex-M7 devices generic user guide, DUI 0646, section
 * 4.8). Both are on: weights are read from flash behind several wait states. Nothing but the core moves data, so that the
 * data cache needs care in one place only, the flash driver. */
#include "cortex_m.h"
#include "lmcu_board.h"

#if LMCU_BOARD_CACHES
#define LINE_BYTES 32u
#define SYNCHRONIZE() __asm volatile("dsb\n\tisb" ::: "memory")

static void forget_data(void)
{
    SCB_CSSELR = 0; /* level 1, data */
    SYNCHRONIZE();
    const uint32_t size = SCB_CCSIDR;
    const uint32_t sets = ((size >> 13) & 0x7FFFu) + 1u;
    const uint32_t ways = ((size >> 3) & 0x3FFu) + 1u;
    for (uint32_t set = 0; set < sets; set++) {
        for (uint32_t way = 0; way < ways; way++) {
            SCB_DCISW = set << 5 | way << 30; /* 32-byte lines, four ways */
        }
    }
}

void lmcu_cache_init(void)
{
    SCB_ICIALLU = 0;
    forget_data();
    SYNCHRONIZE();
    SCB_CCR |= SCB_CCR_IC | SCB_CCR_DC;
    SYNCHRONIZE();
}

void lmcu_cache_forget(uintptr_t address, uint32_t bytes)
{
    __asm volatile("dsb" ::: "memory");
    for (uintptr_t line = address & ~(uintptr_t)(LINE_BYTES - 1u); line < address + bytes; line += LINE_BYTES) {
        SCB_DCIMVAC = (uint32_t)line;
    }
    SYNCHRONIZE();
}
#else
void lmcu_cache_init(void)
{
}

void lmcu_cache_forget(uintptr_t address, uint32_t bytes)
{
    (void)address;
    (void)bytes;
}
#endif

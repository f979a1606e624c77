/* SPDX-License-Identifier: Apache-2.0 */
/* Flash of STM32F4 (RM0090 section 3.5 and 3.9; RM0390) and F7 (RM0385 section 3.3 and 3.7): two large sectors for adapters,
 * words of 32 bits, 2.7 to 3.6 V. The core stalls while its only bank is busy, so that waits end soon after. No ECC: a torn word
 * reads as something else. */
#include "lmcu_board.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define FLASH_KEYR LMCU_REG(0x40023C04u)
#define FLASH_SR LMCU_REG(0x40023C0Cu)
#define FLASH_SR_ERRORS 0xF2u /* operation, write protection, alignment, parallelism, sequence */
#define FLASH_SR_BSY (1u << 16)
#define FLASH_CR LMCU_REG(0x40023C10u)
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_SER (1u << 1)
#define FLASH_CR_SNB(sector) ((sector) << 3)
#define FLASH_CR_WORDS (2u << 8)
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_ACR_ART (3u << 9) /* the F4's caches, the F7's accelerator */

#define FIRST_SECTOR (4u + (LMCU_BOARD_FLASH_ORIGIN - 0x08000000u) / LMCU_BOARD_FLASH_HALF) /* five small ones come first */
#define CELLS(half, offset) (LMCU_BOARD_FLASH_ORIGIN + (half) * LMCU_BOARD_FLASH_HALF + (offset))

/* An erase takes 4 s at most (data sheets). Each read takes several clocks. */
static bool is_done(void)
{
    return lmcu_reached(&FLASH_SR, FLASH_SR_BSY, 0, 4u * (LMCU_BOARD_CLOCK_HZ / 4u));
}

static bool open_for(uint32_t control)
{
    if (!is_done()) {
        return false;
    }
    if ((FLASH_CR & FLASH_CR_LOCK) != 0) {
        FLASH_KEYR = 0x45670123u;
        FLASH_KEYR = 0xCDEF89ABu;
    }
    FLASH_SR = FLASH_SR_ERRORS; /* writing 1 clears */
    FLASH_CR = control;
    return true;
}

static bool close(void)
{
    const bool good = is_done() && (FLASH_SR & FLASH_SR_ERRORS) == 0;
    FLASH_CR = FLASH_CR_LOCK;
    return good;
}

/* Where the controller does not answer (QEMU reads 0) there is no store. */
lmcu_flash_t lmcu_hardware_flash(void)
{
    const bool here = (FLASH_CR & FLASH_CR_LOCK) != 0;
    return (lmcu_flash_t){here ? LMCU_BOARD_FLASH_HALF : 0, LMCU_BOARD_FLASH_UNIT};
}

bool lmcu_hardware_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    memcpy(to, (const void *)(uintptr_t)CELLS(half, offset), count);
    return true;
}

/* Section 3.5.3: what the caches know of the sector is forgotten, which needs them turned off. */
static void forget(uint32_t half)
{
    const uint32_t control = FLASH_ACR;
    FLASH_ACR = control & ~FLASH_ACR_ART;
    FLASH_ACR = (control & ~FLASH_ACR_ART) | (FLASH_ACR_ART << 2);
    FLASH_ACR = control & ~FLASH_ACR_ART;
    FLASH_ACR = control;
    lmcu_cache_forget(CELLS(half, 0), LMCU_BOARD_FLASH_HALF);
}

bool lmcu_hardware_flash_erase(uint32_t half)
{
    const uint32_t control = FLASH_CR_SER | FLASH_CR_SNB(FIRST_SECTOR + half) | FLASH_CR_WORDS;
    if (!open_for(control)) {
        return false;
    }
    FLASH_CR = control | FLASH_CR_STRT;
    __asm volatile("dsb" ::: "memory");
    const bool good = close();
    forget(half);
    return good;
}

bool lmcu_hardware_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint32_t word;
    volatile uint32_t *cell = (volatile uint32_t *)(uintptr_t)CELLS(half, offset);
    memcpy(&word, unit, 4);
    if (!open_for(FLASH_CR_PG | FLASH_CR_WORDS)) {
        return false;
    }
    *cell = word;
    __asm volatile("dsb" ::: "memory");
    const bool good = close();
    lmcu_cache_forget((uintptr_t)cell, 4);
    return good && *cell == word;
}

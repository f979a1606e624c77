/* SPDX-License-Identifier: Apache-2.0 */
/* Flash of an STM32L4+, the last 32 KB (RM0432 sections 3.3 and 3.7): double words with ECC, each programmed once between erases,
 * pages of 4 KB in two banks or of 8 KB where the option bytes join the banks. */
#include "lmcu_board.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define FLASH_KEYR LMCU_REG(0x40022008u)
#define FLASH_SR LMCU_REG(0x40022010u)
#define FLASH_SR_ERRORS 0xC3FAu
#define FLASH_SR_BSY (1u << 16)
#define FLASH_CR LMCU_REG(0x40022014u)
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_PER (1u << 1)
#define FLASH_CR_PAGE(page) ((page) << 3) /* PNB, and above 255 BKER */
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_ECCR LMCU_REG(0x40022018u)
#define FLASH_ECCR_TORN (1u << 31 | 1u << 29) /* ECCD, ECCD2 */
#define FLASH_OPTR LMCU_REG(0x40022020u)
#define FLASH_OPTR_DBANK (1u << 22)
#define FLASH_ACR_CACHES (3u << 9)

#define CELLS(half, offset) (LMCU_BOARD_FLASH_ORIGIN + (half) * LMCU_BOARD_FLASH_HALF + (offset))

/* A page takes 25 ms at most (data sheet). */
static bool is_done(void)
{
    return lmcu_reached(&FLASH_SR, FLASH_SR_BSY, 0, LMCU_BOARD_CLOCK_HZ / 8u);
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
    FLASH_SR = FLASH_SR_ERRORS; /* an error that was not cleared stops the next operation */
    FLASH_CR = control;
    return true;
}

static bool close(void)
{
    const bool good = is_done() && (FLASH_SR & FLASH_SR_ERRORS) == 0;
    FLASH_CR = FLASH_CR_LOCK;
    return good;
}

lmcu_flash_t lmcu_hardware_flash(void)
{
    return (lmcu_flash_t){LMCU_BOARD_FLASH_HALF, LMCU_BOARD_FLASH_UNIT};
}

/* Section 3.3.2: two wrong bits raise the NMI, which would come again and again until the flag is cleared. */
void lmcu_nmi(void)
{
    if ((FLASH_ECCR & FLASH_ECCR_TORN) == 0) {
        lmcu_fault();
    }
    FLASH_ECCR |= FLASH_ECCR_TORN;
    lmcu_port_state.fields.flash_torn = 1;
}

bool lmcu_hardware_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    lmcu_port_state.fields.flash_torn = 0;
    memcpy(to, (const void *)(uintptr_t)CELLS(half, offset), count);
    __asm volatile("dsb\n\tisb" ::: "memory");
    const bool torn = lmcu_port_state.fields.flash_torn != 0 || (FLASH_ECCR & FLASH_ECCR_TORN) != 0;
    if (torn) {
        FLASH_ECCR |= FLASH_ECCR_TORN;
    }
    return !torn;
}

/* Section 3.3.4: the caches know the erased page as it was; they can be reset while they are off. */
static void forget(void)
{
    const uint32_t control = FLASH_ACR;
    FLASH_ACR = control & ~FLASH_ACR_CACHES;
    FLASH_ACR = (control & ~FLASH_ACR_CACHES) | (FLASH_ACR_CACHES << 2);
    FLASH_ACR = control & ~FLASH_ACR_CACHES;
    FLASH_ACR = control;
}

bool lmcu_hardware_flash_erase(uint32_t half)
{
    const uint32_t page_bytes = (FLASH_OPTR & FLASH_OPTR_DBANK) != 0 ? 0x1000u : 0x2000u;
    bool good = true;
    for (uint32_t at = 0; good && at < LMCU_BOARD_FLASH_HALF; at += page_bytes) {
        const uint32_t page = (CELLS(half, at) - 0x08000000u) / page_bytes;
        good = open_for(FLASH_CR_PER | FLASH_CR_PAGE(page));
        if (good) {
            FLASH_CR = FLASH_CR_PER | FLASH_CR_PAGE(page) | FLASH_CR_STRT;
            __asm volatile("dsb" ::: "memory");
            good = close();
        }
        lmcu_port_watchdog_feed();
    }
    forget();
    return good;
}

bool lmcu_hardware_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint32_t words[2], found[2];
    volatile uint32_t *cells = (volatile uint32_t *)(uintptr_t)CELLS(half, offset);
    memcpy(words, unit, 8);
    if (!open_for(FLASH_CR_PG)) {
        return false;
    }
    cells[0] = words[0];
    __asm volatile("isb" ::: "memory");
    cells[1] = words[1];
    __asm volatile("dsb" ::: "memory");
    const bool good = close();
    return good && lmcu_hardware_flash_read(half, offset, found, 8) && memcmp(found, unit, 8) == 0;
}

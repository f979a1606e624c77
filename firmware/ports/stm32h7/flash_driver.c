/* SPDX-License-Identifier: Apache-2.0 */
/* Flash of an STM32H7, the last two sectors of bank 2 (RM0433 sections 4.3 and 4.9): words of 32 bytes with ECC, each programmed
 * once between erases. Code runs from bank 1 meanwhile. */
#include "lmcu_board.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define FLASH_KEYR2 LMCU_REG(0x52002104u)
#define FLASH_CR2 LMCU_REG(0x5200210Cu)
#define FLASH_CR_LOCK (1u << 0)
#define FLASH_CR_PG (1u << 1)
#define FLASH_CR_SER (1u << 2)
#define FLASH_CR_DOUBLEWORDS (3u << 4)
#define FLASH_CR_START (1u << 7)
#define FLASH_CR_SNB(sector) ((sector) << 8)
#define FLASH_SR2 LMCU_REG(0x52002110u)
#define FLASH_SR_BUSY 7u /* BSY, write buffer not empty, queue waiting */
#define FLASH_SR_ERRORS (0x37u << 17) /* write protection, sequence, strobe, inconsistency, operation (section 4.9.9) */
#define FLASH_SR_DBECCERR (1u << 26)
#define FLASH_CCR2 LMCU_REG(0x52002114u)

#define BANK 0x08100000u
#define FIRST_SECTOR ((LMCU_BOARD_FLASH_ORIGIN - BANK) / LMCU_BOARD_FLASH_HALF)
#define CELLS(half, offset) (LMCU_BOARD_FLASH_ORIGIN + (half) * LMCU_BOARD_FLASH_HALF + (offset))
#define WORD 32u

/* An erase takes 4 s at most (data sheet). A read of the register takes several clocks. */
static bool is_done(void)
{
    return lmcu_reached(&FLASH_SR2, FLASH_SR_BUSY, 0, 4u * (LMCU_BOARD_CLOCK_HZ / 4u));
}

static bool open_for(uint32_t control)
{
    if (!is_done()) {
        return false;
    }
    if ((FLASH_CR2 & FLASH_CR_LOCK) != 0) {
        FLASH_KEYR2 = 0x45670123u;
        FLASH_KEYR2 = 0xCDEF89ABu;
    }
    FLASH_CCR2 = FLASH_SR_ERRORS;
    FLASH_CR2 = control;
    return true;
}

static bool close(void)
{
    const bool good = is_done() && (FLASH_SR2 & FLASH_SR_ERRORS) == 0;
    FLASH_CR2 = FLASH_CR_LOCK;
    return good;
}

lmcu_flash_t lmcu_hardware_flash(void)
{
    return (lmcu_flash_t){LMCU_BOARD_FLASH_HALF, LMCU_BOARD_FLASH_UNIT};
}

/* Two wrong bits make the bus answer with a fault, which the core ignores while FAULTMASK is set and it is told to (ARMv7-M
 * B1.5.6); the flag remains (section 4.7.5). */
bool lmcu_hardware_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    FLASH_CCR2 = FLASH_SR_DBECCERR;
    uint32_t masked;
    __asm volatile("mrs %0, faultmask\n\tcpsid f" : "=r"(masked)::"memory");
    SCB_CCR |= SCB_CCR_BFHFNMIGN;
    __asm volatile("dsb\n\tisb" ::: "memory");
    memcpy(to, (const void *)(uintptr_t)CELLS(half, offset), count);
    __asm volatile("dsb\n\tisb" ::: "memory");
    SCB_CCR &= ~SCB_CCR_BFHFNMIGN;
    __asm volatile("msr faultmask, %0" ::"r"(masked) : "memory");
    const bool good = (FLASH_SR2 & FLASH_SR_DBECCERR) == 0;
    FLASH_CCR2 = FLASH_SR_DBECCERR;
    return good;
}

bool lmcu_hardware_flash_erase(uint32_t half)
{
    const uint32_t control = FLASH_CR_SER | FLASH_CR_DOUBLEWORDS | FLASH_CR_SNB(FIRST_SECTOR + half);
    if (!open_for(control)) {
        return false;
    }
    FLASH_CR2 = control | FLASH_CR_START;
    __asm volatile("dsb" ::: "memory");
    const bool good = close();
    lmcu_cache_forget(CELLS(half, 0), LMCU_BOARD_FLASH_HALF);
    return good;
}

bool lmcu_hardware_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint32_t words[WORD / 4];
    volatile uint32_t *cells = (volatile uint32_t *)(uintptr_t)CELLS(half, offset);
    memcpy(words, unit, WORD);
    if (!open_for(FLASH_CR_PG | FLASH_CR_DOUBLEWORDS)) {
        return false;
    }
    __asm volatile("dsb\n\tisb" ::: "memory");
    for (uint32_t i = 0; i < WORD / 4; i++) {
        cells[i] = words[i];
    }
    __asm volatile("dsb" ::: "memory");
    const bool good = close();
    lmcu_cache_forget((uintptr_t)cells, WORD);
    uint32_t found[WORD / 4];
    return good && lmcu_hardware_flash_read(half, offset, found, WORD) && memcmp(found, unit, WORD) == 0;
}

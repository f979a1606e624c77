/* SPDX-License-Identifier: Apache-2.0 */
/* Flash of an ESP32-C3 module, through the ROM (function addresses and types: ESP-IDF's esp32c3.rom.ld and rom/spi_flash.h,
 * rom/cache.h; the same in all revisions). Erase and program run from RAM with the cache suspended: nothing can be fetched from a
 * flash that is busy. Sectors of 4 KB, programmed by words; bits only go from 1 to 0. */
#include "esp32c3.h"
#include "lmcu_board.h"
#include "lmcu_mem.h"
#include "lmcu_port.h"
#include "port_state.h"

#define ROM_CONFIG_PARAM ((int32_t(*)(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t))0x40000134u)
#define ROM_UNLOCK ((int32_t(*)(void))0x40000140u)
#define ROM_ERASE_SECTOR ((int32_t(*)(uint32_t))0x40000128u)
#define ROM_WRITE ((int32_t(*)(uint32_t, const uint32_t *, int32_t))0x4000012Cu)
#define ROM_SUSPEND_CACHE ((uint32_t(*)(void))0x40000524u) /* returns what resume wants */
#define ROM_RESUME_CACHE ((void (*)(uint32_t))0x40000528u)
#define ROM_FORGET ((int32_t(*)(uint32_t, uint32_t))0x400004D4u) /* Cache_Invalidate_Addr */

#define FLASH_BYTES 0x400000u
#define BLOCK 0x10000u
#define SECTOR 0x1000u
#define PAGE 0x100u
#define CODE 0x42000000u   /* where the board's file counts from */
#define WINDOW 0x3C000000u /* flash as data */
#define AT(half, offset) (LMCU_BOARD_FLASH_ORIGIN - CODE + (half) * LMCU_BOARD_FLASH_HALF + (offset))

#define IN_RAM __attribute__((section(".ram_code"), noinline))

/* The ROM's idea of the chip's size is the one that it was made with. */
IN_RAM static bool erase(uint32_t sector)
{
    const uint32_t autoload = ROM_SUSPEND_CACHE();
    const bool good = ROM_CONFIG_PARAM(0, FLASH_BYTES, BLOCK, SECTOR, PAGE, 0xFFFF) == 0 && ROM_UNLOCK() == 0 &&
                      ROM_ERASE_SECTOR(sector) == 0;
    ROM_RESUME_CACHE(autoload);
    return good;
}

IN_RAM static bool program(uint32_t at, const uint32_t *words)
{
    const uint32_t autoload = ROM_SUSPEND_CACHE();
    const bool good = ROM_CONFIG_PARAM(0, FLASH_BYTES, BLOCK, SECTOR, PAGE, 0xFFFF) == 0 && ROM_UNLOCK() == 0 &&
                      ROM_WRITE(at, words, LMCU_BOARD_FLASH_UNIT) == 0;
    ROM_RESUME_CACHE(autoload);
    return good;
}

lmcu_flash_t lmcu_port_flash(void)
{
    return (lmcu_flash_t){LMCU_BOARD_FLASH_HALF, LMCU_BOARD_FLASH_UNIT};
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    memcpy(to, (const void *)(uintptr_t)(WINDOW + AT(half, offset)), count);
    return true;
}

bool lmcu_port_flash_erase(uint32_t half)
{
    bool good = true;
    for (uint32_t at = AT(half, 0); good && at < AT(half, LMCU_BOARD_FLASH_HALF); at += SECTOR) {
        good = erase(at / SECTOR);
        (void)ROM_FORGET(WINDOW + at, SECTOR);
        lmcu_port_watchdog_feed();
    }
    return good;
}

uint32_t lmcu_port_flash_erase_ms(void)
{
    return LMCU_BOARD_FLASH_ERASE_MS;
}

bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint32_t words[LMCU_BOARD_FLASH_UNIT / 4];
    memcpy(words, unit, sizeof words);
    const bool good = program(AT(half, offset), words);
    (void)ROM_FORGET(WINDOW + AT(half, offset), sizeof words);
    return good && memcmp((const void *)(uintptr_t)(WINDOW + AT(half, offset)), unit, sizeof words) == 0;
}

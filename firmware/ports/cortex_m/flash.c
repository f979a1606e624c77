/* SPDX-License-Identifier: Apache-2.0 */
/* The flash of the adapter store: the part's own driver, or in an emulator without a flash controller a file of the host. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

/* Empty in an image as it is built. An emulator's launcher writes the file's name into its copy of the image. */
const char lmcu_flash_file[LMCU_FLASH_FILE_BYTES] = "";

const char *lmcu_flash_file_name(void)
{
    const char *name = lmcu_flash_file;
    __asm volatile("" : "+r"(name)); /* the compiler must not know what stands there */
    return name;
}

static bool in_file(void)
{
    return lmcu_flash_file_name()[0] != 0;
}

lmcu_flash_t lmcu_port_flash(void)
{
    const lmcu_flash_t file = {LMCU_BOARD_FLASH_HALF, LMCU_BOARD_FLASH_UNIT};
    return in_file() ? file : lmcu_hardware_flash();
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    return in_file() ? lmcu_file_flash_read(half, offset, to, count) : lmcu_hardware_flash_read(half, offset, to, count);
}

bool lmcu_port_flash_erase(uint32_t half)
{
    return in_file() ? lmcu_file_flash_erase(half) : lmcu_hardware_flash_erase(half);
}

uint32_t lmcu_port_flash_erase_ms(void)
{
    return LMCU_BOARD_FLASH_ERASE_MS;
}

bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    return in_file() ? lmcu_file_flash_program(half, offset, unit) : lmcu_hardware_flash_program(half, offset, unit);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* No flash driver yet: the adapter store answers UNSUPPORTED. */
#include "lmcu_port.h"

lmcu_flash_t lmcu_port_flash(void)
{
    return (lmcu_flash_t){0, 0};
}

bool lmcu_port_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    (void)half;
    (void)offset;
    (void)to;
    (void)count;
    return false;
}

bool lmcu_port_flash_erase(uint32_t half)
{
    (void)half;
    return false;
}

bool lmcu_port_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    (void)half;
    (void)offset;
    (void)unit;
    return false;
}

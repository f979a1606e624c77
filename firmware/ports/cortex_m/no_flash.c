/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in for the flash driver of a family that has none: a store of 0 bytes, which answers UNSUPPORTED. */
#include "lmcu_port.h"
#include "port_state.h"

#define LMCU_UNLESS_THE_FAMILY_HAS_ONE __attribute__((weak))

LMCU_UNLESS_THE_FAMILY_HAS_ONE lmcu_flash_t lmcu_hardware_flash(void)
{
    return (lmcu_flash_t){0, 0};
}

LMCU_UNLESS_THE_FAMILY_HAS_ONE bool lmcu_hardware_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    (void)half;
    (void)offset;
    (void)to;
    (void)count;
    return false;
}

LMCU_UNLESS_THE_FAMILY_HAS_ONE bool lmcu_hardware_flash_erase(uint32_t half)
{
    (void)half;
    return false;
}

LMCU_UNLESS_THE_FAMILY_HAS_ONE bool lmcu_hardware_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    (void)half;
    (void)offset;
    (void)unit;
    return false;
}

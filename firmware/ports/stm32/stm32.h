/* SPDX-License-Identifier: Apache-2.0 */
/* What all STM32 parts have alike, at addresses that the family's own family.h gives. Section numbers are those of RM0090
 * (STM32F405); the other manuals describe the same registers: RM0390 (F446), RM0385 (F746), RM0433 (H743), RM0432 (L4R5). */
#ifndef LMCU_STM32_H
#define LMCU_STM32_H

#include <stdbool.h>

#include "cortex_m.h"
#include "family.h"

/* GPIO, section 8.4: port A at the base, 0x400 bytes each */
#define GPIO_MODER(port) LMCU_REG(GPIO_BASE + 0x400u * (port))
#define GPIO_PUPDR(port) LMCU_REG(GPIO_BASE + 0x0Cu + 0x400u * (port))
#define GPIO_AFR(port, pin) LMCU_REG(GPIO_BASE + 0x20u + 0x400u * (port) + 4u * ((pin) / 8u))

/* RNG, section 24.4 */
#define RNG_CR LMCU_REG(RNG_BASE + 0x00u)
#define RNG_CR_RNGEN (1u << 2)
#define RNG_SR LMCU_REG(RNG_BASE + 0x04u)
#define RNG_SR_DRDY (1u << 0)
#define RNG_DR LMCU_REG(RNG_BASE + 0x08u)

void lmcu_uart_pins(void);

/* Waits for the bits of `mask` to read `value`; false after that many reads. */
bool lmcu_reached(volatile uint32_t *reg, uint32_t mask, uint32_t value, uint32_t reads);

#endif

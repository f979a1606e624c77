/* SPDX-License-Identifier: Apache-2.0 */
/* Registers that STM32F4 (RM0090, section numbers are its) and STM32F7 (RM0385 sections 3.7, 4.4, 5.3) have at the same places. */
#ifndef LMCU_F4_F7_H
#define LMCU_F4_F7_H

#include "cortex_m.h"

/* RCC, section 7.3 */
#define RCC_CR LMCU_REG(0x40023800u)
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 1)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR LMCU_REG(0x40023804u)
#define RCC_CFGR LMCU_REG(0x40023808u)
#define RCC_AHB1ENR LMCU_REG(0x40023830u)
#define RCC_AHB2ENR LMCU_REG(0x40023834u)
#define RCC_APB1ENR LMCU_REG(0x40023840u)
#define RCC_APB2ENR LMCU_REG(0x40023844u)

/* PWR, section 5.4 (the F7 calls them CR1 and CSR1) */
#define PWR_CR LMCU_REG(0x40007000u)
#define PWR_CR_VOS (1u << 14)
#define PWR_CSR LMCU_REG(0x40007004u)

/* FLASH, section 3.9 */
#define FLASH_ACR LMCU_REG(0x40023C00u)

/* Reset flags, section 7.3.21, and the watchdog */
#define RCC_RESET_FLAGS LMCU_REG(0x40023874u)
#define RCC_RESET_CLEAR (1u << 24)
#define RCC_RESET_PIN (1u << 26)
#define RCC_RESET_POWER (1u << 25 | 1u << 27) /* brown-out, power-on */
#define RCC_RESET_SOFTWARE (1u << 28)
#define RCC_RESET_WATCHDOG (3u << 29)
#define DBG_FREEZE LMCU_REG(0xE0042008u)
#define DBG_FREEZE_IWDG (1u << 12)
#define IWDG_BASE 0x40003000u

/* For stm32.h */
#define GPIO_BASE 0x40020000u
#define RCC_GPIOENR RCC_AHB1ENR
#define RNG_BASE 0x50060800u
#define RCC_RNGENR RCC_AHB2ENR
#define RCC_RNG_ENABLE (1u << 6)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the STM32L4+. Section numbers are those of RM0432 (STM32L4Rxxx and L4Sxxx). */
#ifndef LMCU_FAMILY_H
#define LMCU_FAMILY_H

#include "cortex_m.h"

/* RCC, section 6.4 */
#define RCC_CR LMCU_REG(0x40021000u)
#define RCC_CR_HSION (1u << 8)
#define RCC_CR_HSIRDY (1u << 10)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR LMCU_REG(0x40021008u)
#define RCC_PLLCFGR LMCU_REG(0x4002100Cu)
#define RCC_AHB2ENR LMCU_REG(0x4002104Cu)
#define RCC_APB1ENR1 LMCU_REG(0x40021058u)
#define RCC_APB1ENR1_PWREN (1u << 28)
#define RCC_APB1ENR2 LMCU_REG(0x4002105Cu)
#define RCC_APB2ENR LMCU_REG(0x40021060u)
#define RCC_CRRCR LMCU_REG(0x40021098u)
#define RCC_CRRCR_HSI48ON (1u << 0)

/* PWR, section 5.4 */
#define PWR_CR2 LMCU_REG(0x40007004u)
#define PWR_CR2_IOSV (1u << 9)
#define PWR_SR2 LMCU_REG(0x40007014u)
#define PWR_SR2_VOSF (1u << 10)
#define PWR_CR5 LMCU_REG(0x40007080u)
#define PWR_CR5_R1MODE (1u << 8)

/* FLASH, section 3.7 */
#define FLASH_ACR LMCU_REG(0x40022000u)

/* Reset flags, section 6.4.33, and the watchdog */
#define RCC_RESET_FLAGS LMCU_REG(0x40021094u)
#define RCC_RESET_CLEAR (1u << 23)
#define RCC_RESET_PIN (1u << 26)
#define RCC_RESET_POWER (1u << 27) /* brown-out, which power-on is too */
#define RCC_RESET_SOFTWARE (1u << 28)
#define RCC_RESET_WATCHDOG (3u << 29)
#define DBG_FREEZE LMCU_REG(0xE0042008u)
#define DBG_FREEZE_IWDG (1u << 12)
#define IWDG_BASE 0x40003000u

/* For stm32.h */
#define GPIO_BASE 0x48000000u
#define RCC_GPIOENR RCC_AHB2ENR
#define RNG_BASE 0x50060800u
#define RCC_RNGENR RCC_AHB2ENR
#define RCC_RNG_ENABLE (1u << 18)

#endif

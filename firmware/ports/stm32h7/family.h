/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the STM32H7. Section numbers are those of RM0433 (STM32H742, H743/753 and H750). */
#ifndef LMCU_FAMILY_H
#define LMCU_FAMILY_H

#include "cortex_m.h"

/* RCC, section 8.7 */
#define RCC_CR LMCU_REG(0x58024400u)
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 2)
#define RCC_CR_HSI48ON (1u << 12)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_HSEBYP (1u << 18)
#define RCC_CR_PLL1ON (1u << 24)
#define RCC_CR_PLL1RDY (1u << 25)
#define RCC_CFGR LMCU_REG(0x58024410u)
#define RCC_D1CFGR LMCU_REG(0x58024418u)
#define RCC_D2CFGR LMCU_REG(0x5802441Cu)
#define RCC_D3CFGR LMCU_REG(0x58024420u)
#define RCC_PLLCKSELR LMCU_REG(0x58024428u)
#define RCC_PLLCFGR LMCU_REG(0x5802442Cu)
#define RCC_PLL1DIVR LMCU_REG(0x58024430u)
#define RCC_AHB2ENR LMCU_REG(0x580244DCu)
#define RCC_AHB2ENR_SRAMS (7u << 29) /* SRAM1, SRAM2, SRAM3 */
#define RCC_AHB4ENR LMCU_REG(0x580244E0u)
#define RCC_APB1LENR LMCU_REG(0x580244E8u)
#define RCC_APB2ENR LMCU_REG(0x580244F0u)

/* PWR, section 6.8 */
#define PWR_CSR1 LMCU_REG(0x58024804u)
#define PWR_CSR1_ACTVOSRDY (1u << 13)
#define PWR_CR3 LMCU_REG(0x5802480Cu)
#define PWR_CR3_SUPPLY 7u /* BYPASS, LDOEN, SCUEN */
#define PWR_CR3_LDOEN (1u << 1)
#define PWR_D3CR LMCU_REG(0x58024818u)
#define PWR_D3CR_VOS (3u << 14)
#define PWR_D3CR_VOSRDY (1u << 13)

/* FLASH, section 4.9 */
#define FLASH_ACR LMCU_REG(0x52002000u)

/* Reset flags, section 8.7.39, and the watchdog */
#define RCC_RESET_FLAGS LMCU_REG(0x580244D0u)
#define RCC_RESET_CLEAR (1u << 16)
#define RCC_RESET_PIN (1u << 22)
#define RCC_RESET_POWER (1u << 21 | 1u << 23) /* brown-out, power-on */
#define RCC_RESET_SOFTWARE (1u << 24)
#define RCC_RESET_WATCHDOG (1u << 26 | 1u << 28)
#define DBG_FREEZE LMCU_REG(0x5C001054u)
#define DBG_FREEZE_IWDG (1u << 18)
#define IWDG_BASE 0x58004800u

/* For stm32.h */
#define GPIO_BASE 0x58020000u
#define RCC_GPIOENR RCC_AHB4ENR
#define RNG_BASE 0x48021800u
#define RCC_RNGENR RCC_AHB2ENR
#define RCC_RNG_ENABLE (1u << 6)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The few registers that the port uses. Section numbers are those of RM0090 (STM32F405/407/415/417 reference manual);
 * RM0390 (STM32F446) has the same registers at the same places. */
#ifndef LMCU_STM32F4_H
#define LMCU_STM32F4_H

#include "cortex_m.h"

/* RCC, RM0090 section 7.3 */
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

/* PWR, section 5.4; FLASH, section 3.9 */
#define PWR_CR LMCU_REG(0x40007000u)
#define PWR_CR_VOS (1u << 14)
#define FLASH_ACR LMCU_REG(0x40023C00u)

/* GPIO, section 8.4: port A at the base, 0x400 bytes each */
#define GPIO_MODER(port) LMCU_REG(0x40020000u + 0x400u * (port))
#define GPIO_PUPDR(port) LMCU_REG(0x4002000Cu + 0x400u * (port))
#define GPIO_AFR(port, pin) LMCU_REG(0x40020020u + 0x400u * (port) + 4u * ((pin) / 8u))

/* USART, section 30.6 */
#define USART_SR(base) LMCU_REG((base) + 0x00u)
#define USART_SR_ORE (1u << 3)
#define USART_SR_RXNE (1u << 5)
#define USART_SR_TC (1u << 6)
#define USART_SR_TXE (1u << 7)
#define USART_DR(base) LMCU_REG((base) + 0x04u)
#define USART_BRR(base) LMCU_REG((base) + 0x08u)
#define USART_CR1(base) LMCU_REG((base) + 0x0Cu)
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_CR1_RXNEIE (1u << 5)
#define USART_CR1_UE (1u << 13)

/* RNG, section 24.4 */
#define RNG_CR LMCU_REG(0x50060800u)
#define RNG_CR_RNGEN (1u << 2)
#define RNG_SR LMCU_REG(0x50060804u)
#define RNG_SR_DRDY (1u << 0)
#define RNG_DR LMCU_REG(0x50060808u)

#endif

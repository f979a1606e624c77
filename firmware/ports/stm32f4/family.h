/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the STM32F4. Section numbers are those of RM0090 (STM32F405/407/415/417 reference manual); RM0390 (STM32F446)
 * has the same registers at the same places. */
#ifndef LMCU_FAMILY_H
#define LMCU_FAMILY_H

#include "cortex_m.h"
#include "f4_f7.h"

#define FLASH_ACR_CACHES (7u << 8) /* section 3.9.1: prefetch, instruction and data cache */

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

#endif

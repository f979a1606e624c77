/* SPDX-License-Identifier: Apache-2.0 */
/* Core registers of the ARMv7-M and ARMv8-M architecture reference manuals: SysTick (B3.3), NVIC (B3.4), system control
 * block (B3.2). */
#ifndef LMCU_CORTEX_M_H
#define LMCU_CORTEX_M_H

#include <stdint.h>

#define LMCU_REG(address) (*(volatile uint32_t *)(address))

#define SYST_CSR LMCU_REG(0xE000E010u)
#define SYST_RVR LMCU_REG(0xE000E014u)
#define SYST_CVR LMCU_REG(0xE000E018u)
#define NVIC_ISER(irq) LMCU_REG(0xE000E100u + 4u * ((irq) / 32u))
#define SCB_ICSR LMCU_REG(0xE000ED04u)
#define SCB_ICSR_PENDSTSET (1u << 26)
#define SCB_VTOR LMCU_REG(0xE000ED08u)
#define SCB_AIRCR LMCU_REG(0xE000ED0Cu)
#define SCB_AIRCR_SYSRESETREQ 0x05FA0004u
#define SCB_CCR LMCU_REG(0xE000ED14u)
#define SCB_CCR_BFHFNMIGN (1u << 8)
#define SCB_CCR_DC (1u << 16)
#define SCB_CCR_IC (1u << 17)
#define SCB_CCSIDR LMCU_REG(0xE000ED80u)
#define SCB_CSSELR LMCU_REG(0xE000ED84u)
#define SCB_CPACR LMCU_REG(0xE000ED88u)
#define SCB_ICIALLU LMCU_REG(0xE000EF50u)
#define SCB_DCIMVAC LMCU_REG(0xE000EF5Cu)
#define SCB_DCISW LMCU_REG(0xE000EF60u)

void lmcu_cache_init(void);
void lmcu_cache_forget(uintptr_t address, uint32_t bytes); /* what the data cache knows of memory that changed behind it */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the STM32F7 that differ from the F4's. Section numbers are those of RM0385 (STM32F75x and F74x). */
#ifndef LMCU_FAMILY_H
#define LMCU_FAMILY_H

#include "f4_f7.h"

#define FLASH_ACR_CACHES (3u << 8) /* section 3.7.1: prefetch and accelerator (of the ITCM bus); the core has caches */

/* Over-drive, without which 180 MHz is the limit: sections 4.1.4, 4.4.1, 4.4.2 */
#define PWR_CR_ODEN (1u << 16)
#define PWR_CR_ODSWEN (1u << 17)
#define PWR_CSR_ODRDY (1u << 16)
#define PWR_CSR_ODSWRDY (1u << 17)

#endif

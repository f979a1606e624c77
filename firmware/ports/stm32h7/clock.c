/* SPDX-License-Identifier: Apache-2.0 */
/* Core clock of an STM32H7 through PLL1 from the external clock, else from the internal 64 MHz oscillator, else that
 * oscillator itself. Sections are RM0433's. Every wait is bounded. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define HSI_HZ 64000000u
#define WAIT_READS 100000u /* 10 ms at the least: a register read takes some ten clocks of 64 MHz */

#define PLL_INPUT_HZ 2000000u
#define PLL_N (2u * LMCU_BOARD_CLOCK_HZ / PLL_INPUT_HZ) /* the oscillator runs at twice the core's clock: P = 2 */

/* Table 17: AXI at half the core's clock, at most 210 MHz at voltage scale 1: two wait states, WRHIGHFREQ = 2. */
#define FLASH_TIMING (2u | 2u << 4)
typedef char lmcu_clock_fits_the_wait_states[LMCU_BOARD_CLOCK_HZ <= 400000000u ? 1 : -1];

/* Section 8.5.5: 2 MHz into the wide-range oscillator. */
static bool start_pll(uint32_t source_hz, uint32_t source)
{
    RCC_CR &= ~RCC_CR_PLL1ON;
    if (!lmcu_reached(&RCC_CR, RCC_CR_PLL1RDY, 0, WAIT_READS)) {
        return false;
    }
    RCC_PLLCKSELR = source | (source_hz / PLL_INPUT_HZ) << 4;
    RCC_PLLCFGR = 1u << 2 | 1u << 16; /* input 2 to 4 MHz, output P only */
    RCC_PLL1DIVR = (PLL_N - 1u) | 1u << 9 | 1u << 16 | 1u << 24;
    RCC_CR |= RCC_CR_PLL1ON;
    return lmcu_reached(&RCC_CR, RCC_CR_PLL1RDY, RCC_CR_PLL1RDY, WAIT_READS);
}

/* Section 6.8.4: the supply is written once, before the voltage; section 6.6.2: scale 1 for 400 MHz. */
static bool raise_voltage(void)
{
    PWR_CR3 = (PWR_CR3 & ~PWR_CR3_SUPPLY) | PWR_CR3_LDOEN;
    if (!lmcu_reached(&PWR_CSR1, PWR_CSR1_ACTVOSRDY, PWR_CSR1_ACTVOSRDY, WAIT_READS)) {
        return false;
    }
    PWR_D3CR |= PWR_D3CR_VOS;
    return lmcu_reached(&PWR_D3CR, PWR_D3CR_VOSRDY, PWR_D3CR_VOSRDY, WAIT_READS);
}

/* Section 8.7.7 and after: AXI and AHB half the core's clock, every APB half of that. */
static bool switch_to_pll(void)
{
    FLASH_ACR = FLASH_TIMING;
    if (!lmcu_reached(&FLASH_ACR, 0x3Fu, FLASH_TIMING, WAIT_READS)) {
        return false;
    }
    RCC_D1CFGR = 8u | 4u << 4;
    RCC_D2CFGR = 4u << 4 | 4u << 8;
    RCC_D3CFGR = 4u << 4;
    RCC_CFGR = 3u;
    return lmcu_reached(&RCC_CFGR, 7u << 3, 3u << 3, WAIT_READS);
}

static bool switch_to_internal(void)
{
    RCC_CR |= RCC_CR_HSION;
    if (!lmcu_reached(&RCC_CR, RCC_CR_HSIRDY, RCC_CR_HSIRDY, WAIT_READS)) {
        return false;
    }
    RCC_CFGR = 0;
    if (!lmcu_reached(&RCC_CFGR, 7u << 3, 0, WAIT_READS)) {
        return false;
    }
    RCC_D1CFGR = 0;
    RCC_D2CFGR = 0;
    RCC_D3CFGR = 0;
    return true;
}

void lmcu_clock_init(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    port->clock_hz = HSI_HZ;
    port->clock_source = 0;
    if (!switch_to_internal() || !raise_voltage()) {
        return;
    }
    RCC_CR |= RCC_CR_HSI48ON; /* section 8.5.2: the random number generator's clock */
#if LMCU_BOARD_CLOCK_INPUT
    RCC_CR |= RCC_CR_HSEBYP; /* the clock comes from the debugger's chip, not from a crystal */
#endif
    RCC_CR |= RCC_CR_HSEON;
    const bool external =
        LMCU_BOARD_CRYSTAL_HZ != 0 && lmcu_reached(&RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY, WAIT_READS);
    const bool locked = external ? start_pll(LMCU_BOARD_CRYSTAL_HZ, 2) : start_pll(HSI_HZ, 0);
    if (locked && switch_to_pll()) {
        port->clock_hz = LMCU_BOARD_CLOCK_HZ;
        port->clock_source = external;
    } else {
        (void)switch_to_internal();
    }
}

/* Section 2.4: SRAM1 to SRAM3 have no clock after reset. */
void lmcu_memory_init(void)
{
    RCC_AHB2ENR |= RCC_AHB2ENR_SRAMS;
    (void)RCC_AHB2ENR;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Core clock through the PLL from the crystal, else from the internal 16 MHz oscillator, else that oscillator itself. Every
 * wait is bounded and the port reports what the registers say was reached. QEMU 7.2 reads all of them as 0, even the bit
 * that says that the internal oscillator is ready: there the report is that oscillator. Sections are RM0090's. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define HSI_HZ 16000000u
#define WAIT_READS 20000u /* 10 ms at 16 MHz: a crystal takes 2 ms to start, the PLL 0.3 ms to lock */
#define HSI_READS 1000u   /* it runs already, or starts within 4 us */

#define PLL_VCO_HZ (2u * LMCU_BOARD_CLOCK_HZ) /* P = 2 */
#define PLL_Q (PLL_VCO_HZ / 48000000u)        /* 48 MHz for the random number generator */
#define FLASH_WAIT_STATES ((LMCU_BOARD_CLOCK_HZ - 1u) / 30000000u) /* table 10 (RM0385 table 5), 2.7 to 3.6 V */

/* Section 7.3.2: the PLL's input is source / M = 1 MHz, VCO = input * N, system clock = VCO / P. */
static bool start_pll(uint32_t source_hz, uint32_t source_bit)
{
    RCC_CR &= ~RCC_CR_PLLON;
    RCC_PLLCFGR = (source_hz / 1000000u) | ((PLL_VCO_HZ / 1000000u) << 6) | (source_bit << 22) | (PLL_Q << 24) |
                  (2u << 28); /* bits 28 to 30: the F446's R, at its reset value on both */
    RCC_CR |= RCC_CR_PLLON;
    return lmcu_reached(&RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY, WAIT_READS);
}

/* RM0385 section 4.1.4: while the core still runs from the internal oscillator, after the PLL was turned on. */
static bool over_drive(void)
{
#ifdef PWR_CR_ODEN
    PWR_CR |= PWR_CR_ODEN;
    if (!lmcu_reached(&PWR_CSR, PWR_CSR_ODRDY, PWR_CSR_ODRDY, WAIT_READS)) {
        return false;
    }
    PWR_CR |= PWR_CR_ODSWEN;
    return lmcu_reached(&PWR_CSR, PWR_CSR_ODSWRDY, PWR_CSR_ODSWRDY, WAIT_READS);
#else
    return true;
#endif
}

/* Wait states first (section 3.5.1), then the buses (APB1 a quarter, APB2 half of the core clock), then the switch. */
static bool switch_to_pll(void)
{
    FLASH_ACR = FLASH_WAIT_STATES | FLASH_ACR_CACHES;
    if (!lmcu_reached(&FLASH_ACR, 15u, FLASH_WAIT_STATES, WAIT_READS)) {
        return false;
    }
    RCC_CFGR = (5u << 10) | (4u << 13);
    RCC_CFGR |= 2u;
    return lmcu_reached(&RCC_CFGR, 3u << 2, 2u << 2, WAIT_READS);
}

/* A boot loader may have left the PLL running: back to the internal oscillator, buses undivided. */
static bool switch_to_internal(void)
{
    RCC_CR |= RCC_CR_HSION;
    if (!lmcu_reached(&RCC_CR, RCC_CR_HSIRDY, RCC_CR_HSIRDY, HSI_READS)) {
        return false;
    }
    RCC_CFGR = 0;
    return lmcu_reached(&RCC_CFGR, 3u << 2, 0, HSI_READS);
}

void lmcu_clock_init(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    port->clock_hz = HSI_HZ;
    port->clock_source = 0;
    if (!switch_to_internal()) {
        return;
    }
    RCC_APB1ENR |= 1u << 28; /* PWR */
    (void)RCC_APB1ENR;       /* section 7.2: a read back covers the delay after enabling a clock */
    PWR_CR |= PWR_CR_VOS;    /* section 5.4.1: full speed needs scale 1 */
#if LMCU_BOARD_CLOCK_INPUT
    RCC_CR |= RCC_CR_HSEBYP; /* the clock comes from the debugger's chip, not from a crystal */
#endif
    RCC_CR |= RCC_CR_HSEON;
    const bool crystal = LMCU_BOARD_CRYSTAL_HZ != 0 && lmcu_reached(&RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY, WAIT_READS);
    const bool locked = crystal ? start_pll(LMCU_BOARD_CRYSTAL_HZ, 1) : start_pll(HSI_HZ, 0);
    if (locked && over_drive() && switch_to_pll()) {
        port->clock_hz = LMCU_BOARD_CLOCK_HZ;
        port->clock_source = crystal;
    } else {
        (void)switch_to_internal();
    }
}

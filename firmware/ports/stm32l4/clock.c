/* SPDX-License-Identifier: Apache-2.0 */
/* Core clock of an STM32L4+ through the PLL from an external clock where the board has one, else from the internal 16 MHz
 * oscillator, else that oscillator, else the 4 MHz that the part starts with. Sections are RM0432's. Every wait is bounded. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define MSI_HZ 4000000u
#define HSI_HZ 16000000u
#define WAIT_READS 20000u /* 10 ms at 16 MHz */

#define PLL_INPUT_HZ 4000000u
#define PLL_N (2u * LMCU_BOARD_CLOCK_HZ / PLL_INPUT_HZ) /* the oscillator runs at twice the core's clock: R = 2 */
#define FLASH_WAIT_STATES ((LMCU_BOARD_CLOCK_HZ - 1u) / 20000000u) /* section 3.3.3, range 1 */
#define HALF_SPEED (8u << 4) /* HPRE */

/* Section 6.4.4 */
static bool start_pll(uint32_t source_hz, uint32_t source)
{
    RCC_CR &= ~RCC_CR_PLLON;
    if (!lmcu_reached(&RCC_CR, RCC_CR_PLLRDY, 0, WAIT_READS)) {
        return false;
    }
    RCC_PLLCFGR = source | (source_hz / PLL_INPUT_HZ - 1u) << 4 | PLL_N << 8 | 1u << 24; /* output R only */
    RCC_CR |= RCC_CR_PLLON;
    return lmcu_reached(&RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY, WAIT_READS);
}

/* Section 5.1.8: above 80 MHz range 1 is in boost mode, and the step up is taken at half speed for a microsecond. */
static bool switch_to_pll(void)
{
    PWR_CR5 &= ~PWR_CR5_R1MODE;
    if (!lmcu_reached(&PWR_SR2, PWR_SR2_VOSF, 0, WAIT_READS)) {
        return false;
    }
    FLASH_ACR = FLASH_WAIT_STATES | (7u << 8); /* prefetch, instruction and data cache */
    if (!lmcu_reached(&FLASH_ACR, 15u, FLASH_WAIT_STATES, WAIT_READS)) {
        return false;
    }
    RCC_CFGR = HALF_SPEED | 3u;
    if (!lmcu_reached(&RCC_CFGR, 3u << 2, 3u << 2, WAIT_READS)) {
        return false;
    }
    for (volatile uint32_t i = 0; i < 60; i++) {
    }
    RCC_CFGR = 3u;
    return true;
}

static bool switch_to_internal(void)
{
    RCC_CR |= RCC_CR_HSION;
    if (!lmcu_reached(&RCC_CR, RCC_CR_HSIRDY, RCC_CR_HSIRDY, WAIT_READS)) {
        return false;
    }
    RCC_CFGR = 1u;
    return lmcu_reached(&RCC_CFGR, 3u << 2, 1u << 2, WAIT_READS);
}

void lmcu_clock_init(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    port->clock_hz = MSI_HZ;
    port->clock_source = 0;
    RCC_APB1ENR1 |= RCC_APB1ENR1_PWREN;
    (void)RCC_APB1ENR1;
    PWR_CR2 |= PWR_CR2_IOSV; /* section 5.1.3: pins PG2 to PG15 have a supply of their own, isolated after reset */
    if (!switch_to_internal()) {
        return;
    }
    port->clock_hz = HSI_HZ;
    RCC_CRRCR |= RCC_CRRCR_HSI48ON; /* section 6.2.9: the random number generator's clock */
#if LMCU_BOARD_CLOCK_INPUT
    RCC_CR |= RCC_CR_HSEBYP;
#endif
    bool external = false;
    if (LMCU_BOARD_CRYSTAL_HZ != 0) {
        RCC_CR |= RCC_CR_HSEON;
        external = lmcu_reached(&RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY, WAIT_READS);
    }
    const bool locked = external ? start_pll(LMCU_BOARD_CRYSTAL_HZ, 3) : start_pll(HSI_HZ, 2);
    if (locked && switch_to_pll()) {
        port->clock_hz = LMCU_BOARD_CLOCK_HZ;
        port->clock_source = external;
    } else {
        (void)switch_to_internal();
    }
}

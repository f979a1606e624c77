/* SPDX-License-Identifier: Apache-2.0 */
/* Random number generator, RM0090 section 24.3. */
#include "lmcu_board.h"
#include "port_state.h"
#include "stm32.h"

/* 0 where the generator does not answer (QEMU, or no 48 MHz clock) or the part has none (STM32F446). */
uint32_t lmcu_hardware_random(void)
{
#if LMCU_BOARD_RANDOM
    RCC_RNGENR |= RCC_RNG_ENABLE;
    (void)RCC_RNGENR;
    RNG_CR = RNG_CR_RNGEN;
    if (lmcu_reached(&RNG_SR, RNG_SR_DRDY, RNG_SR_DRDY, 1000)) {
        return RNG_DR;
    }
#endif
    return 0;
}

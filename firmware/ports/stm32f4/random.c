/* SPDX-License-Identifier: Apache-2.0 */
/* Random number generator, RM0090 section 24.3. */
#include "lmcu_board.h"
#include "port_state.h"
#include "stm32f4.h"

/* 0 where the generator does not answer (QEMU, or no 48 MHz clock) or the part has none (STM32F446). */
uint32_t lmcu_hardware_random(void)
{
#if LMCU_BOARD_RANDOM
    RCC_AHB2ENR |= 1u << 6;
    (void)RCC_AHB2ENR;
    RNG_CR = RNG_CR_RNGEN;
    for (uint32_t reads = 0; reads < 1000; reads++) {
        if ((RNG_SR & RNG_SR_DRDY) != 0) {
            return RNG_DR;
        }
    }
#endif
    return 0;
}

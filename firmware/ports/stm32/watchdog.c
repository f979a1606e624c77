/* SPDX-License-Identifier: Apache-2.0 */
/* Independent watchdog, RM0090 section 21 (all families have the same registers), and the flags that tell why the part was
 * reset. Its oscillator runs at 32 kHz, but at anything from 17 to 47 kHz on an STM32F4 (data sheet, LSI). */
#include "lmcu_port.h"
#include "port_state.h"
#include "stm32.h"

#define IWDG_KR LMCU_REG(IWDG_BASE + 0x00u)
#define IWDG_PR LMCU_REG(IWDG_BASE + 0x04u)
#define IWDG_RLR LMCU_REG(IWDG_BASE + 0x08u)
#define IWDG_SR LMCU_REG(IWDG_BASE + 0x0Cu)
#define FASTEST_HZ 47000u
#define PRESCALER 256u
#define LONGEST 4096u
#define WAIT_READS 100000u /* an update takes five periods of the slow clock */

uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
    const uint32_t wanted = (ms * (FASTEST_HZ / PRESCALER) + 999u) / 1000u;
    const uint32_t count = wanted < LONGEST ? wanted : LONGEST;
    DBG_FREEZE |= DBG_FREEZE_IWDG; /* stopped by a debugger is not hung */
    IWDG_KR = 0xCCCCu; /* starts it and its oscillator */
    IWDG_KR = 0x5555u; /* opens the other registers */
    IWDG_PR = 6u;
    IWDG_RLR = count - 1u;
    (void)lmcu_reached(&IWDG_SR, 3u, 0, WAIT_READS);
    lmcu_port_watchdog_feed();
    return count * 1000u / (FASTEST_HZ / PRESCALER);
}

void lmcu_port_watchdog_feed(void)
{
    IWDG_KR = 0xAAAAu;
}

/* The flags add up until they are cleared, and the pin's is set by every cause: it comes last. */
uint32_t lmcu_hardware_reset_cause(void)
{
    const uint32_t flags = RCC_RESET_FLAGS;
    RCC_RESET_FLAGS |= RCC_RESET_CLEAR;
    if ((flags & RCC_RESET_POWER) != 0) {
        return LMCU_RESET_POWER;
    }
    if ((flags & RCC_RESET_WATCHDOG) != 0) {
        return LMCU_RESET_WATCHDOG;
    }
    if ((flags & RCC_RESET_SOFTWARE) != 0) {
        return LMCU_RESET_REQUEST;
    }
    return (flags & RCC_RESET_PIN) != 0 ? LMCU_RESET_PIN : LMCU_RESET_UNKNOWN;
}

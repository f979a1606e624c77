/* SPDX-License-Identifier: Apache-2.0 */
/* The CMSDK APB watchdog (DDI 0479, section 4.4) of the AN500: its first expiry is the NMI, which resets the part. The AN547
 * has none that this port starts. No register tells why the part was reset. */
#include "cortex_m.h"
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

#define WDOG_LOAD LMCU_REG(LMCU_BOARD_WATCHDOG_BASE + 0x000u)
#define WDOG_CONTROL LMCU_REG(LMCU_BOARD_WATCHDOG_BASE + 0x008u)
#define WDOG_CONTROL_INTERRUPT (1u << 0)
#define WDOG_CONTROL_RESET (1u << 1)
#define WDOG_INTCLR LMCU_REG(LMCU_BOARD_WATCHDOG_BASE + 0x00Cu)
#define WDOG_LOCK LMCU_REG(LMCU_BOARD_WATCHDOG_BASE + 0xC00u)
#define WDOG_UNLOCK 0x1ACCE551u

uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
#if LMCU_BOARD_WATCHDOG_BASE
    const uint32_t longest = 0xFFFFFFFFu / (LMCU_BOARD_CLOCK_HZ / 1000u);
    const uint32_t period = ms < longest ? ms : longest;
    WDOG_LOCK = WDOG_UNLOCK;
    WDOG_LOAD = period * (LMCU_BOARD_CLOCK_HZ / 1000u);
    WDOG_CONTROL = WDOG_CONTROL_INTERRUPT | WDOG_CONTROL_RESET;
    return period;
#else
    (void)ms;
    return 0;
#endif
}

/* Any write loads the counter again. */
void lmcu_port_watchdog_feed(void)
{
#if LMCU_BOARD_WATCHDOG_BASE
    WDOG_LOCK = WDOG_UNLOCK;
    WDOG_INTCLR = 1;
#endif
}

uint32_t lmcu_hardware_reset_cause(void)
{
    return LMCU_RESET_UNKNOWN;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The low-power watchdog (ESP32-C3 technical reference manual, chapters "watchdog timers" and "reset and clock"): it counts the
 * slow oscillator of about 136 kHz, at least doubled by an eFuse. Its first stage resets the part. */
#include "esp32c3.h"
#include "lmcu_port.h"
#include "port_state.h"

#define FASTEST_HZ 150000u

uint32_t lmcu_port_watchdog_start(uint32_t ms)
{
    const uint32_t longest = 0xFFFFFFFFu / (FASTEST_HZ / 1000u);
    const uint32_t period = ms < longest ? ms : longest;
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_CONFIG1 = period * (FASTEST_HZ / 1000u) / 2u;
    RTC_WDT_CONFIG0 = RTC_WDT_CONFIG0_ENABLE | RTC_WDT_CONFIG0_RESET;
    RTC_WDT_FEED = RTC_WDT_FEED_NOW;
    RTC_WDT_PROTECT = 0;
    return period;
}

void lmcu_port_watchdog_feed(void)
{
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_FEED = RTC_WDT_FEED_NOW;
    RTC_WDT_PROTECT = 0;
}

uint32_t lmcu_hardware_reset_cause(void)
{
    switch (RTC_RESET_STATE & RTC_RESET_STATE_CAUSE) {
    case 0x01: /* chip */
    case 0x0F: /* brown-out */
        return LMCU_RESET_POWER;
    case 0x03: /* software, the system */
    case 0x0C: /* software, the core */
        return LMCU_RESET_REQUEST;
    case 0x07: /* timer group 0, system */
    case 0x08: /* timer group 1, system */
    case 0x09: /* low-power watchdog, system */
    case 0x0B: /* timer group 0, core */
    case 0x0D: /* low-power watchdog, core */
    case 0x10: /* low-power watchdog, all */
    case 0x11: /* timer group 1, core */
    case 0x12: /* super watchdog */
        return LMCU_RESET_WATCHDOG;
    default:
        return LMCU_RESET_UNKNOWN;
    }
}

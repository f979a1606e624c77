/* SPDX-License-Identifier: Apache-2.0 */
/* The few registers that the port uses; chapters are those of the ESP32-C3 technical reference manual. */
#ifndef LMCU_ESP32C3_H
#define LMCU_ESP32C3_H

#include <stdint.h>

#define LMCU_REG(address) (*(volatile uint32_t *)(address))

/* UART controller: UART0 */
#define UART_FIFO LMCU_REG(0x60000000u)
#define UART_CLKDIV LMCU_REG(0x60000014u) /* integer part, sixteenths from bit 20 */
#define UART_STATUS LMCU_REG(0x6000001Cu)
#define UART_STATUS_RX_COUNT(status) ((status) & 0x3FFu)
#define UART_STATUS_TX_COUNT(status) (((status) >> 16) & 0x3FFu)
#define UART_CONF0 LMCU_REG(0x60000020u)
#define UART_CONF0_FORMAT 0x3Fu /* parity, bits, stop bits */
#define UART_CONF0_8N1 0x1Cu
#define UART_CLK_CONF LMCU_REG(0x60000078u)
#define UART_CLK_CONF_DIVIDERS 0x000FFFFFu
#define UART_CLK_CONF_XTAL (3u << 20)
#define UART_CLK_CONF_ENABLE ((1u << 22) | (1u << 24) | (1u << 25)) /* core, transmitter, receiver */
#define UART_ID LMCU_REG(0x60000080u)
#define UART_ID_UPDATE (1u << 31) /* takes the settings over; the UART clears it */

/* Low-power management: RTC_CNTL */
#define RTC_OPTIONS0 LMCU_REG(0x60008000u)
#define RTC_OPTIONS0_RESET (1u << 31)
#define RTC_RESET_STATE LMCU_REG(0x60008038u)
#define RTC_RESET_STATE_CAUSE 0x3Fu
#define RTC_WDT_CONFIG0 LMCU_REG(0x60008090u)
#define RTC_WDT_CONFIG0_ENABLE (1u << 31)
#define RTC_WDT_CONFIG0_RESET (3u << 28 | 7u << 13) /* stage 0 resets the system, for 3.2 us */
#define RTC_WDT_CONFIG1 LMCU_REG(0x60008094u)
#define RTC_WDT_FEED LMCU_REG(0x600080A4u)
#define RTC_WDT_FEED_NOW (1u << 31)
#define RTC_WDT_PROTECT LMCU_REG(0x600080A8u)
#define RTC_SWD_CONF LMCU_REG(0x600080ACu)
#define RTC_SWD_CONF_FEED (1u << 31)
#define RTC_SWD_PROTECT LMCU_REG(0x600080B0u)

/* Timer group (watchdog timers) */
#define TIMG_WDT_CONFIG0(group) LMCU_REG(0x6001F048u + 0x1000u * (group))
#define TIMG_WDT_PROTECT(group) LMCU_REG(0x6001F064u + 0x1000u * (group))
#define WDT_KEY 0x50D83AA1u
#define SWD_KEY 0x8F1D312Au

/* System timer, unit 0: 52 bits at 16 MHz */
#define SYSTIMER_OP LMCU_REG(0x60023004u)
#define SYSTIMER_OP_UPDATE (1u << 30)
#define SYSTIMER_OP_VALID (1u << 29)
#define SYSTIMER_HIGH LMCU_REG(0x60023040u)
#define SYSTIMER_LOW LMCU_REG(0x60023044u)
#define SYSTIMER_HZ 16000000u

/* Random number generator; System registers (clock) */
#define RNG_DATA LMCU_REG(0x600260B0u)
#define SYSTEM_SYSCLK_CONF LMCU_REG(0x600C0058u)
#define SYSTEM_SYSCLK_CONF_CHOICE 0xFFFu /* source 0 is the crystal; below it the divider less one */

#endif

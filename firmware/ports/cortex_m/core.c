/* SPDX-License-Identifier: Apache-2.0 */
/* Boot, ticks, sleep, reset of a Cortex-M. */
#include "cortex_m.h"
#include "lmcu_port.h"
#include "port_state.h"

#define TICK_PERIOD 0x1000000u /* SysTick has 24 bits; it counts down from period - 1 */

static uint32_t disable_interrupts(void)
{
    uint32_t primask;
    __asm volatile("mrs %0, primask\n\tcpsid i" : "=r"(primask)::"memory");
    return primask;
}

static void restore_interrupts(uint32_t primask)
{
    __asm volatile("msr primask, %0" ::"r"(primask) : "memory");
}

void lmcu_port_init(void)
{
    lmcu_boot_count();
    lmcu_clock_init();
    lmcu_tick_init();
    lmcu_serial_init();
}

void lmcu_tick_init(void)
{
    SYST_RVR = TICK_PERIOD - 1;
    SYST_CVR = 0;
    SYST_CSR = 7; /* core clock, interrupt, enable */
    for (uint32_t reads = 0; reads < 1000 && SYST_CVR == 0; reads++) {
    }
}

void lmcu_tick_interrupt(void)
{
    lmcu_port_state.fields.tick_wraps++;
}

/* The interrupt becomes pending when the counter reaches 0, so 0 is the first tick of the next period. A pending
 * interrupt is a wrap that is not counted yet, and so is a 0 whose interrupt has not come up yet. */
uint64_t lmcu_port_ticks(void)
{
    const uint32_t primask = disable_interrupts();
    uint64_t wraps = lmcu_port_state.fields.tick_wraps;
    uint32_t value = SYST_CVR;
    if ((SCB_ICSR & SCB_ICSR_PENDSTSET) != 0) {
        value = SYST_CVR;
        wraps++;
    } else if (value == 0) {
        wraps++;
    }
    restore_interrupts(primask);
    return wraps * TICK_PERIOD + (value == 0 ? 0 : TICK_PERIOD - value);
}

/* The serial interrupt fills the ring whatever the core does. */
uint32_t lmcu_port_rx_bytes(void)
{
    return LMCU_RX_RING_BYTES;
}

/* A byte between the caller's last read and here is seen by the comparison; one after it is pending and ends WFI even
 * though interrupts are masked. SysTick ends it after a period at the latest. */
void lmcu_port_idle(void)
{
    const uint32_t primask = disable_interrupts();
    if (lmcu_port_state.fields.rx_head == lmcu_port_state.fields.rx_tail) {
        __asm volatile("dsb\n\twfi" ::: "memory");
    }
    restore_interrupts(primask);
}

void lmcu_port_reset(void)
{
    lmcu_serial_drain();
    lmcu_port_state.fields.reset_note = LMCU_RESET_NOTE | LMCU_RESET_REQUEST;
    __asm volatile("cpsid i\n\tdsb" ::: "memory");
    SCB_AIRCR = SCB_AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

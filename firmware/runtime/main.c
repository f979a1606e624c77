/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware's main loop. */
#include "lmcu_strict.h"

#include "lmcu_port.h"
#include "protocol.h"
#include "store.h"

/* The longest that the watchdog waits for is one operator, or one erase. */
void lmcu_layer_done(void)
{
    lmcu_port_watchdog_feed();
}

int lmcu_main(void)
{
    lmcu_port_init();
    const lmcu_status_t status = lmcu_init();
    (void)status; /* FLOAT_ENV: HELLO says so, training is refused, inference works */
    lmcu_slot_boot();
    lmcu_link_init();
    (void)lmcu_port_watchdog_start(LMCU_WATCHDOG_MS); /* 0: this port has none */
    for (;;) {
        lmcu_port_watchdog_feed();
        if (!lmcu_link_poll()) {
            lmcu_port_idle();
        }
    }
}

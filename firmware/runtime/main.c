/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware's main loop. */
#include "lmcu_strict.h"

#include "lmcu_port.h"
#include "protocol.h"
#include "store.h"

int lmcu_main(void)
{
    lmcu_port_init();
    const lmcu_status_t status = lmcu_init();
    (void)status; /* FLOAT_ENV: HELLO says so, training is refused, inference works */
    lmcu_slot_boot();
    lmcu_link_init();
    for (;;) {
        if (!lmcu_link_poll()) {
            lmcu_port_idle();
        }
    }
}

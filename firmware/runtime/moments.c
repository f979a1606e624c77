/* SPDX-License-Identifier: Apache-2.0 */
/* The moments at which a program may have something to do, for one that has not. */
#include "lmcu.h"
#include "store.h"

__attribute__((weak)) void lmcu_layer_done(void)
{
}

__attribute__((weak)) void lmcu_before_erase(uint32_t ms)
{
    (void)ms;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The moment between two operators, for a program that has nothing to do in it. */
#include "lmcu.h"

__attribute__((weak)) void lmcu_layer_done(void)
{
}

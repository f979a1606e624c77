/* SPDX-License-Identifier: Apache-2.0 */
/* memcpy and friends: the host's own, or mem.c where there is no C library (LMCU_FREESTANDING). */
#ifndef LMCU_MEM_H
#define LMCU_MEM_H

#if defined(LMCU_FREESTANDING)
#include <stddef.h>
void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
int memcmp(const void *a, const void *b, size_t count);
#else
#include <string.h>
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* First include of every runtime file: the promised bytes need plain IEEE float32, every operation rounded once. */
#ifndef LMCU_STRICT_H
#define LMCU_STRICT_H

#if defined(__FAST_MATH__)
#error "lmcu: -ffast-math changes results; build the runtime without it"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "lmcu: float must be evaluated as float (FLT_EVAL_METHOD 0); on x86 use -msse2 -mfpmath=sse"
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
/* GCC ignores the standard pragma; outside -std=c99 it would fuse a * b + c wherever the core has an FMA. */
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__GNUC__)
#define LMCU_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define LMCU_NOINLINE __attribute__((noinline))
#else
#define LMCU_NOINLINE __attribute__((noinline, noclone)) /* GCC would make copies for constant arguments instead */
#endif
#else
#define LMCU_INLINE static inline
#define LMCU_NOINLINE
#endif

#endif

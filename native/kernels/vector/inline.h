/* How a kernel's inner functions and loops are told to dissolve into it. */
#ifndef SMESIM_INLINE_H
#define SMESIM_INLINE_H

#define SMS_INLINE static inline __attribute__((always_inline, unused))
#define SMS_PRAGMA(text) _Pragma(#text)
#define SMS_UNROLL(count) SMS_PRAGMA(GCC unroll count)

/* Of a function that Arm's streaming mode may call too. */
#if defined(__ARM_FEATURE_SME)
#define SMS_ANY_MODE __arm_streaming_compatible
#else
#define SMS_ANY_MODE
#endif

#endif

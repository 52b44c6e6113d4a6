/* A vector of SMS_LANES floats, in the vector extension that gcc and clang share; one lane is plain C.
 *
 * Everything in this folder is written against these few names, so that one source serves every width. An
 * ISA's file defines its width and block sizes and includes table.h. Intrinsics stand only where a compiler
 * does not find the instruction by itself. */
#ifndef SMESIM_VEC_H
#define SMESIM_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "inline.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if SMS_LANES == 1
typedef float vf;
typedef double vd;
typedef int32_t vi;
typedef uint32_t vu;
typedef float vf_unaligned;
SMS_INLINE vf v_set(float s) { return s; }
#else
typedef float vf __attribute__((vector_size(4 * SMS_LANES)));
typedef double vd __attribute__((vector_size(4 * SMS_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * SMS_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * SMS_LANES)));
typedef float vf_unaligned __attribute__((vector_size(4 * SMS_LANES), aligned(4), may_alias));
SMS_INLINE vf v_set(float s) { return s - (vf){0}; }
#endif

SMS_INLINE vf v_load(const float *p) { return *(const vf_unaligned *)p; }
SMS_INLINE void v_store(float *p, vf x) { *(vf_unaligned *)p = x; }

SMS_INLINE vi v_bits(vf x) {
    vi bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

SMS_INLINE vf v_of_bits(vi bits) {
    vf x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* a > b ? a : b, so b where either is NaN. */
SMS_INLINE vf v_max(vf a, vf b) {
#if SMS_LANES == 16 && defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif SMS_LANES == 8 && defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif SMS_LANES == 1
    return a > b ? a : b;
#else
    const vi take = a > b;
    return v_of_bits((v_bits(a) & take) | (v_bits(b) & ~take));
#endif
}

/* a < b ? a : b, so b where either is NaN. */
SMS_INLINE vf v_min(vf a, vf b) {
#if SMS_LANES == 16 && defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif SMS_LANES == 8 && defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return -v_max(-a, -b);
#endif
}

SMS_INLINE float v_sum(vf x) {
    float lane[SMS_LANES];
    v_store(lane, x);
    for (int half = SMS_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

SMS_INLINE float v_largest(vf x) {
    float lane[SMS_LANES];
    v_store(lane, x);
    for (int half = SMS_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

/* 2^n of a normal exponent; anything for the others. */
SMS_INLINE vf v_power_of_two(vi n) {
    enum { EXPONENT_BIAS = 127, EXPONENT_SHIFT = 23 };
    return v_of_bits((vi)((vu)(n + EXPONENT_BIAS) << EXPONENT_SHIFT));
}

/* e^x to 1.5 ulp; 0 below the denormals, infinity above the largest float, NaN for NaN.
 * x = n ln2 + f with |f| <= ln2 / 2 (Cody and Waite's split of ln2), e^f = 1 + f + f^2 q(f) with q of least
 * relative error (Chebyshev fit, 8e-9), in Estrin's order because its chain is the shorter one, and 2^n in
 * two factors so that neither end of the range is lost. */
SMS_INLINE vf v_exp(vf x) {
    const float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    const float ROUND_TO_INTEGER = 12582912.0f; /* 1.5 * 2^23: its last bit is worth one */
    enum { ROUND_TO_INTEGER_BITS = 0x4b400000 };
    x = v_min(v_set(89.0f), v_max(v_set(-104.0f), x));
    const vf shifted = x * LOG2E + ROUND_TO_INTEGER;
    const vf n = shifted - ROUND_TO_INTEGER;
    const vf f = (x - n * LN2_HIGH) - n * LN2_LOW;
    const vf square = f * f;
    const vf high = square * 1.3926175888627768e-3f + (f * 8.363173343241215e-3f + 4.1666556149721146e-2f);
    const vf q = high * square + (f * 0.16666577756404877f + 0.5f);
    const vf fraction = q * square + (f + 1.0f);
    const vi power = v_bits(shifted) - ROUND_TO_INTEGER_BITS;
    const vi half = power >> 1;
    return fraction * v_power_of_two(half) * v_power_of_two(power - half);
}

#endif

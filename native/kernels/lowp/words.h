/* A word is 32 bits that hold a group of neighbouring k: two bf16 or four int8 (layout_lowp.h).
 *
 * Where an ISA multiplies whole words (SMS_BF16_DOT, SMS_S8_DOT), a product takes them as they are. Where it
 * does not, a word is split into two parts that it can multiply: a bf16 pair into two f32, four int8 into two
 * pairs of int16, the even k in part 0 and the odd k in part 1. A word and its parts stay in the lane of their
 * column, so the sums need no shuffling. An ISA that has word products defines them before this file is included:
 *
 *   vf isa_dot_bf16(vf sum, vi b, vi a)
 *   vi isa_dot_s8(vi sum, vi b, vi a)   the bytes of b signed, those of a unsigned: a is offset by 128 */
#ifndef SMESIM_WORDS_H
#define SMESIM_WORDS_H

#include <math.h>

#include "../vector/vec.h"

enum sms_number { SMS_BF16, SMS_S8 };

#define SMS_OFFSET_BYTES ((int32_t)0x80808080) /* 128 in each byte; added to signed ones by exclusive or */

typedef uint16_t vu16 __attribute__((vector_size(4 * SMS_LANES)));
typedef int16_t vi16 __attribute__((vector_size(4 * SMS_LANES)));
#if SMS_LANES == 1
typedef int32_t word_unaligned __attribute__((may_alias));
SMS_INLINE vi w_set(int32_t word) { return word; }
#else
typedef int32_t word_unaligned __attribute__((vector_size(4 * SMS_LANES), aligned(4), may_alias));
SMS_INLINE vi w_set(int32_t word) { return word - (vi){0}; }
#endif
typedef int32_t sms_word __attribute__((may_alias));

SMS_INLINE vi w_load(const sms_word *p) { return *(const word_unaligned *)p; }
SMS_INLINE void w_store(sms_word *p, vi words) { *(word_unaligned *)p = words; }

SMS_INLINE vf v_add(vf a, vf b) { return a + b; }
/* Integer sums wrap around. */
SMS_INLINE vi w_add(vi a, vi b) { return (vi)((vu)a + (vu)b); }
SMS_INLINE vi w_subtract(vi a, vi b) { return (vi)((vu)a - (vu)b); }

/* Into how many parts a word is split. */
SMS_INLINE int w_parts(const enum sms_number number) {
    return (number == SMS_BF16 ? SMS_BF16_DOT : SMS_S8_DOT) ? 1 : 2;
}

/* One bf16 of each word as f32. */
SMS_INLINE vf w_widened(vi words, const int part) {
    return v_of_bits(part == 0 ? (vi)((vu)words << 16) : (vi)((vu)words & 0xffff0000u));
}

/* What one product takes of each word. */
SMS_INLINE vi w_part(const enum sms_number number, vi words, const int part) {
    if (w_parts(number) == 1)
        return words;
    if (number == SMS_BF16)
        return v_bits(w_widened(words, part));
    vi16 bytes;
    memcpy(&bytes, &words, sizeof bytes);
    bytes = (part == 0 ? (vi16)((vu16)bytes << 8) : bytes) >> 8;
    memcpy(&words, &bytes, sizeof words);
    return words;
}

/* a * b + c with one rounding. */
SMS_INLINE vf v_fma(vf a, vf b, vf c) {
#if SMS_LANES == 16 && defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif SMS_LANES == 8 && defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif SMS_LANES == 1
    return fmaf(a, b, c);
#else
    for (int lane = 0; lane < SMS_LANES; lane++)
        a[lane] = fmaf(a[lane], b[lane], c[lane]);
    return a;
#endif
}

/* Sums of two products of int16. */
SMS_INLINE vi w_multiply_pairs(vi a, vi b) {
#if SMS_LANES == 8 && defined(__AVX2__)
    return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    const vi a_low = (vi)((vu)a << 16) >> 16, b_low = (vi)((vu)b << 16) >> 16;
    return a_low * b_low + (a >> 16) * (b >> 16);
#endif
}

/* sum + b * a of parts; b is of the rhs, a of the lhs. */
SMS_INLINE vf w_dot_bf16(vf sum, vi b, vi a) {
#if SMS_BF16_DOT
    return isa_dot_bf16(sum, b, a);
#else
    return sum + v_of_bits(b) * v_of_bits(a);
#endif
}

SMS_INLINE vi w_dot_s8(vi sum, vi b, vi a) {
#if SMS_S8_DOT
    return isa_dot_s8(sum, b, a);
#else
    return w_add(sum, w_multiply_pairs(b, a));
#endif
}

SMS_INLINE vf w_to_float(vi integers) {
#if SMS_LANES == 1
    return (float)integers;
#else
    return __builtin_convertvector(integers, vf);
#endif
}

/* What integer sums stand for. The one place where it is said, and in operations that round alike everywhere. */
SMS_INLINE vf w_scaled(vi sum, float row_scale, vf column_scale, vf bias) {
    return v_fma(w_to_float(sum), column_scale * row_scale, bias);
}

#endif

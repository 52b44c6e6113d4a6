/* A word is 32 bits that hold a group of neighbouring k: two bf16 or f16, or four int8 (layout_lowp.h).
 *
 * Where an ISA multiplies whole words (SMS_BF16_DOT, SMS_S8_DOT), a product takes them as they are. Where it
 * does not, a word is split into two parts that it can multiply: a pair of bf16 or f16 into two f32, four int8 into
 * two pairs of int16, the even k in part 0 and the odd k in part 1. f16 are split everywhere. A word and its parts
 * stay in the lane of their column, so the sums need no shuffling. An ISA that has word products defines them before
 * this file is included:
 *
 *   vf isa_dot_bf16(vf sum, vi b, vi a)
 *   vi isa_dot_s8(vi sum, vi b, vi a)   of signed bytes; with SMS_S8_OFFSET those of a are unsigned, offset by 128 */
#ifndef SMESIM_WORDS_H
#define SMESIM_WORDS_H

#include <math.h>

#include "../vector/vec.h"
#include "smesim/layout_lowp.h"

#if SMS_LANES == 4 && defined(__ARM_NEON)
#define SMS_IS_NEON 1
#include <arm_neon.h>
#else
#define SMS_IS_NEON 0
#endif

enum sms_number { SMS_BF16, SMS_F16, SMS_S8 };

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
/* Word r of a for all lanes. NEON multiplies by one lane of a register, so words are loaded in fours there: up to three
 * behind the last row must be readable. */
SMS_INLINE vi w_row(const sms_word *a, int r) {
#if SMS_IS_NEON
    return w_set(w_load(a + r / SMS_LANES * SMS_LANES)[r % SMS_LANES]);
#else
    return w_set(a[r]);
#endif
}

SMS_INLINE void w_store(sms_word *p, vi words) { *(word_unaligned *)p = words; }

SMS_INLINE vf v_add(vf a, vf b) { return a + b; }
/* Integer sums wrap around. */
SMS_INLINE vi w_add(vi a, vi b) { return (vi)((vu)a + (vu)b); }
SMS_INLINE vi w_subtract(vi a, vi b) { return (vi)((vu)a - (vu)b); }

/* How many k a word holds. */
SMS_INLINE int64_t w_group(const enum sms_number number) {
    return number == SMS_BF16 ? SMS_BF16_GROUP : number == SMS_F16 ? SMS_F16_GROUP : SMS_S8_GROUP;
}

/* Into how many parts a word is split. */
SMS_INLINE int w_parts(const enum sms_number number) {
    const int dot = number == SMS_BF16 ? SMS_BF16_DOT : number == SMS_S8 ? SMS_S8_DOT : 0;
    return dot ? 1 : 2;
}

/* Whether the word products of the lhs take it offset to unsigned bytes. */
SMS_INLINE int w_offset(const enum sms_number number) { return number == SMS_S8 && SMS_S8_OFFSET; }

/* The f16 in the lower half of each word as f32: the exponent is moved by a product, which also brings denormals to
 * where they belong; what is not finite gets the exponent that says so. */
SMS_INLINE vf w_f16_by_arithmetic(vi words) {
    enum { DROPPED_BITS = 13, F16_MAGNITUDE = 0x7fff, F16_LARGEST = 0x7bff, F16_SIGN = 0x8000 };
    const float EXPONENT_SHIFT = 0x1p112f;
    const vi magnitude = words & F16_MAGNITUDE;
    const vi sign = (vi)((vu)(words & F16_SIGN) << 16);
#if SMS_LANES == 1
    const vi not_finite = -(magnitude > F16_LARGEST);
#else
    const vi not_finite = magnitude > F16_LARGEST;
#endif
    const vi bits = v_bits(v_of_bits(magnitude << DROPPED_BITS) * EXPONENT_SHIFT);
    return v_of_bits(bits | sign | (not_finite & 0x7f800000));
}

/* Neighbouring f16 as f32. */
SMS_INLINE vf w_halves(const uint16_t *p) {
#if SMS_LANES == 16 && defined(__AVX512F__)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif SMS_LANES == 8 && defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#elif SMS_IS_NEON
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#elif SMS_LANES == 1
    return w_f16_by_arithmetic(*p);
#else
    typedef uint16_t halves __attribute__((vector_size(2 * SMS_LANES)));
    halves numbers;
    memcpy(&numbers, p, sizeof numbers);
    return w_f16_by_arithmetic(__builtin_convertvector(numbers, vi));
#endif
}

/* One f16 of each word as f32. */
SMS_INLINE vf w_widened_f16(vi words, const int part) {
#if SMS_LANES == 16 && defined(__AVX512F__)
    const __m512i numbers = part == 0 ? (__m512i)words : _mm512_srli_epi32((__m512i)words, 16);
    return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(numbers));
#elif SMS_LANES == 8 && defined(__F16C__)
    const __m128i of_four = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i sorted = _mm256_shuffle_epi8((__m256i)words, _mm256_broadcastsi128_si256(of_four));
    const __m256i numbers = part == 0 ? _mm256_permute4x64_epi64(sorted, _MM_SHUFFLE(2, 0, 2, 0))
                                      : _mm256_permute4x64_epi64(sorted, _MM_SHUFFLE(3, 1, 3, 1));
    return (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(numbers));
#elif SMS_IS_NEON
    const uint16x4_t numbers = part == 0 ? vmovn_u32((uint32x4_t)words) : vshrn_n_u32((uint32x4_t)words, 16);
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(numbers));
#else
    return w_f16_by_arithmetic(part == 0 ? words : (vi)((vu)words >> 16));
#endif
}

/* One bf16 or f16 of each word as f32. */
SMS_INLINE vf w_widened(const enum sms_number number, vi words, const int part) {
    if (number == SMS_F16)
        return w_widened_f16(words, part);
    return v_of_bits(part == 0 ? (vi)((vu)words << 16) : (vi)((vu)words & 0xffff0000u));
}

/* What one product takes of each word. */
SMS_INLINE vi w_part(const enum sms_number number, vi words, const int part) {
    if (w_parts(number) == 1)
        return words;
    if (number != SMS_S8)
        return v_bits(w_widened(number, words, part));
#if SMS_LANES == 8 && defined(__AVX2__)
    if (part == 0) /* the sum of one times the even byte and zero times the odd one */
        return (vi)_mm256_maddubs_epi16(_mm256_set1_epi16(1), (__m256i)words);
#endif
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
#elif SMS_LANES == 4 && defined(__FMA__)
    return (vf)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#elif SMS_IS_NEON
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
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
#elif SMS_LANES == 4 && defined(__AVX2__)
    return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const vi a_low = (vi)((vu)a << 16) >> 16, b_low = (vi)((vu)b << 16) >> 16;
    return a_low * b_low + (a >> 16) * (b >> 16);
#endif
}

/* sum + b * a of parts; b is of the rhs, a of the lhs. */
SMS_INLINE vf w_dot_widened(vf sum, vi b, vi a) { return sum + v_of_bits(b) * v_of_bits(a); }

SMS_INLINE vf w_dot_float(const enum sms_number number, vf sum, vi b, vi a) {
#if SMS_BF16_DOT
    if (number == SMS_BF16)
        return isa_dot_bf16(sum, b, a);
#endif
    (void)number;
    return w_dot_widened(sum, b, a);
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

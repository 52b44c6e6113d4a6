/* Numbers of f32 and words of bf16 or f16 brought together, nothing of either lost: bf16 are multiplied in pairs, so an
 * f32 is split into the three bf16 that it is the sum of, its first, middle and last eight bits; f16 are widened.
 *
 * A part that is zero would make a NaN of an infinite weight, where f32 makes an infinity. In its place is next to
 * nothing: 2^-40 of the number, of which the sums in f32 know 24 bits. */
#ifndef SMESIM_SME_SPLIT_H
#define SMESIM_SME_SPLIT_H

#include "words.h"

enum { SMS_SPLIT_PARTS = 3 };

/* The bf16 that begins x, as f32; of a NaN one that is a NaN. */
SMS_INLINE svfloat32_t sms_upper_half(svfloat32_t x) __arm_streaming {
    const svbool_t all = svptrue_b32();
    const svuint32_t bits = svand_n_u32_x(all, svreinterpret_u32_f32(x), 0xffff0000u);
    return svreinterpret_f32_u32(svorr_n_u32_m(svcmpuo_f32(all, x, x), bits, 0x00400000u));
}

/* What of x its upper half leaves; `least` where that is nothing or not finite. */
SMS_INLINE svfloat32_t sms_rest(svfloat32_t x, svfloat32_t upper, svfloat32_t least) __arm_streaming {
    const svbool_t all = svptrue_b32(), finite = svcmplt_n_f32(all, svabs_f32_x(all, x), __builtin_inff());
    const svfloat32_t rest = svsub_f32_z(finite, x, upper);
    return svsel_f32(svcmpeq_n_f32(all, rest, 0.0f), least, rest);
}

/* The upper halves of two vectors that lie one after another, as words. */
SMS_INLINE svfloat32_t sms_halves(svfloat32_t x, svfloat32_t next) __arm_streaming {
    return svreinterpret_f32_u16(svuzp2_u16(svreinterpret_u16_f32(x), svreinterpret_u16_f32(next)));
}

/* Each pair of x[count] as three words, one of each part side by side; an odd number is filled up with zero. */
SMS_INLINE void sms_split(const float *x, int64_t count, float *words) __arm_streaming {
    const float LEAST = 0x1p-40f;
    const int64_t lanes = (int64_t)svcntw(), pairs = sms_ceil_div(count, SMS_BF16_GROUP);
    for (int64_t i = 0; i < pairs; i += lanes) {
        const int64_t at = i * SMS_BF16_GROUP;
        const svfloat32_t a = svld1_f32(sms_lanes_until(at, count), x + at);
        const svfloat32_t b = svld1_f32(sms_lanes_until(at + lanes, count), x + at + lanes);
        const svfloat32_t a_first = sms_upper_half(a), b_first = sms_upper_half(b);
        const svfloat32_t a_least = svmul_n_f32_x(svptrue_b32(), a_first, LEAST);
        const svfloat32_t b_least = svmul_n_f32_x(svptrue_b32(), b_first, LEAST);
        const svfloat32_t a_rest = sms_rest(a, a_first, a_least), b_rest = sms_rest(b, b_first, b_least);
        const svfloat32_t a_middle = sms_upper_half(a_rest), b_middle = sms_upper_half(b_rest);
        const svfloat32_t a_last = sms_rest(a_rest, a_middle, a_least), b_last = sms_rest(b_rest, b_middle, b_least);
        svst3_f32(sms_lanes_until(i, pairs), words + SMS_SPLIT_PARTS * i,
                  svcreate3_f32(sms_halves(a_first, b_first), sms_halves(a_middle, b_middle),
                                sms_halves(a_last, b_last)));
    }
}

/* The f16 number `which` of each word as f32. */
SMS_INLINE svfloat32_t sms_f16_of_word(svfloat32_t words, const int which) __arm_streaming {
    const svfloat16_t numbers = svreinterpret_f16_f32(words);
    return which == 0 ? svcvt_f32_f16_x(svptrue_b32(), numbers) : svcvtlt_f32_f16_x(svptrue_b32(), numbers);
}

SMS_INLINE svfloat32x4_t sms_widened_f16(svfloat32x4_t words, const int which) __arm_streaming {
    return svcreate4_f32(sms_f16_of_word(svget4_f32(words, 0), which), sms_f16_of_word(svget4_f32(words, 1), which),
                         sms_f16_of_word(svget4_f32(words, 2), which), sms_f16_of_word(svget4_f32(words, 3), which));
}

#endif

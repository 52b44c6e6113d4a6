/* What the matrix unit can do at best: outer products of ones into all four tiles in turn. The sum of all of ZA shows
 * that they were done. */
#ifndef SMESIM_SME_MEASURE_H
#define SMESIM_SME_MEASURE_H

#include "tile.h"

SMS_INLINE void sms_outer_products(const enum sms_number number, int64_t iterations) SMS_IN_ZA {
    static const uint32_t one[] = {
        [SMS_F32] = 0x3f800000, [SMS_BF16] = 0x3f803f80, [SMS_F16] = 0x3c003c00, [SMS_S8] = 0x01010101};
    const svfloat32_t ones = svreinterpret_f32_u32(svdup_u32(one[number]));
    svzero_za();
    for (int64_t i = 0; i < iterations; i++)
        SMS_OUTER_2X2(number, ones, ones, ones, ones);
}

SMS_INLINE float sms_sum_of_za(void) SMS_IN_ZA {
    float row[SMS_LONGEST_VECTOR];
    svfloat32_t sum = svdup_f32(0.0f);
    for (uint32_t i = 0; i < svcntb(); i++) {
        svstr_za(i, row);
        sum = svadd_f32_x(svptrue_b32(), sum, svld1_f32(svptrue_b32(), row));
    }
    return svaddv_f32(svptrue_b32(), sum);
}

SMS_INLINE int32_t sms_count_of_za(void) SMS_IN_ZA {
    int32_t row[SMS_LONGEST_VECTOR];
    svint32_t count = svdup_s32(0);
    for (uint32_t i = 0; i < svcntb(); i++) {
        svstr_za(i, row);
        count = svadd_s32_x(svptrue_b32(), count, svld1_s32(svptrue_b32(), row));
    }
    return (int32_t)svaddv_s32(svptrue_b32(), count);
}

#endif

/* Which rows of a tile of two vectors by two lie in which half of ZA.
 *
 * With SME2 rows of a vector follow one another. SME alone has no load of two vectors one after another, but one that
 * gives the even elements of both to one register and the odd ones to the other, and saves an instruction likewise. So
 * the even rows are in one half and the odd ones in the other, and are stored where they belong. */
#ifndef SMESIM_SME_ROWS_H
#define SMESIM_SME_ROWS_H

#include "accumulators.h"

#if defined(__ARM_FEATURE_SME2)
SMS_INLINE struct sms_pair sms_first_rows(int64_t column) __arm_streaming {
    return (struct sms_pair){.row = 0, .step = 1, .column = column};
}

SMS_INLINE struct sms_pair sms_second_rows(int64_t column) __arm_streaming {
    return (struct sms_pair){.row = (int64_t)svcntw(), .step = 1, .column = column};
}

/* The rows of both halves at word k, which a points at. */
SMS_INLINE svfloat32x2_t sms_rows_load(const struct sms_tile *t, const float *a, int64_t k) __arm_streaming {
    const int64_t lanes = (int64_t)svcntw();
    (void)k;
    return svcreate2_f32(svld1_f32(sms_lanes_until(0, t->rows), a),
                         svld1_f32(sms_lanes_until(lanes, t->rows), a + lanes));
}
#else
SMS_INLINE struct sms_pair sms_first_rows(int64_t column) __arm_streaming {
    return (struct sms_pair){.row = 0, .step = 2, .column = column};
}

SMS_INLINE struct sms_pair sms_second_rows(int64_t column) __arm_streaming {
    return (struct sms_pair){.row = 1, .step = 2, .column = column};
}

/* The rows of both halves at word k, which a points at. Beside the last of an odd number of rows the load finds some
 * number that is there for something else, but at the last k there may be none. */
SMS_INLINE svfloat32x2_t sms_rows_load(const struct sms_tile *t, const float *a, int64_t k) __arm_streaming {
    const int64_t lanes = (int64_t)svcntw();
    if (t->rows % 2 == 0 || k + 1 < t->depth)
        return svld2_f32(sms_lanes_until(0, sms_ceil_div(t->rows, 2)), a);
    const svfloat32_t low = svld1_f32(sms_lanes_until(0, t->rows), a);
    const svfloat32_t high = svld1_f32(sms_lanes_until(lanes, t->rows), a + lanes);
    return svcreate2_f32(svuzp1_f32(low, high), svuzp2_f32(low, high));
}
#endif

#endif

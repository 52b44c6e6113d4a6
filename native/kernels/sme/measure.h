/* What the matrix unit can do at best: outer products into all four tiles in turn. */
#ifndef SMESIM_SME_MEASURE_H
#define SMESIM_SME_MEASURE_H

#include "tile.h"

SMS_SME_LEAF float sms_fma_peak(int64_t iterations) {
    const svfloat32_t small = svdup_f32(1.0e-4f), smaller = svdup_f32(1.0e-5f);
    svzero_za();
    for (int64_t i = 0; i < iterations; i++)
        SMS_OUTER_2X2(small, smaller, small, smaller);
    const svbool_t all = svptrue_b32();
    return svaddv_f32(all, svread_hor_za32_f32_m(svdup_f32(0.0f), all, 0, 0));
}

#endif

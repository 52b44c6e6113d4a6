/* Products with one vector, by SME2's multiply-add of four vectors into four vectors of ZA. The weights set the pace:
 * each is read once, with nothing but loads of four vectors, and four panels side by side are four streams.
 *
 * A panel is taken as the row of numbers that it is in memory. Four vectors of it are some k of 16 columns each: at
 * SVL 512 four, one a vector. They are multiplied by four vectors that hold each x[k] for its 16 columns, which serve
 * all panels; what belongs to one column is added up at the end. */
#ifndef SMESIM_SME_GEMV_H
#define SMESIM_SME_GEMV_H

#include "za.h"

enum { SMS_GEMV_STREAMS = 4, SMS_GEMV_VECTORS = 4, SMS_GEMV_LONGEST = SMS_GEMV_VECTORS * 2048 / 32 };

/* The factor of the vector that begins at k = i: one number, or where it is `parts` k long one for each part. It is
 * zero from k on, as the weights are there; `whole` promises that nothing is beyond. */
SMS_INLINE svfloat32_t sms_gemv_factor(const int parts, const int whole, const float *x, int64_t i,
                                       int64_t k) __arm_streaming {
    svfloat32_t factor = svdup_f32(whole || i < k ? x[i] : 0.0f);
    for (int part = 1; part < parts; part++) {
        const svfloat32_t rest = svdup_f32(whole || i + part < k ? x[i + part] : 0.0f);
        factor = svsel_f32(sms_lanes_until(0, part * SMS_NR), factor, rest);
    }
    return factor;
}

/* The next four vectors of each panel, from k = i on. */
SMS_INLINE void sms_gemv_step(const int64_t lanes, const int parts, const int streams, const int whole, const float *x,
                              const float *b, int64_t b_panel, int64_t i, int64_t k) SMS_IN_ZA {
    const int64_t at = i * SMS_NR;
    const svcount_t all = whole ? svptrue_c32() : svwhilelt_c32_s64(at, k * SMS_NR, SMS_GEMV_VECTORS);
    const svfloat32x4_t factors = svcreate4_f32(sms_gemv_factor(parts, whole, x, i, k),
                                                sms_gemv_factor(parts, whole, x, i + lanes / SMS_NR, k),
                                                sms_gemv_factor(parts, whole, x, i + 2 * lanes / SMS_NR, k),
                                                sms_gemv_factor(parts, whole, x, i + 3 * lanes / SMS_NR, k));
    SMS_UNROLL(4)
    for (int s = 0; s < streams; s++)
        svmla_za32_f32_vg1x4((uint32_t)s, svld1_f32_x4(all, b + s * b_panel + at), factors);
}

SMS_INLINE void sms_gemv_depth(const int64_t lanes, const int parts, const int streams, const float *x, const float *b,
                               int64_t k) SMS_IN_ZA {
    const int64_t step = SMS_GEMV_VECTORS * lanes / SMS_NR;
    int64_t i = 0;
    for (; i + step <= k; i += step)
        sms_gemv_step(lanes, parts, streams, 1, x, b, SMS_NR * k, i, k);
    if (i < k)
        sms_gemv_step(lanes, parts, streams, 0, x, b, SMS_NR * k, i, k);
}

/* Adds up what four vectors of ZA hold for each of the 16 columns, and stores as many as there are. */
SMS_INLINE void sms_gemv_end(uint32_t stream, const float *bias, float *y, int64_t columns) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw(), width = sms_smaller(lanes, SMS_NR);
    float sums[SMS_GEMV_LONGEST];
    /* The four vectors of a group lie a quarter of ZA apart. (svread_za32_f32_vg1x4 would say the same, but clang 22
     * reads a constant slice through a register that it never set.) */
    for (int64_t j = 0; j < SMS_GEMV_VECTORS; j++)
        svstr_za(stream + (uint32_t)(j * lanes), sums + j * lanes);
    for (int64_t j = 0; j < columns; j += width) {
        const svbool_t present = sms_lanes_until(j, sms_smaller(j + width, columns));
        svfloat32_t sum = bias ? svld1_f32(present, bias + j) : svdup_f32(0.0f);
        for (int64_t i = j; i < SMS_GEMV_VECTORS * lanes; i += SMS_NR)
            sum = svadd_f32_x(present, sum, svld1_f32(present, sums + i));
        svst1_f32(present, y + j, sum);
    }
}

SMS_INLINE void sms_gemv_panels(const int streams, const float *x, const float *b, int64_t k, const float *bias,
                                float *y, int64_t columns) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    svzero_za();
    if (lanes == SMS_NR) /* a constant from here on */
        sms_gemv_depth(SMS_NR, 1, streams, x, b, k);
    else if (lanes < SMS_NR)
        sms_gemv_depth(lanes, 1, streams, x, b, k);
    else if (lanes == 2 * SMS_NR)
        sms_gemv_depth(lanes, 2, streams, x, b, k);
    else
        sms_gemv_depth(lanes, 4, streams, x, b, k);
    for (int64_t s = 0; s < streams; s++)
        sms_gemv_end((uint32_t)s, bias ? bias + s * SMS_NR : bias, y + s * SMS_NR,
                     sms_smaller(columns - s * SMS_NR, SMS_NR));
}

SMS_SME_LEAF void sms_gemv(const float *x, const float *rhs, int64_t n, int64_t k, const float *bias, float *y,
                           int64_t panel0, int64_t panel1) {
    for (int64_t panel = panel0; panel < panel1;) {
        const int64_t column = panel * SMS_NR, columns = n - column;
        const float *b = rhs + column * k, *column_bias = bias ? bias + column : bias;
        if (panel1 - panel >= SMS_GEMV_STREAMS) {
            sms_gemv_panels(SMS_GEMV_STREAMS, x, b, k, column_bias, y + column, columns);
            panel += SMS_GEMV_STREAMS;
        } else {
            sms_gemv_panels(1, x, b, k, column_bias, y + column, columns);
            panel++;
        }
    }
}

#endif

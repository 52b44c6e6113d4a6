/* The loops along the depth at SVL 512 with SME2: one load brings four vectors, which are four k of a panel, or
 * two k of a packed strip of 32 rows. 16 outer products need 4 loads if the strip is a whole one. Each returns how
 * deep it went, a multiple of 4. */
#ifndef SMESIM_SME_DEPTH_H
#define SMESIM_SME_DEPTH_H

SMS_INLINE int64_t sms_depth_2x2_512(const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const float *left = sms_columns_at(1, t, column).part[0], *right = sms_columns_at(1, t, column + SMS_NR).part[0];
    const svcount_t four = svptrue_c32(), rows = svwhilelt_c32_s64(0, t->rows, 2);
    const int64_t depth = t->depth & ~(int64_t)3, lda = t->lda;
    const float *a = t->a;
    if (lda == 2 * SMS_NR) {
        for (const float *end = a + depth * 2 * SMS_NR; a < end; a += 4 * 2 * SMS_NR) {
            const svfloat32x4_t a01 = svld1_f32_x4(four, a), a23 = svld1_vnum_f32_x4(four, a, 4);
            const svfloat32x4_t l = svld1_f32_x4(four, left), r = svld1_f32_x4(four, right);
            SMS_OUTER_2X2(svget4_f32(a01, 0), svget4_f32(a01, 1), svget4_f32(l, 0), svget4_f32(r, 0));
            SMS_OUTER_2X2(svget4_f32(a01, 2), svget4_f32(a01, 3), svget4_f32(l, 1), svget4_f32(r, 1));
            SMS_OUTER_2X2(svget4_f32(a23, 0), svget4_f32(a23, 1), svget4_f32(l, 2), svget4_f32(r, 2));
            SMS_OUTER_2X2(svget4_f32(a23, 2), svget4_f32(a23, 3), svget4_f32(l, 3), svget4_f32(r, 3));
            left += 4 * SMS_NR;
            right += 4 * SMS_NR;
        }
        return depth;
    }
    for (const float *end = left + depth * SMS_NR; left < end; a += 4 * lda) {
        const svfloat32x2_t a0 = svld1_f32_x2(rows, a), a1 = svld1_f32_x2(rows, a + lda);
        const svfloat32x2_t a2 = svld1_f32_x2(rows, a + 2 * lda), a3 = svld1_f32_x2(rows, a + 3 * lda);
        const svfloat32x4_t l = svld1_f32_x4(four, left), r = svld1_f32_x4(four, right);
        SMS_OUTER_2X2(svget2_f32(a0, 0), svget2_f32(a0, 1), svget4_f32(l, 0), svget4_f32(r, 0));
        SMS_OUTER_2X2(svget2_f32(a1, 0), svget2_f32(a1, 1), svget4_f32(l, 1), svget4_f32(r, 1));
        SMS_OUTER_2X2(svget2_f32(a2, 0), svget2_f32(a2, 1), svget4_f32(l, 2), svget4_f32(r, 2));
        SMS_OUTER_2X2(svget2_f32(a3, 0), svget2_f32(a3, 1), svget4_f32(l, 3), svget4_f32(r, 3));
        left += 4 * SMS_NR;
        right += 4 * SMS_NR;
    }
    return depth;
}

SMS_INLINE int64_t sms_depth_1x4_512(const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const float *from0 = sms_columns_at(1, t, column).part[0];
    const float *from1 = sms_columns_at(1, t, column + SMS_NR).part[0];
    const float *from2 = sms_columns_at(1, t, column + 2 * SMS_NR).part[0];
    const float *from3 = sms_columns_at(1, t, column + 3 * SMS_NR).part[0];
    const svcount_t four = svptrue_c32();
    const svbool_t rows = sms_lanes_until(0, t->rows);
    const int64_t depth = t->depth & ~(int64_t)3, lda = t->lda;
    const float *a = t->a;
    for (int64_t k = 0; k < depth; k += 4, a += 4 * lda) {
        const svfloat32x4_t b0 = svld1_f32_x4(four, from0 + k * SMS_NR);
        const svfloat32x4_t b1 = svld1_f32_x4(four, from1 + k * SMS_NR);
        const svfloat32x4_t b2 = svld1_f32_x4(four, from2 + k * SMS_NR);
        const svfloat32x4_t b3 = svld1_f32_x4(four, from3 + k * SMS_NR);
        SMS_OUTER_1X4(svld1_f32(rows, a), svget4_f32(b0, 0), svget4_f32(b1, 0), svget4_f32(b2, 0), svget4_f32(b3, 0));
        SMS_OUTER_1X4(svld1_f32(rows, a + lda), svget4_f32(b0, 1), svget4_f32(b1, 1), svget4_f32(b2, 1),
                      svget4_f32(b3, 1));
        SMS_OUTER_1X4(svld1_f32(rows, a + 2 * lda), svget4_f32(b0, 2), svget4_f32(b1, 2), svget4_f32(b2, 2),
                      svget4_f32(b3, 2));
        SMS_OUTER_1X4(svld1_f32(rows, a + 3 * lda), svget4_f32(b0, 3), svget4_f32(b1, 3), svget4_f32(b2, 3),
                      svget4_f32(b3, 3));
    }
    return depth;
}

#endif

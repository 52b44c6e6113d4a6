/* The loops along the depth at SVL 512 with SME2: one load brings four vectors, which are four k of a panel, or
 * two k of a packed strip of 32 rows. 16 outer products need 4 loads if the strip is a whole one; that loop is spelt
 * out, because compilers were seen to keep an address in a register for each of its loads. Each function returns how
 * deep it went, a multiple of 4. */
#ifndef SMESIM_SME_DEPTH_H
#define SMESIM_SME_DEPTH_H

enum { SMS_K_A_TURN = 16 }; /* as far as one load reaches from where its pointer is, in a strip of 32 rows */

#define SMS_OUTER_2X2_TEXT(outer, type, low, high, left, right)                                        \
    outer " za0.s, %[all]/m, %[all]/m, z" #low "." type ", z" #left "." type "\n\t"                   \
    outer " za1.s, %[all]/m, %[all]/m, z" #low "." type ", z" #right "." type "\n\t"                  \
    outer " za2.s, %[all]/m, %[all]/m, z" #high "." type ", z" #left "." type "\n\t"                  \
    outer " za3.s, %[all]/m, %[all]/m, z" #high "." type ", z" #right "." type "\n\t"

/* Eight k, so that the loads of four need not wait for the outer products of the others. */
#define SMS_EIGHT_K(outer, type)                                                   \
    "ld1w {z0.s-z3.s}, pn8/z, [%[a], #(16 * \\i), mul vl]\n\t"                     \
    "ld1w {z4.s-z7.s}, pn8/z, [%[a], #(16 * \\i + 4), mul vl]\n\t"                 \
    "ld1w {z16.s-z19.s}, pn8/z, [%[left], #(8 * \\i), mul vl]\n\t"                 \
    "ld1w {z20.s-z23.s}, pn8/z, [%[right], #(8 * \\i), mul vl]\n\t"                \
    "ld1w {z8.s-z11.s}, pn8/z, [%[a], #(16 * \\i + 8), mul vl]\n\t"                \
    "ld1w {z12.s-z15.s}, pn8/z, [%[a], #(16 * \\i + 12), mul vl]\n\t"              \
    "ld1w {z24.s-z27.s}, pn8/z, [%[left], #(8 * \\i + 4), mul vl]\n\t"             \
    "ld1w {z28.s-z31.s}, pn8/z, [%[right], #(8 * \\i + 4), mul vl]\n\t"            \
    SMS_OUTER_2X2_TEXT(outer, type, 0, 1, 16, 20)                                  \
    SMS_OUTER_2X2_TEXT(outer, type, 2, 3, 17, 21)                                  \
    SMS_OUTER_2X2_TEXT(outer, type, 4, 5, 18, 22)                                  \
    SMS_OUTER_2X2_TEXT(outer, type, 6, 7, 19, 23)                                  \
    SMS_OUTER_2X2_TEXT(outer, type, 8, 9, 24, 28)                                  \
    SMS_OUTER_2X2_TEXT(outer, type, 10, 11, 25, 29)                                \
    SMS_OUTER_2X2_TEXT(outer, type, 12, 13, 26, 30)                                \
    SMS_OUTER_2X2_TEXT(outer, type, 14, 15, 27, 31)

#define SMS_TURN(outer, type)                                                                                   \
    __asm__ volatile("ptrue pn8.s\n\t.irp i, 0, 1\n\t" SMS_EIGHT_K(outer, type) ".endr"                         \
                     :                                                                                          \
                     : [a] "r"(a), [left] "r"(left), [right] "r"(right), [all] "Upl"(svptrue_b8())              \
                     : "p8", "z0", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8", "z9", "z10", "z11", "z12",   \
                       "z13", "z14", "z15", "z16", "z17", "z18", "z19", "z20", "z21", "z22", "z23", "z24",      \
                       "z25", "z26", "z27", "z28", "z29", "z30", "z31", "za", "memory")

SMS_INLINE int64_t sms_depth_2x2_512(const enum sms_number number, const struct sms_tile *t,
                                     int64_t column) SMS_IN_ZA {
    const float *left = sms_columns_at(1, t, column).part[0], *right = sms_columns_at(1, t, column + SMS_NR).part[0];
    const float *a = t->a, *left_end = left + (t->depth & ~(int64_t)3) * SMS_NR;
    const int64_t lda = t->lda;
    if (lda == 2 * SMS_NR) {
        const int64_t turns = t->depth & ~(int64_t)(SMS_K_A_TURN - 1);
        for (const float *end = left + turns * SMS_NR; left < end; left += SMS_K_A_TURN * SMS_NR) {
            SMS_TURN_OF(number);
            a += SMS_K_A_TURN * 2 * SMS_NR;
            right += SMS_K_A_TURN * SMS_NR;
        }
    }
    const svcount_t four = svptrue_c32(), rows = svwhilelt_c32_s64(0, t->rows, 2);
    for (; left < left_end; a += 4 * lda) {
        const svfloat32x2_t a0 = svld1_f32_x2(rows, a), a1 = svld1_f32_x2(rows, a + lda);
        const svfloat32x2_t a2 = svld1_f32_x2(rows, a + 2 * lda), a3 = svld1_f32_x2(rows, a + 3 * lda);
        const svfloat32x4_t l = svld1_f32_x4(four, left), r = svld1_f32_x4(four, right);
        SMS_OUTER_2X2(number, svget2_f32(a0, 0), svget2_f32(a0, 1), svget4_f32(l, 0), svget4_f32(r, 0));
        SMS_OUTER_2X2(number, svget2_f32(a1, 0), svget2_f32(a1, 1), svget4_f32(l, 1), svget4_f32(r, 1));
        SMS_OUTER_2X2(number, svget2_f32(a2, 0), svget2_f32(a2, 1), svget4_f32(l, 2), svget4_f32(r, 2));
        SMS_OUTER_2X2(number, svget2_f32(a3, 0), svget2_f32(a3, 1), svget4_f32(l, 3), svget4_f32(r, 3));
        left += 4 * SMS_NR;
        right += 4 * SMS_NR;
    }
    return t->depth & ~(int64_t)3;
}

SMS_INLINE int64_t sms_depth_1x4_512(const enum sms_number number, const struct sms_tile *t,
                                     int64_t column) SMS_IN_ZA {
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
        const svfloat32_t a0 = svld1_f32(rows, a), a1 = svld1_f32(rows, a + lda);
        const svfloat32_t a2 = svld1_f32(rows, a + 2 * lda), a3 = svld1_f32(rows, a + 3 * lda);
        SMS_OUTER_1X4(number, a0, svget4_f32(b0, 0), svget4_f32(b1, 0), svget4_f32(b2, 0), svget4_f32(b3, 0));
        SMS_OUTER_1X4(number, a1, svget4_f32(b0, 1), svget4_f32(b1, 1), svget4_f32(b2, 1), svget4_f32(b3, 1));
        SMS_OUTER_1X4(number, a2, svget4_f32(b0, 2), svget4_f32(b1, 2), svget4_f32(b2, 2), svget4_f32(b3, 2));
        SMS_OUTER_1X4(number, a3, svget4_f32(b0, 3), svget4_f32(b1, 3), svget4_f32(b2, 3), svget4_f32(b3, 3));
    }
    return depth;
}

#endif

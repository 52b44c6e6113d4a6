/* The sums of int8 times their scales, with SME alone: a vector of them takes five instructions, to read it, make it
 * f32, scale the column's scale by the row's, scale and add, and store. */
#ifndef SMESIM_SME_SCALE_H
#define SMESIM_SME_SCALE_H

#define SMS_SUM(tile, slice) \
    svcvt_f32_s32_x(svptrue_b32(), svread_hor_za32_s32_m(svundef_s32(), svptrue_b32(), tile, slice))

#define SMS_SCALE_PAIR(t, pair, tile0, tile1)                                                                    \
    do {                                                                                                         \
        SMS_PAIR_COLUMNS(t, pair);                                                                               \
        SMS_PAIR_SCALES(t, pair);                                                                                \
        const float *row_scale = (t)->row_scale + (pair).row;                                                    \
        float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;                                             \
        for (uint32_t slice = 0; slice < (uint32_t)pair_rows; slice++) {                                         \
            const svfloat32_t scale = svdup_f32(*row_scale), left_sum = SMS_SUM(tile0, slice);                   \
            const svfloat32_t right_sum = SMS_SUM(tile1, slice);                                                 \
            svst1_f32(left, row, sms_scaled(left_sum, svmul_f32_x(svptrue_b32(), left_scale, scale), left_bias)); \
            svst1_f32(right, row + svcntw(),                                                                     \
                      sms_scaled(right_sum, svmul_f32_x(svptrue_b32(), right_scale, scale), right_bias));        \
            row_scale += (pair).step;                                                                            \
            row += (pair).step * (t)->ldc;                                                                                     \
        }                                                                                                        \
    } while (0)

/* Four rows, which are slices \s and \s + 1 of all tiles; their scales lie in `scales`, one in each lane of a quarter.
 * Eight vectors at a time, so that none waits for what became of itself. */
#define SMS_SCALE_FOUR_ROWS(slice0, slice1, scales)                                  \
    "mov     z16.s, %[all]/m, za0h.s[w12, " slice0 "]\n\t"                           \
    "mov     z17.s, %[all]/m, za1h.s[w12, " slice0 "]\n\t"                           \
    "mov     z18.s, %[all]/m, za2h.s[w12, " slice0 "]\n\t"                           \
    "mov     z19.s, %[all]/m, za3h.s[w12, " slice0 "]\n\t"                           \
    "mov     z20.s, %[all]/m, za0h.s[w12, " slice1 "]\n\t"                           \
    "mov     z21.s, %[all]/m, za1h.s[w12, " slice1 "]\n\t"                           \
    "mov     z22.s, %[all]/m, za2h.s[w12, " slice1 "]\n\t"                           \
    "mov     z23.s, %[all]/m, za3h.s[w12, " slice1 "]\n\t"                           \
    "scvtf   z16.s, %[all]/m, z16.s\n\t"                                             \
    "scvtf   z17.s, %[all]/m, z17.s\n\t"                                             \
    "scvtf   z18.s, %[all]/m, z18.s\n\t"                                             \
    "scvtf   z19.s, %[all]/m, z19.s\n\t"                                             \
    "scvtf   z20.s, %[all]/m, z20.s\n\t"                                             \
    "scvtf   z21.s, %[all]/m, z21.s\n\t"                                             \
    "scvtf   z22.s, %[all]/m, z22.s\n\t"                                             \
    "scvtf   z23.s, %[all]/m, z23.s\n\t"                                             \
    "fmul    z24.s, %[left_scale].s, " scales ".s[0]\n\t"                            \
    "fmul    z25.s, %[right_scale].s, " scales ".s[0]\n\t"                           \
    "fmul    z26.s, %[left_scale].s, " scales ".s[1]\n\t"                            \
    "fmul    z27.s, %[right_scale].s, " scales ".s[1]\n\t"                           \
    "fmul    z28.s, %[left_scale].s, " scales ".s[2]\n\t"                            \
    "fmul    z29.s, %[right_scale].s, " scales ".s[2]\n\t"                           \
    "fmul    z30.s, %[left_scale].s, " scales ".s[3]\n\t"                            \
    "fmul    z31.s, %[right_scale].s, " scales ".s[3]\n\t"                           \
    "fmad    z16.s, %[all]/m, z24.s, %[left_bias].s\n\t"                             \
    "fmad    z17.s, %[all]/m, z25.s, %[right_bias].s\n\t"                            \
    "fmad    z18.s, %[all]/m, z26.s, %[left_bias].s\n\t"                             \
    "fmad    z19.s, %[all]/m, z27.s, %[right_bias].s\n\t"                            \
    "fmad    z20.s, %[all]/m, z28.s, %[left_bias].s\n\t"                             \
    "fmad    z21.s, %[all]/m, z29.s, %[right_bias].s\n\t"                            \
    "fmad    z22.s, %[all]/m, z30.s, %[left_bias].s\n\t"                             \
    "fmad    z23.s, %[all]/m, z31.s, %[right_bias].s\n\t"                            \
    "st1w    {z16.s}, %[left], [%[row]]\n\t"                                         \
    "st1w    {z17.s}, %[right], [%[row], #1, mul vl]\n\t"                            \
    "st1w    {z18.s}, %[left], [%[row], %[row1], lsl #2]\n\t"                        \
    "st1w    {z19.s}, %[right], [%[row], %[beside1], lsl #2]\n\t"                    \
    "st1w    {z20.s}, %[left], [%[row], %[row2], lsl #2]\n\t"                        \
    "st1w    {z21.s}, %[right], [%[row], %[beside2], lsl #2]\n\t"                    \
    "st1w    {z22.s}, %[left], [%[row], %[row3], lsl #2]\n\t"                        \
    "st1w    {z23.s}, %[right], [%[row], %[beside3], lsl #2]\n\t"                    \
    "add     %[row], %[row], %[row1], lsl #4\n\t"

/* All 32 rows of two vectors by two at SVL 512, with nothing but the five instructions where that can be. */
SMS_INLINE void sms_scale_whole_512(const struct sms_tile *t, struct sms_pair pair) SMS_IN_ZA {
    SMS_PAIR_COLUMNS(t, pair);
    SMS_PAIR_SCALES(t, pair);
    float *row = t->c + pair.column;
    const int64_t ldc = t->ldc;
    (void)pair_rows;
    __asm__ volatile(".irp i, 0, 1, 2, 3\n\t"
                     "mov     w12, #(4 * \\i)\n\t"
                     "ld1rqw  {z6.s}, %[all]/z, [%[row_scale], #(32 * \\i)]\n\t"
                     "ld1rqw  {z7.s}, %[all]/z, [%[row_scale], #(32 * \\i + 16)]\n\t"
                     SMS_SCALE_FOUR_ROWS("0", "1", "z6")
                     SMS_SCALE_FOUR_ROWS("2", "3", "z7")
                     ".endr"
                     : [row] "+r"(row)
                     : [row1] "r"(ldc), [row2] "r"(2 * ldc), [row3] "r"(3 * ldc), [beside1] "r"(ldc + SMS_NR),
                       [beside2] "r"(2 * ldc + SMS_NR), [beside3] "r"(3 * ldc + SMS_NR), [row_scale] "r"(t->row_scale),
                       [left] "Upl"(left), [right] "Upl"(right), [all] "Upl"(svptrue_b8()),
                       [left_scale] "w"(left_scale), [right_scale] "w"(right_scale), [left_bias] "w"(left_bias),
                       [right_bias] "w"(right_bias)
                     : "x12", "z6", "z7", "z16", "z17", "z18", "z19", "z20", "z21", "z22", "z23", "z24", "z25", "z26",
                       "z27", "z28", "z29", "z30", "z31", "za", "memory");
}

SMS_INLINE void sms_tile_scale(const struct sms_tile *t, struct sms_pair first, struct sms_pair second) SMS_IN_ZA {
    if (first.step == 2 && t->rows == 2 * SMS_NR && svcntw() == SMS_NR) {
        sms_scale_whole_512(t, first);
        return;
    }
    SMS_SCALE_PAIR(t, first, 0, 1);
    SMS_SCALE_PAIR(t, second, 2, 3);
}

#endif

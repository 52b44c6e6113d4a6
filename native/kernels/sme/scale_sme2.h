/* The sums of int8 times their scales, with SME2: one instruction reads four slices. */
#ifndef SMESIM_SME_SCALE_H
#define SMESIM_SME_SCALE_H

/* One row of two tiles, side by side. */
#define SMS_STORE_SCALED(i)                                                                                   \
    do {                                                                                                      \
        const svfloat32_t left_row_scale = svmul_lane_f32(left_scale, row_scales, i);                         \
        const svfloat32_t right_row_scale = svmul_lane_f32(right_scale, row_scales, i);                       \
        svst1_f32(left, row, sms_scaled(svget4_f32(left_sums, i), left_row_scale, left_bias));                \
        svst1_f32(right, row + svcntw(), sms_scaled(svget4_f32(right_sums, i), right_row_scale, right_bias)); \
        row += ldc;                                                                                           \
        SMS_ONE_REGISTER(row);                                                                                \
    } while (0)

/* Of four rows; one load brings their scales, which are then in each quarter of the vector. */
#define SMS_LOAD_SUMS(tile0, tile1)                                                                             \
    const svfloat32_t row_scales = svld1rq_f32(sms_lanes_until(slice, pair_rows), row_scale + slice);           \
    const svfloat32x4_t left_sums = svcvt_f32_s32_x4(svread_hor_za32_s32_vg4(tile0, (uint32_t)slice));          \
    const svfloat32x4_t right_sums = svcvt_f32_s32_x4(svread_hor_za32_s32_vg4(tile1, (uint32_t)slice))

#define SMS_SCALE_PAIR(t, pair, tile0, tile1)                                 \
    do {                                                                      \
        SMS_PAIR_COLUMNS(t, pair);                                            \
        SMS_PAIR_SCALES(t, pair);                                             \
        const float *row_scale = (t)->row_scale + (pair).row;                 \
        const int64_t ldc = (t)->ldc;                                         \
        float *row = (t)->c + (pair).row * ldc + (pair).column;               \
        int64_t slice = 0;                                                    \
        for (; slice + 4 <= pair_rows; slice += 4) {                          \
            SMS_LOAD_SUMS(tile0, tile1);                                      \
            SMS_STORE_SCALED(0);                                              \
            SMS_STORE_SCALED(1);                                              \
            SMS_STORE_SCALED(2);                                              \
            SMS_STORE_SCALED(3);                                              \
        }                                                                     \
        if (slice < pair_rows) {                                              \
            SMS_LOAD_SUMS(tile0, tile1);                                      \
            SMS_STORE_SCALED(0);                                              \
            if (slice + 1 < pair_rows)                                        \
                SMS_STORE_SCALED(1);                                          \
            if (slice + 2 < pair_rows)                                        \
                SMS_STORE_SCALED(2);                                          \
        }                                                                     \
    } while (0)

/* Of both pairs of tiles, whose rows follow one another. */
SMS_INLINE void sms_tile_scale(const struct sms_tile *t, struct sms_pair first, struct sms_pair second) SMS_IN_ZA {
    SMS_SCALE_PAIR(t, first, 0, 1);
    SMS_SCALE_PAIR(t, second, 2, 3);
}

#endif

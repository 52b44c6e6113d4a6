/* The sums of int8 times their scales, with SME alone: a vector of them takes five instructions, to read it, make it
 * f32, scale the column's scale by the row's, scale and add, and store. */
#ifndef SMESIM_SME_SCALE_H
#define SMESIM_SME_SCALE_H

#define SMS_SUM(tile, slice) \
    svcvt_f32_s32_x(svptrue_b32(), svread_hor_za32_s32_m(svundef_s32(), svptrue_b32(), tile, slice))

#define SMS_SCALE_PAIR(t, pair, tile0, tile1)                                                                 \
    do {                                                                                                      \
        SMS_PAIR_COLUMNS(t, pair);                                                                            \
        SMS_PAIR_SCALES(t, pair);                                                                             \
        const float *row_scale = (t)->row_scale + (pair).row;                                                 \
        float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;                                          \
        for (uint32_t slice = 0; slice < (uint32_t)pair_rows; slice++) {                                      \
            const svfloat32_t left_row_scale = svmul_n_f32_x(svptrue_b32(), left_scale, *row_scale);          \
            const svfloat32_t right_row_scale = svmul_n_f32_x(svptrue_b32(), right_scale, *row_scale);        \
            svst1_f32(left, row, sms_scaled(SMS_SUM(tile0, slice), left_row_scale, left_bias));               \
            svst1_f32(right, row + svcntw(), sms_scaled(SMS_SUM(tile1, slice), right_row_scale, right_bias)); \
            row_scale += (pair).step;                                                                         \
            row += (pair).step * (t)->ldc;                                                                    \
        }                                                                                                     \
    } while (0)

/* Of both pairs of tiles. */
SMS_INLINE void sms_tile_scale(const struct sms_tile *t, struct sms_pair first, struct sms_pair second) SMS_IN_ZA {
    SMS_SCALE_PAIR(t, first, 0, 1);
    SMS_SCALE_PAIR(t, second, 2, 3);
}

#endif

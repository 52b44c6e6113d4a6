/* How the sums in ZA begin and end: from zeros, a bias, or what c holds of earlier blocks of the depth, to c again, as
 * they are or, int8's in the last block, times their scales. */
#ifndef SMESIM_SME_ACCUMULATORS_H
#define SMESIM_SME_ACCUMULATORS_H

#include "words.h"

enum sms_begin { SMS_BEGIN_ZERO, SMS_BEGIN_BIAS, SMS_BEGIN_C };

struct sms_tile {
    const float *a; /* words: `rows` of each k after another, the next k `lda` further */
    int64_t lda;
    int64_t rows; /* at most two vectors */
    const float *b; /* the panel of column 0, the next one b_panel further */
    int64_t b_panel;
    int64_t depth; /* in words */
    enum sms_begin begin;
    const float *bias;
    float *c; /* of int8, the sums as int32 until the last block of the depth gives them their scales */
    int64_t ldc;
    int64_t columns;
    int finish; /* whether this is that block */
    const float *row_scale, *column_scale;
};

/* Two tiles lie side by side in the product; two such pairs are all of ZA: one below the other or one beside the
 * other. */
struct sms_pair {
    int64_t row, column;
};

#define SMS_PAIR_COLUMNS(t, pair)                                                          \
    const int64_t pair_rows = sms_smaller((t)->rows - (pair).row, (int64_t)svcntw());      \
    const svbool_t left = sms_lanes_until((pair).column, (t)->columns);                    \
    const svbool_t right = sms_lanes_until((pair).column + (int64_t)svcntw(), (t)->columns)

#define SMS_STORE_PAIR(t, pair, tile0, tile1)                                  \
    do {                                                                       \
        SMS_PAIR_COLUMNS(t, pair);                                             \
        float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;           \
        SMS_EACH_SLICE(slice, pair_rows, {                                     \
            svst1_hor_za32(tile0, slice, left, row);                           \
            svst1_hor_za32(tile1, slice, right, row + svcntw());               \
            row += (t)->ldc;                                                   \
            SMS_ONE_REGISTER(row);                                             \
        });                                                                    \
    } while (0)

#define SMS_LOAD_PAIR(t, pair, tile0, tile1)                                   \
    do {                                                                       \
        SMS_PAIR_COLUMNS(t, pair);                                             \
        const float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;     \
        SMS_EACH_SLICE(slice, pair_rows, {                                     \
            svld1_hor_za32(tile0, slice, left, row);                           \
            svld1_hor_za32(tile1, slice, right, row + svcntw());               \
            row += (t)->ldc;                                                   \
            SMS_ONE_REGISTER(row);                                             \
        });                                                                    \
    } while (0)

/* Every row becomes the bias: an outer product with ones. */
#define SMS_BIAS_PAIR(t, pair, tile0, tile1)                                                     \
    do {                                                                                         \
        SMS_PAIR_COLUMNS(t, pair);                                                               \
        const float *bias = (t)->bias + (pair).column;                                           \
        const svfloat32_t ones = svdup_f32_z(sms_lanes_until(0, pair_rows), 1.0f);               \
        SMS_OUTER(SMS_F32, tile0, ones, svld1_f32(left, bias));                                  \
        SMS_OUTER(SMS_F32, tile1, ones, svld1_f32(right, bias + svcntw()));                      \
    } while (0)

/* The sums of four slices as f32. */
#if defined(__ARM_FEATURE_SME2)
#define SMS_FOUR_SUMS(tile, slice) svcvt_f32_s32_x4(svread_hor_za32_s32_vg4(tile, slice))
#else
#define SMS_SUM(tile, slice)                                                                    \
    svcvt_f32_s32_x(svptrue_b32(), svread_hor_za32_s32_m(svundef_s32(), svptrue_b32(), tile, slice))
#define SMS_FOUR_SUMS(tile, slice)                                                              \
    svcreate4_f32(SMS_SUM(tile, slice), SMS_SUM(tile, (slice) + 1), SMS_SUM(tile, (slice) + 2), \
                  SMS_SUM(tile, (slice) + 3))
#endif

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
#define SMS_LOAD_SUMS(tile0, tile1)                                                                   \
    const svfloat32_t row_scales = svld1rq_f32(sms_lanes_until(slice, pair_rows), row_scale + slice); \
    const svfloat32x4_t left_sums = SMS_FOUR_SUMS(tile0, (uint32_t)slice);                            \
    const svfloat32x4_t right_sums = SMS_FOUR_SUMS(tile1, (uint32_t)slice)

#define SMS_SCALE_PAIR(t, pair, tile0, tile1)                                                                 \
    do {                                                                                                      \
        SMS_PAIR_COLUMNS(t, pair);                                                                            \
        const int64_t ldc = (t)->ldc, beside = (pair).column + (int64_t)svcntw();                             \
        const float *column_scale = (t)->column_scale, *bias = (t)->bias;                                     \
        const float *row_scale = (t)->row_scale + (pair).row;                                                 \
        const svfloat32_t left_scale = svld1_f32(left, column_scale + (pair).column);                         \
        const svfloat32_t right_scale = svld1_f32(right, column_scale + beside);                              \
        const svfloat32_t left_bias = bias ? svld1_f32(left, bias + (pair).column) : svdup_f32(0.0f);         \
        const svfloat32_t right_bias = bias ? svld1_f32(right, bias + beside) : svdup_f32(0.0f);              \
        float *row = (t)->c + (pair).row * ldc + (pair).column;                                               \
        int64_t slice = 0;                                                                                    \
        for (; slice + 4 <= pair_rows; slice += 4) {                                                          \
            SMS_LOAD_SUMS(tile0, tile1);                                                                      \
            SMS_STORE_SCALED(0);                                                                              \
            SMS_STORE_SCALED(1);                                                                              \
            SMS_STORE_SCALED(2);                                                                              \
            SMS_STORE_SCALED(3);                                                                              \
        }                                                                                                     \
        if (slice < pair_rows) {                                                                              \
            SMS_LOAD_SUMS(tile0, tile1);                                                                      \
            SMS_STORE_SCALED(0);                                                                              \
            if (slice + 1 < pair_rows)                                                                        \
                SMS_STORE_SCALED(1);                                                                          \
            if (slice + 2 < pair_rows)                                                                        \
                SMS_STORE_SCALED(2);                                                                          \
        }                                                                                                     \
    } while (0)

SMS_INLINE void sms_tile_begin(const struct sms_tile *t, struct sms_pair first, struct sms_pair second) SMS_IN_ZA {
    svzero_za();
    if (t->begin == SMS_BEGIN_C) {
        SMS_LOAD_PAIR(t, first, 0, 1);
        SMS_LOAD_PAIR(t, second, 2, 3);
    } else if (t->begin == SMS_BEGIN_BIAS) {
        SMS_BIAS_PAIR(t, first, 0, 1);
        SMS_BIAS_PAIR(t, second, 2, 3);
    }
}

SMS_INLINE void sms_tile_end(const enum sms_number number, const struct sms_tile *t, struct sms_pair first,
                             struct sms_pair second) SMS_IN_ZA {
    if (number == SMS_S8 && t->finish) {
        SMS_SCALE_PAIR(t, first, 0, 1);
        SMS_SCALE_PAIR(t, second, 2, 3);
    } else {
        SMS_STORE_PAIR(t, first, 0, 1);
        SMS_STORE_PAIR(t, second, 2, 3);
    }
}

#endif

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

/* Two tiles lie side by side in the product; two such pairs are all of ZA: one beside the other, or both in the same
 * columns. Slice i of the tiles of a pair is row `row + i * step`. */
struct sms_pair {
    int64_t row, step, column;
};

#define SMS_PAIR_COLUMNS(t, pair)                                                                       \
    const int64_t slices_left = sms_ceil_div((t)->rows - (pair).row, (pair).step);                      \
    const int64_t pair_rows = sms_smaller(slices_left, (int64_t)svcntw());                              \
    const svbool_t left = sms_lanes_until((pair).column, (t)->columns);                                 \
    const svbool_t right = sms_lanes_until((pair).column + (int64_t)svcntw(), (t)->columns)

#define SMS_STORE_PAIR(t, pair, tile0, tile1)                                  \
    do {                                                                       \
        SMS_PAIR_COLUMNS(t, pair);                                             \
        float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;           \
        SMS_EACH_SLICE(slice, pair_rows, {                                     \
            svst1_hor_za32(tile0, slice, left, row);                           \
            svst1_hor_za32(tile1, slice, right, row + svcntw());               \
            row += (pair).step * (t)->ldc;                                                   \
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
            row += (pair).step * (t)->ldc;                                                   \
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

/* Of a pair of int8: what the columns of both tiles are scaled by and begin with. */
#define SMS_PAIR_SCALES(t, pair)                                                                          \
    const int64_t beside = (pair).column + (int64_t)svcntw();                                             \
    const float *column_scale = (t)->column_scale, *bias = (t)->bias;                                     \
    const svfloat32_t left_scale = svld1_f32(left, column_scale + (pair).column);                         \
    const svfloat32_t right_scale = svld1_f32(right, column_scale + beside);                              \
    const svfloat32_t left_bias = bias ? svld1_f32(left, bias + (pair).column) : svdup_f32(0.0f);         \
    const svfloat32_t right_bias = bias ? svld1_f32(right, bias + beside) : svdup_f32(0.0f)

#if defined(__ARM_FEATURE_SME2)
#include "scale_sme2.h"
#else
#include "scale_sme1.h"
#endif

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
        sms_tile_scale(t, first, second);
    } else {
        SMS_STORE_PAIR(t, first, 0, 1);
        SMS_STORE_PAIR(t, second, 2, 3);
    }
}

#endif

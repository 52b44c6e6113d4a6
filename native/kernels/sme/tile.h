/* The micro-kernel: one part of a packed strip of the lhs times panels of the rhs, by outer products.
 *
 * All four tiles of ZA accumulate, so that an outer product never waits for the one before: two vectors of rows by
 * two of columns, where there are more rows than one vector holds, else one by four. They run through the whole
 * depth before anything is stored. What exceeds the product is computed and not stored: rows beyond the last are
 * zeros, and a panel that is not there is the first one once more.
 *
 * Panels are 16 columns wide whatever the length of a vector. At SVL 512, which is what hardware has, a vector is
 * a row of a panel, and the loops are written out for it. At SVL 128 and 256 a row of a panel is 4 or 2 vectors.
 * At SVL 1024 and 2048 a vector of columns spans 2 or 4 panels that lie apart: it costs one load for each of them
 * and the instructions that join them, so outer products are a smaller share there. */
#ifndef SMESIM_SME_TILE_H
#define SMESIM_SME_TILE_H

#include "za.h"

enum {
    SMS_LONGEST_VECTOR = 2048 / 32,              /* lanes */
    SMS_MOST_PARTS = SMS_LONGEST_VECTOR / SMS_NR /* panels that the longest vector spans */
};

enum sms_begin { SMS_BEGIN_ZERO, SMS_BEGIN_BIAS, SMS_BEGIN_C };

struct sms_tile {
    const float *a; /* `rows` of each k after another, the next k `lda` further */
    int64_t lda;
    int64_t rows; /* at most two vectors */
    const float *b; /* the panel of column 0, the next one b_panel further */
    int64_t b_panel;
    int64_t depth;
    enum sms_begin begin;
    const float *bias;
    float *c;
    int64_t ldc;
    int64_t columns;
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
        float *beside = row + svcntw();                                        \
        int64_t at = 0;                                                        \
        SMS_EACH_SLICE(slice, pair_rows, {                                     \
            svst1_hor_za32(tile0, slice, left, row + at);                      \
            svst1_hor_za32(tile1, slice, right, beside + at);                  \
            at += (t)->ldc;                                                    \
        });                                                                    \
    } while (0)

#define SMS_LOAD_PAIR(t, pair, tile0, tile1)                                   \
    do {                                                                       \
        SMS_PAIR_COLUMNS(t, pair);                                             \
        const float *row = (t)->c + (pair).row * (t)->ldc + (pair).column;     \
        const float *beside = row + svcntw();                                  \
        int64_t at = 0;                                                        \
        SMS_EACH_SLICE(slice, pair_rows, {                                     \
            svld1_hor_za32(tile0, slice, left, row + at);                      \
            svld1_hor_za32(tile1, slice, right, beside + at);                  \
            at += (t)->ldc;                                                    \
        });                                                                    \
    } while (0)

/* Every row becomes the bias: an outer product with ones. */
#define SMS_BIAS_PAIR(t, pair, tile0, tile1)                                                     \
    do {                                                                                         \
        SMS_PAIR_COLUMNS(t, pair);                                                               \
        const float *bias = (t)->bias + (pair).column;                                           \
        const svfloat32_t ones = svdup_f32(1.0f);                                                \
        const svbool_t rows = sms_lanes_until(0, pair_rows);                                     \
        svmopa_za32_f32_m(tile0, rows, left, ones, svld1_f32(left, bias));                       \
        svmopa_za32_f32_m(tile1, rows, right, ones, svld1_f32(right, bias + svcntw()));          \
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

SMS_INLINE void sms_tile_end(const struct sms_tile *t, struct sms_pair first, struct sms_pair second) SMS_IN_ZA {
    SMS_STORE_PAIR(t, first, 0, 1);
    SMS_STORE_PAIR(t, second, 2, 3);
}

/* Where a vector of columns lies at k = 0: one place in a panel, or where it spans several, its part of each less
 * the lanes before it. */
struct sms_columns {
    const float *part[SMS_MOST_PARTS];
};

SMS_INLINE struct sms_columns sms_columns_at(const int parts, const struct sms_tile *t,
                                             int64_t column) __arm_streaming {
    struct sms_columns from;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = column + part * SMS_NR, panel = first < t->columns ? first / SMS_NR : 0;
        from.part[part] = t->b + panel * t->b_panel + first % SMS_NR - part * SMS_NR;
    }
    return from;
}

SMS_INLINE svfloat32_t sms_columns_load(const int parts, const struct sms_columns *from, int64_t k) __arm_streaming {
    const svbool_t all = svptrue_b32();
    const int64_t at = k * SMS_NR;
    if (parts == 1)
        return svld1_f32(all, from->part[0] + at);
    svuint32_t joined = svld1_u32(sms_lanes_until(0, SMS_NR), (const uint32_t *)(from->part[0] + at));
    for (int part = 1; part < parts; part++) {
        const svbool_t before = sms_lanes_until(0, part * SMS_NR), until = sms_lanes_until(0, (part + 1) * SMS_NR);
        const svbool_t lanes = svbic_b_z(all, until, before);
        joined = svorr_u32_x(all, joined, svld1_u32(lanes, (const uint32_t *)(from->part[part] + at)));
    }
    return svreinterpret_f32_u32(joined);
}

#define SMS_OUTER_2X2(low, high, left, right)                       \
    do {                                                            \
        const svbool_t all = svptrue_b32();                         \
        svmopa_za32_f32_m(0, all, all, low, left);                  \
        svmopa_za32_f32_m(1, all, all, low, right);                 \
        svmopa_za32_f32_m(2, all, all, high, left);                 \
        svmopa_za32_f32_m(3, all, all, high, right);                \
    } while (0)

#define SMS_OUTER_1X4(rows, column0, column1, column2, column3)     \
    do {                                                            \
        const svbool_t all = svptrue_b32();                         \
        svmopa_za32_f32_m(0, all, all, rows, column0);              \
        svmopa_za32_f32_m(1, all, all, rows, column1);              \
        svmopa_za32_f32_m(2, all, all, rows, column2);              \
        svmopa_za32_f32_m(3, all, all, rows, column3);              \
    } while (0)

/* The columns from `column` on, and k .. t->depth, for any length of vectors and any height. */
SMS_INLINE void sms_depth_2x2(const int parts, const struct sms_tile *t, int64_t column, int64_t k) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_columns left = sms_columns_at(parts, t, column);
    const struct sms_columns right = sms_columns_at(parts, t, column + lanes);
    const svbool_t low_rows = sms_lanes_until(0, t->rows), high_rows = sms_lanes_until(lanes, t->rows);
    const float *a = t->a + k * t->lda;
    for (; k < t->depth; k++, a += t->lda) {
        const svfloat32_t low = svld1_f32(low_rows, a), high = svld1_f32(high_rows, a + lanes);
        SMS_OUTER_2X2(low, high, sms_columns_load(parts, &left, k), sms_columns_load(parts, &right, k));
    }
}

SMS_INLINE void sms_depth_1x4(const int parts, const struct sms_tile *t, int64_t column, int64_t k) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_columns first = sms_columns_at(parts, t, column);
    const struct sms_columns second = sms_columns_at(parts, t, column + lanes);
    const struct sms_columns third = sms_columns_at(parts, t, column + 2 * lanes);
    const struct sms_columns fourth = sms_columns_at(parts, t, column + 3 * lanes);
    const svbool_t rows = sms_lanes_until(0, t->rows);
    const float *a = t->a + k * t->lda;
    for (; k < t->depth; k++, a += t->lda)
        SMS_OUTER_1X4(svld1_f32(rows, a), sms_columns_load(parts, &first, k), sms_columns_load(parts, &second, k),
                      sms_columns_load(parts, &third, k), sms_columns_load(parts, &fourth, k));
}

#if defined(__ARM_FEATURE_SME2)
#include "depth_sme2.h"
#else
#include "depth_sme1.h"
#endif

SMS_INLINE void sms_tile_2x2(const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_pair low = {0, column}, high = {lanes, column};
    sms_tile_begin(t, low, high);
    if (lanes == SMS_NR)
        sms_depth_2x2(1, t, column, sms_depth_2x2_512(t, column));
    else if (lanes < SMS_NR)
        sms_depth_2x2(1, t, column, 0);
    else if (lanes == 2 * SMS_NR)
        sms_depth_2x2(2, t, column, 0);
    else
        sms_depth_2x2(4, t, column, 0);
    sms_tile_end(t, low, high);
}

SMS_INLINE void sms_tile_1x4(const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_pair left = {0, column}, right = {0, column + 2 * lanes};
    sms_tile_begin(t, left, right);
    if (lanes == SMS_NR)
        sms_depth_1x4(1, t, column, sms_depth_1x4_512(t, column));
    else if (lanes < SMS_NR)
        sms_depth_1x4(1, t, column, 0);
    else if (lanes == 2 * SMS_NR)
        sms_depth_1x4(2, t, column, 0);
    else
        sms_depth_1x4(4, t, column, 0);
    sms_tile_end(t, left, right);
}

/* All columns of the part of a strip. */
SMS_INLINE void sms_tile_product(const struct sms_tile *t) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    if (t->rows > lanes) {
        for (int64_t column = 0; column < t->columns; column += 2 * lanes)
            sms_tile_2x2(t, column);
    } else {
        for (int64_t column = 0; column < t->columns; column += 4 * lanes)
            sms_tile_1x4(t, column);
    }
}

#endif

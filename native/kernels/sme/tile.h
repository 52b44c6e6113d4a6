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

#include "rows.h"

enum {
    SMS_LONGEST_VECTOR = 2048 / 32,              /* lanes */
    SMS_MOST_PARTS = SMS_LONGEST_VECTOR / SMS_NR /* panels that the longest vector spans */
};

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

#define SMS_OUTER_2X2(number, low, high, left, right) \
    do {                                              \
        SMS_OUTER(number, 0, low, left);              \
        SMS_OUTER(number, 1, low, right);             \
        SMS_OUTER(number, 2, high, left);             \
        SMS_OUTER(number, 3, high, right);            \
    } while (0)

#define SMS_OUTER_1X4(number, rows, column0, column1, column2, column3) \
    do {                                                                \
        SMS_OUTER(number, 0, rows, column0);                            \
        SMS_OUTER(number, 1, rows, column1);                            \
        SMS_OUTER(number, 2, rows, column2);                            \
        SMS_OUTER(number, 3, rows, column3);                            \
    } while (0)

/* The columns from `column` on, and k .. t->depth, for any length of vectors and any height. */
SMS_INLINE void sms_depth_2x2(const enum sms_number number, const int parts, const struct sms_tile *t, int64_t column,
                              int64_t k) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_columns left = sms_columns_at(parts, t, column);
    const struct sms_columns right = sms_columns_at(parts, t, column + lanes);
    const float *a = t->a + k * t->lda;
    for (; k < t->depth; k++, a += t->lda) {
        const svfloat32x2_t rows = sms_rows_load(t, a, k);
        const svfloat32_t first = sms_columns_load(parts, &left, k), second = sms_columns_load(parts, &right, k);
        SMS_OUTER_2X2(number, svget2_f32(rows, 0), svget2_f32(rows, 1), first, second);
    }
}

SMS_INLINE void sms_depth_1x4(const enum sms_number number, const int parts, const struct sms_tile *t, int64_t column,
                              int64_t k) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const struct sms_columns first = sms_columns_at(parts, t, column);
    const struct sms_columns second = sms_columns_at(parts, t, column + lanes);
    const struct sms_columns third = sms_columns_at(parts, t, column + 2 * lanes);
    const struct sms_columns fourth = sms_columns_at(parts, t, column + 3 * lanes);
    const svbool_t rows = sms_lanes_until(0, t->rows);
    const float *a = t->a + k * t->lda;
    for (; k < t->depth; k++, a += t->lda) {
        const svfloat32_t low = svld1_f32(rows, a);
        const svfloat32_t column0 = sms_columns_load(parts, &first, k), column1 = sms_columns_load(parts, &second, k);
        const svfloat32_t column2 = sms_columns_load(parts, &third, k), column3 = sms_columns_load(parts, &fourth, k);
        SMS_OUTER_1X4(number, low, column0, column1, column2, column3);
    }
}

/* One turn of a loop that is spelt out, SMS_TURN: with the outer product and the elements that it is of. */
#define SMS_TURN_OF(number)           \
    do {                              \
        if ((number) == SMS_F32)      \
            SMS_TURN("fmopa", "s");   \
        else if ((number) == SMS_BF16) \
            SMS_TURN("bfmopa", "h");  \
        else if ((number) == SMS_F16) \
            SMS_TURN("fmopa", "h");   \
        else                          \
            SMS_TURN("smopa", "b");   \
    } while (0)

#if defined(__ARM_FEATURE_SME2)
#include "depth_sme2.h"
#else
#include "depth_sme1.h"
#endif

/* All of the depth, by a loop for each length of vectors: what they span of panels is a constant there. */
#define SMS_DEPTH(loop, number, t, column)                                   \
    do {                                                                     \
        if (svcntw() == SMS_NR)                                              \
            loop(number, 1, t, column, loop##_512(number, t, column));       \
        else if (svcntw() < SMS_NR)                                          \
            loop(number, 1, t, column, 0);                                   \
        else if (svcntw() == 2 * SMS_NR)                                     \
            loop(number, 2, t, column, 0);                                   \
        else                                                                 \
            loop(number, 4, t, column, 0);                                   \
    } while (0)

SMS_INLINE void sms_tile_2x2(const enum sms_number number, const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const struct sms_pair first = sms_first_rows(column), second = sms_second_rows(column);
    sms_tile_begin(t, first, second);
    SMS_DEPTH(sms_depth_2x2, number, t, column);
    sms_tile_end(number, t, first, second);
}

SMS_INLINE void sms_tile_1x4(const enum sms_number number, const struct sms_tile *t, int64_t column) SMS_IN_ZA {
    const struct sms_pair left = {0, 1, column}, right = {0, 1, column + 2 * (int64_t)svcntw()};
    sms_tile_begin(t, left, right);
    SMS_DEPTH(sms_depth_1x4, number, t, column);
    sms_tile_end(number, t, left, right);
}

/* All columns of the part of a strip. */
SMS_INLINE void sms_tile_product(const enum sms_number number, const struct sms_tile *t) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    if (t->rows > lanes) {
        for (int64_t column = 0; column < t->columns; column += 2 * lanes)
            sms_tile_2x2(number, t, column);
    } else {
        for (int64_t column = 0; column < t->columns; column += 4 * lanes)
            sms_tile_1x4(number, t, column);
    }
}

#endif

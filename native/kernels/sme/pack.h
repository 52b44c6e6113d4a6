/* Packing of both operands of a product. */
#ifndef SMESIM_SME_PACK_H
#define SMESIM_SME_PACK_H

#include "turn.h"

#define SMS_STORE_COLUMNS(tile)                                                                   \
    do {                                                                                          \
        const int64_t first = (tile) * (int64_t)svcntw();                                         \
        float *to = out + first * height;                                                         \
        SMS_EACH_SLICE(slice, columns > first ? sms_smaller(columns - first, (int64_t)svcntw()) : 0, { \
            svst1_ver_za32(tile, slice, lanes, to);                                               \
            to += height;                                                                         \
        });                                                                                       \
    } while (0)

/* Those rows, packed: out[column * height + row], zeros for the lanes without a row. */
SMS_INLINE void sms_pack_tiles(const float *x, int64_t ldx, int64_t rows, int64_t columns, int64_t height,
                               svbool_t lanes, float *out) SMS_IN_ZA {
    svzero_za();
    sms_rows_into_tiles(x, ldx, rows, columns);
    SMS_STORE_COLUMNS(0);
    SMS_STORE_COLUMNS(1);
    SMS_STORE_COLUMNS(2);
    SMS_STORE_COLUMNS(3);
}

/* `rows` rows of x as one packed strip or panel of `height` rows; those beyond the last are zeros. */
SMS_INLINE void sms_pack_strip(const float *x, int64_t ldx, int64_t rows, int64_t k, int64_t height,
                               float *out) SMS_IN_ZA {
    const int64_t width = (int64_t)svcntw();
    for (int64_t row = 0; row < height; row += width) {
        const svbool_t lanes = sms_lanes_until(row, height);
        const int64_t there = rows > row ? sms_smaller(rows - row, width) : 0;
        for (int64_t column = 0; column < k; column += 4 * width)
            sms_pack_tiles(x + row * ldx + column, ldx, there, sms_smaller(k - column, 4 * width), height, lanes,
                           out + column * height + row);
    }
}

SMS_SME_LEAF void sms_pack_lhs(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                               int64_t strip1, float *out) {
    const int64_t strips = sms_lhs_strips(m, mr);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, m, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, m, strips) - row;
        sms_pack_strip(x + row * ldx, ldx, height, k, height, out + row * k);
    }
}

SMS_SME_LEAF void sms_pack_rhs(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                               float *out) {
    for (int64_t panel = panel0; panel < panel1; panel++) {
        const int64_t row = panel * SMS_NR;
        sms_pack_strip(w + row * ldw, ldw, sms_smaller(n - row, SMS_NR), k, SMS_NR, out + row * k);
    }
}

#endif

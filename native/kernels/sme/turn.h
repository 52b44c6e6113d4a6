/* Packing is transposing, which ZA does: rows go in as horizontal slices and columns come out as vertical ones. Four
 * tiles side by side take four vectors of each row at a time. */
#ifndef SMESIM_SME_TURN_H
#define SMESIM_SME_TURN_H

#include "za.h"

/* At most a vector of rows, at most four vectors of columns: row after row into the tiles, each as a horizontal slice. */
SMS_INLINE void sms_rows_into_tiles(const float *x, int64_t ldx, int64_t rows, int64_t columns) SMS_IN_ZA {
    const int64_t width = (int64_t)svcntw();
    const svbool_t columns0 = sms_lanes_until(0, columns), columns1 = sms_lanes_until(width, columns);
    const svbool_t columns2 = sms_lanes_until(2 * width, columns), columns3 = sms_lanes_until(3 * width, columns);
    SMS_EACH_SLICE(slice, rows, {
        svld1_hor_za32(0, slice, columns0, x);
        svld1_hor_za32(1, slice, columns1, x + width);
        svld1_hor_za32(2, slice, columns2, x + 2 * width);
        svld1_hor_za32(3, slice, columns3, x + 3 * width);
        x += ldx;
    });
}

#endif

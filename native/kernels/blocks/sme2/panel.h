/* Blocks of a panel as vectors of SME2. A vector takes the words of 16 columns, which at SVL 512 fill it; fewer where
 * it is shorter, and where it is longer the lanes beyond them stay idle. */
#ifndef SMESIM_SME2_PANEL_H
#define SMESIM_SME2_PANEL_H

#include "../../sme/za.h"
#include "../quant.h"

enum {
    SMS_ROW_BYTES = SMS_NR * SMS_S8_GROUP, /* one word of each column */
    SMS_SHIFT_Q4 = 4,
};

/* Bytes of one block of a panel. */
SMS_INLINE int64_t q_panel_bytes(const enum sms_quant quant) SMS_ANY_MODE {
    return q_panel_words(quant) * SMS_S8_GROUP;
}

/* Columns that one vector takes. */
SMS_INLINE int64_t q_width(void) __arm_streaming { return sms_smaller((int64_t)svcntw(), SMS_NR); }

SMS_INLINE svbool_t q_bytes_until(int64_t words) __arm_streaming {
    return svwhilelt_b8_s64(0, words * SMS_S8_GROUP);
}

/* Four rows of bytes of a block. `whole` says that a vector holds a row. */
SMS_INLINE svint8x4_t q_rows(const int whole, const int8_t *p) __arm_streaming {
    if (whole)
        return svld1_s8_x4(svptrue_c8(), p);
    const svbool_t there = q_bytes_until(q_width());
    return svcreate4_s8(svld1_s8(there, p), svld1_s8(there, p + SMS_ROW_BYTES), svld1_s8(there, p + 2 * SMS_ROW_BYTES),
                        svld1_s8(there, p + 3 * SMS_ROW_BYTES));
}

/* The f16 scales of the columns as f32. */
SMS_INLINE svfloat32_t q_scales(const uint16_t *p) __arm_streaming {
    const svuint32_t halves = svld1uh_u32(sms_lanes_until(0, q_width()), p);
    return svcvt_f32_f16_x(svptrue_b32(), svreinterpret_f16_u32(halves));
}

/* A slice's number, which the compiler must not know: clang 22 reads vectors of a constant slice of ZA through a
 * register that it never set. */
SMS_INLINE uint32_t q_slice(uint32_t slice) __arm_streaming {
    __asm__("" : "+r"(slice));
    return slice;
}

#endif

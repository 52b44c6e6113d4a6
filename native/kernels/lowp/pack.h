/* Packing of whole matrices: strips of the lhs, panels of the rhs. */
#ifndef SMESIM_LOWP_PACK_H
#define SMESIM_LOWP_PACK_H

#include "convert.h"

SMS_INLINE void sms_pack_lhs_words(const enum sms_number number, const float *x, int64_t ldx, int64_t m,
                                   int64_t k, int64_t mr, int64_t strip0, int64_t strip1, sms_word *out,
                                   float *row_scale) {
    const int64_t strips = sms_lhs_strips(m, mr), depth = sms_ceil_div(k, w_group(number));
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, m, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, m, strips) - row;
        sms_pack_words(number, x + row * ldx, ldx, height, k, out + row * depth, height,
                       number == SMS_S8 ? row_scale + row : NULL);
    }
}

SMS_INLINE void sms_pack_rhs_words(const enum sms_number number, const float *w, int64_t ldw, int64_t n,
                                   int64_t k, int64_t panel0, int64_t panel1, sms_word *out,
                                   float *column_scale) {
    const int64_t depth = sms_ceil_div(k, w_group(number));
    for (int64_t panel = panel0; panel < panel1; panel++) {
        const int64_t row = panel * SMS_NR, rows = n - row < SMS_NR ? n - row : SMS_NR;
        sms_word *to = out + row * depth;
        if (rows < SMS_NR)
            memset(to, 0, (size_t)(SMS_NR * depth) * sizeof *to);
        sms_pack_words(number, w + row * ldw, ldw, rows, k, to, SMS_NR,
                       number == SMS_S8 ? column_scale + row : NULL);
    }
}

#define SMS_PACK_FLOAT(name, number)                                                                              \
    static void sms_pack_lhs_##name(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0, \
                                    int64_t strip1, uint16_t *out) {                                              \
        sms_pack_lhs_words(number, x, ldx, m, k, mr, strip0, strip1, (sms_word *)out, NULL);                      \
    }                                                                                                             \
    static void sms_pack_rhs_##name(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0,            \
                                    int64_t panel1, uint16_t *out) {                                              \
        sms_pack_rhs_words(number, w, ldw, n, k, panel0, panel1, (sms_word *)out, NULL);                          \
    }
SMS_PACK_FLOAT(bf16, SMS_BF16)
SMS_PACK_FLOAT(f16, SMS_F16)

static void sms_quantize_lhs_s8(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                                int64_t strip1, int8_t *out, float *row_scale) {
    sms_pack_lhs_words(SMS_S8, x, ldx, m, k, mr, strip0, strip1, (sms_word *)out, row_scale);
}

static void sms_pack_rhs_s8(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                            int8_t *out, float *column_scale) {
    sms_pack_rhs_words(SMS_S8, w, ldw, n, k, panel0, panel1, (sms_word *)out, column_scale);
}

#endif

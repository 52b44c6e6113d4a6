/* Products with one vector, four panels side by side. Four rows of a panel's block, a vector each, are multiplied by
 * four vectors that hold a word of x each in all lanes: one instruction adds 16 k of every column to four vectors of
 * ZA. Those are read once a block, and added up. The f32 sums are four more vectors of ZA, one of each panel. */
#ifndef SMESIM_SME2_GEMV_H
#define SMESIM_SME2_GEMV_H

#include "panel.h"

enum { SMS_GEMV_STREAMS = 4, SMS_GEMV_LONGEST = 2048 / 32 };

struct sms_gemv_panels {
    const int8_t *b[SMS_GEMV_STREAMS];
    const uint16_t *scale[SMS_GEMV_STREAMS];
};

SMS_INLINE svint8_t q_word(const int32_t *x, int word) __arm_streaming {
    return svreinterpret_s8_s32(svdup_s32(x[word]));
}

/* The integers of one block of one panel, by the four vectors of ZA that begin at the slice. */
SMS_INLINE svint32_t sms_gemv_block(const enum sms_quant quant, const int whole, uint32_t slice, const int8_t *b,
                                    svint8x4_t first_x, svint8x4_t second_x) SMS_IN_ZA {
    const svbool_t all = svptrue_b8();
    const svint8x4_t rows = q_rows(whole, b);
    const svint32_t zero = svdup_s32(0);
    svwrite_za32_s32_vg1x4(slice, svcreate4_s32(zero, zero, zero, zero));
    if (quant == SMS_Q4) {
        const svint8_t upper = svdup_s8(-16);
        svdot_za32_s8_vg1x4(slice,
                            svcreate4_s8(svlsl_n_s8_x(all, svget4_s8(rows, 0), SMS_SHIFT_Q4),
                                         svlsl_n_s8_x(all, svget4_s8(rows, 1), SMS_SHIFT_Q4),
                                         svlsl_n_s8_x(all, svget4_s8(rows, 2), SMS_SHIFT_Q4),
                                         svlsl_n_s8_x(all, svget4_s8(rows, 3), SMS_SHIFT_Q4)),
                            first_x);
        svdot_za32_s8_vg1x4(slice,
                            svcreate4_s8(svand_s8_x(all, svget4_s8(rows, 0), upper),
                                         svand_s8_x(all, svget4_s8(rows, 1), upper),
                                         svand_s8_x(all, svget4_s8(rows, 2), upper),
                                         svand_s8_x(all, svget4_s8(rows, 3), upper)),
                            second_x);
    } else {
        svdot_za32_s8_vg1x4(slice, rows, first_x);
        svdot_za32_s8_vg1x4(slice, q_rows(whole, b + 4 * SMS_ROW_BYTES), second_x);
    }
    const svint32x4_t parts = svread_za32_s32_vg1x4(slice);
    const svint32_t sum = svadd_s32_x(all, svadd_s32_x(all, svget4_s32(parts, 0), svget4_s32(parts, 1)),
                                      svadd_s32_x(all, svget4_s32(parts, 2), svget4_s32(parts, 3)));
    return quant == SMS_Q4 ? svasr_n_s32_x(all, sum, SMS_SHIFT_Q4) : sum;
}

/* The whole depth of the columns from `column` on of each panel, as many as a vector takes. */
SMS_INLINE void sms_gemv_depth(const enum sms_quant quant, const int whole, const struct sms_gemv_panels *t,
                               const int32_t *x, const float *x_scale, int64_t blocks, int64_t column) SMS_IN_ZA {
    const svbool_t all = svptrue_b32();
    const uint32_t sums = q_slice(0), even = q_slice(1), odd = q_slice(2);
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t at = block * q_panel_bytes(quant) + column * SMS_S8_GROUP, scale_at = block * SMS_NR + column;
        svint8x4_t first_x, second_x;
        if (quant == SMS_Q4) {
            first_x = svcreate4_s8(q_word(x, 0), q_word(x, 2), q_word(x, 4), q_word(x, 6));
            second_x = svcreate4_s8(q_word(x, 1), q_word(x, 3), q_word(x, 5), q_word(x, 7));
        } else {
            first_x = svcreate4_s8(q_word(x, 0), q_word(x, 1), q_word(x, 2), q_word(x, 3));
            second_x = svcreate4_s8(q_word(x, 4), q_word(x, 5), q_word(x, 6), q_word(x, 7));
        }
        const svint32_t sum0 = sms_gemv_block(quant, whole, even, t->b[0] + at, first_x, second_x);
        const svint32_t sum1 = sms_gemv_block(quant, whole, odd, t->b[1] + at, first_x, second_x);
        const svint32_t sum2 = sms_gemv_block(quant, whole, even, t->b[2] + at, first_x, second_x);
        const svint32_t sum3 = sms_gemv_block(quant, whole, odd, t->b[3] + at, first_x, second_x);
        const svfloat32_t scale = svdup_f32(x_scale[block]);
        svmla_za32_f32_vg1x4(sums, svcvt_f32_s32_x4(svcreate4_s32(sum0, sum1, sum2, sum3)),
                             svcreate4_f32(svmul_f32_x(all, q_scales(t->scale[0] + scale_at), scale),
                                           svmul_f32_x(all, q_scales(t->scale[1] + scale_at), scale),
                                           svmul_f32_x(all, q_scales(t->scale[2] + scale_at), scale),
                                           svmul_f32_x(all, q_scales(t->scale[3] + scale_at), scale)));
        x += SMS_BLOCK_WORDS;
    }
}

/* The panels' first `columns` columns in all. */
SMS_INLINE void sms_gemv_columns(const enum sms_quant quant, const struct sms_gemv_panels *t, const int32_t *x,
                                 const float *x_scale, int64_t blocks, const float *bias, float *y,
                                 int64_t columns) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw(), width = q_width();
    for (int64_t column = 0; column < SMS_NR; column += width) {
        float sums[SMS_GEMV_LONGEST] = {0};
        for (int64_t s = 0; s < SMS_GEMV_STREAMS; s++) {
            const int64_t first = s * SMS_NR + column;
            const svbool_t there = sms_lanes_until(first, sms_smaller(columns, first + width));
            svst1_f32(svptrue_b32(), sums, bias ? svld1_f32(there, bias + first) : svdup_f32(0.0f));
            svldr_za((uint32_t)(s * lanes), sums); /* the four vectors of a group lie a quarter of ZA apart */
        }
        if (lanes == SMS_NR)
            sms_gemv_depth(quant, 1, t, x, x_scale, blocks, column);
        else
            sms_gemv_depth(quant, 0, t, x, x_scale, blocks, column);
        for (int64_t s = 0; s < SMS_GEMV_STREAMS; s++) {
            const int64_t first = s * SMS_NR + column;
            const svbool_t there = sms_lanes_until(first, sms_smaller(columns, first + width));
            svstr_za((uint32_t)(s * lanes), sums);
            svst1_f32(there, y + first, svld1_f32(svptrue_b32(), sums));
        }
    }
}

/* A panel that is not there is the first one once more. */
SMS_INLINE void sms_block_gemv(const enum sms_quant quant, const int32_t *x, const float *x_scale, const int8_t *rhs,
                               const uint16_t *rhs_scale, int64_t n, int64_t k, const float *bias, float *y,
                               int64_t panel0, int64_t panel1) SMS_IN_ZA {
    const int64_t blocks = sms_depth_blocks(k), end = sms_smaller(panel1 * SMS_NR, n);
    for (int64_t panel = panel0; panel < panel1; panel += SMS_GEMV_STREAMS) {
        const int64_t column = panel * SMS_NR;
        struct sms_gemv_panels t;
        for (int64_t s = 0; s < SMS_GEMV_STREAMS; s++) {
            const int64_t there = (panel + s < panel1 ? panel + s : panel) * blocks;
            t.b[s] = rhs + there * q_panel_bytes(quant);
            t.scale[s] = rhs_scale + there * SMS_NR;
        }
        sms_gemv_columns(quant, &t, x, x_scale, blocks, bias ? bias + column : bias, y + column, end - column);
    }
}

SMS_SME_LEAF void sms_gemv_q4(const int8_t *x, const float *x_scale, const uint8_t *rhs, const uint16_t *rhs_scale,
                              int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) {
    sms_block_gemv(SMS_Q4, (const int32_t *)x, x_scale, (const int8_t *)rhs, rhs_scale, n, k, bias, y, panel0, panel1);
}

SMS_SME_LEAF void sms_gemv_q8(const int8_t *x, const float *x_scale, const int8_t *rhs, const uint16_t *rhs_scale,
                              int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) {
    sms_block_gemv(SMS_Q8, (const int32_t *)x, x_scale, rhs, rhs_scale, n, k, bias, y, panel0, panel1);
}

#endif

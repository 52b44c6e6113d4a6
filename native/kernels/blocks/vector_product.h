/* Products with one vector: as ../vector/gemv.h, several panels side by side. The sums stay in registers for the
 * whole depth, those of a block's integers for the block. */
#ifndef SMESIM_BLOCKS_VECTOR_PRODUCT_H
#define SMESIM_BLOCKS_VECTOR_PRODUCT_H

#include "words.h"

enum { SMS_GEMV_STREAMS = SMS_LANES > 1 ? 4 : 1 }; /* plain C has no registers for more */

/* `streams` panels, the first `columns` of whose columns there are. */
SMS_INLINE void sms_gemv_panels(const enum sms_quant quant, const int streams, const sms_word *x, const float *x_scale,
                                const sms_word *b, const uint16_t *b_scale, int64_t blocks, const float *bias, float *y,
                                int64_t columns) {
    enum { V = SMS_PANEL_VECTORS };
    float sums[SMS_GEMV_STREAMS * SMS_NR] = {0};
    vf acc[SMS_GEMV_STREAMS][V];
    for (int64_t column = 0; bias && column < columns; column++)
        sums[column] = bias[column];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            acc[s][j] = v_load(sums + s * SMS_NR + j * SMS_LANES);
    }
    for (int64_t block = 0; block < blocks; block++) {
        vi excess = w_set(0);
        if (q_excess_weights(quant)) {
            SMS_UNROLL(8)
            for (int word = 0; word < SMS_BLOCK_WORDS; word++)
                excess = q_dot_words(quant, excess, w_set(q_excess_weights(quant)), w_set(x[block * SMS_BLOCK_WORDS + word]));
        }
        excess = q_offset(quant) ? q_negated(quant, excess) : q_total(quant, excess);
        SMS_UNROLL(16)
        for (int s = 0; s < streams; s++) {
            const int64_t at = s * blocks + block;
            vi sum[V]; /* neighbours side by side: one chain of sums would wait for itself */
            SMS_UNROLL(16)
            for (int j = 0; j < V; j++)
                sum[j] = q_offset(quant) ? excess : w_set(0);
            SMS_UNROLL(8)
            for (int word = 0; word < SMS_BLOCK_WORDS; word++) {
                SMS_UNROLL(16)
                for (int j = 0; j < V; j++)
                    sum[j] = q_dot_words(quant, sum[j], q_weights(quant, b + at * q_panel_words(quant), word, j),
                                   w_set(x[block * SMS_BLOCK_WORDS + word]));
            }
            SMS_UNROLL(16)
            for (int j = 0; j < V; j++) {
                const uint16_t *scales = b_scale + at * q_panel_scales(quant) + j * SMS_LANES;
                acc[s][j] = w_scaled(q_total(quant, sum[j]), x_scale[block], w_halves(scales), acc[s][j]);
                if (quant == SMS_Q4_1)
                    acc[s][j] = w_scaled(excess, x_scale[block], w_halves(scales + SMS_NR), acc[s][j]);
            }
        }
    }
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            v_store(sums + s * SMS_NR + j * SMS_LANES, acc[s][j]);
    }
    for (int64_t column = 0; column < columns; column++)
        y[column] = sums[column];
}

SMS_INLINE void sms_block_gemv(const enum sms_quant quant, const sms_word *x, const float *x_scale, const sms_word *rhs,
                               const uint16_t *rhs_scale, int64_t n, int64_t k, const float *bias, float *y,
                               int64_t panel0, int64_t panel1) {
    const int64_t blocks = sms_depth_blocks(k);
    for (int64_t panel = panel0, streams; panel < panel1; panel += streams) {
        streams = panel1 - panel < SMS_GEMV_STREAMS ? 1 : SMS_GEMV_STREAMS;
        const int64_t column = panel * SMS_NR, left = n - column;
        const int64_t columns = left < streams * SMS_NR ? left : streams * SMS_NR;
        const sms_word *b = rhs + panel * blocks * q_panel_words(quant);
        const uint16_t *b_scale = rhs_scale + panel * blocks * q_panel_scales(quant);
        const float *column_bias = bias ? bias + column : NULL;
        if (streams == 1)
            sms_gemv_panels(quant, 1, x, x_scale, b, b_scale, blocks, column_bias, y + column, columns);
        else
            sms_gemv_panels(quant, SMS_GEMV_STREAMS, x, x_scale, b, b_scale, blocks, column_bias, y + column, columns);
    }
}

#define SMS_BLOCK_GEMV(name, quant, number)                                                                          \
    static void sms_gemv_##name(const int8_t *x, const float *x_scale, const number *rhs, const uint16_t *rhs_scale, \
                                int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) { \
        sms_block_gemv(quant, (const sms_word *)x, x_scale, (const sms_word *)rhs, rhs_scale, n, k, bias, y, panel0, \
                       panel1);                                                                                      \
    }
SMS_BLOCK_GEMV(q4, SMS_Q4, uint8_t)
SMS_BLOCK_GEMV(q8, SMS_Q8, int8_t)
SMS_BLOCK_GEMV(q4_1, SMS_Q4_1, uint8_t)

#endif

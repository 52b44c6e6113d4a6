/* Products of matrices by outer products of int8. Tiles 0 and 1 of ZA hold the integers of one block, two vectors of
 * rows by one of columns, and tiles 2 and 3 the f32 sums of the whole depth. After the 8 outer products of a block,
 * four rows of a tile at a time become floats and are multiplied and added to the sums where those lie. */
#ifndef SMESIM_SME2_GEMM_H
#define SMESIM_SME2_GEMM_H

#include "panel.h"

enum { SMS_TILES_0_AND_1 = 0x33, SMS_SUMS = 2 }; /* the mask counts tiles of 64-bit elements */

struct sms_block_rows {
    const int8_t *a; /* a word of each row after another, the next word `height` words further */
    const float *a_scale;
    int64_t height, rows; /* at most two vectors of rows */
};

struct sms_block_columns {
    const int8_t *b;
    const uint16_t *b_scale;
    int64_t columns; /* at most q_width() */
};

SMS_INLINE void sms_outer(const int tiles, const struct sms_block_rows *t, const int8_t *a, svint8_t column) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    const svbool_t low = q_bytes_until(sms_smaller(t->rows, lanes)), high = q_bytes_until(t->rows - lanes);
    const svbool_t all = q_bytes_until(q_width());
    svmopa_za32_s8_m(0, low, all, svld1_s8(low, a), column);
    if (tiles == 2)
        svmopa_za32_s8_m(1, high, all, svld1_s8(high, a + lanes * SMS_S8_GROUP), column);
}

SMS_INLINE svint8_t q_low(svint8_t nibbles) __arm_streaming {
    const svbool_t all = svptrue_b8();
    return svasr_n_s8_x(all, svlsl_n_s8_x(all, nibbles, SMS_SHIFT_Q4), SMS_SHIFT_Q4);
}

SMS_INLINE svint8_t q_high(svint8_t nibbles) __arm_streaming {
    return svasr_n_s8_x(svptrue_b8(), nibbles, SMS_SHIFT_Q4);
}

SMS_INLINE void sms_block_sums(const enum sms_quant quant, const int whole, const int tiles,
                               const struct sms_block_rows *t, const int8_t *a, const int8_t *b) SMS_IN_ZA {
    const int64_t next = t->height * SMS_S8_GROUP;
    const svint8x4_t rows = q_rows(whole, b);
    svzero_mask_za(SMS_TILES_0_AND_1);
    if (quant == SMS_Q4) {
        sms_outer(tiles, t, a, q_low(svget4_s8(rows, 0)));
        sms_outer(tiles, t, a + next, q_high(svget4_s8(rows, 0)));
        sms_outer(tiles, t, a + 2 * next, q_low(svget4_s8(rows, 1)));
        sms_outer(tiles, t, a + 3 * next, q_high(svget4_s8(rows, 1)));
        sms_outer(tiles, t, a + 4 * next, q_low(svget4_s8(rows, 2)));
        sms_outer(tiles, t, a + 5 * next, q_high(svget4_s8(rows, 2)));
        sms_outer(tiles, t, a + 6 * next, q_low(svget4_s8(rows, 3)));
        sms_outer(tiles, t, a + 7 * next, q_high(svget4_s8(rows, 3)));
        return;
    }
    const svint8x4_t others = q_rows(whole, b + 4 * SMS_ROW_BYTES);
    sms_outer(tiles, t, a, svget4_s8(rows, 0));
    sms_outer(tiles, t, a + next, svget4_s8(rows, 1));
    sms_outer(tiles, t, a + 2 * next, svget4_s8(rows, 2));
    sms_outer(tiles, t, a + 3 * next, svget4_s8(rows, 3));
    sms_outer(tiles, t, a + 4 * next, svget4_s8(others, 0));
    sms_outer(tiles, t, a + 5 * next, svget4_s8(others, 1));
    sms_outer(tiles, t, a + 6 * next, svget4_s8(others, 2));
    sms_outer(tiles, t, a + 7 * next, svget4_s8(others, 3));
}

/* Adds four rows of a tile that lie a quarter of it apart, which are four vectors a quarter of ZA apart: row + lane
 * and those behind it. */
#define SMS_ADD_ROWS(lane)                                                                     \
    do {                                                                                       \
        const uint32_t slice = begin + (uint32_t)(row + (lane)) * TILES;                       \
        const svfloat32x4_t scales = svcreate4_f32(                                            \
            svmul_lane_f32(scale, scale0, lane), svmul_lane_f32(scale, scale1, lane),          \
            svmul_lane_f32(scale, scale2, lane), svmul_lane_f32(scale, scale3, lane));         \
        const svint32x4_t integers = svread_za32_s32_vg1x4(slice);                             \
        svmla_za32_f32_vg1x4(slice + SMS_SUMS, svcvt_f32_s32_x4(integers), scales);            \
    } while (0)

/* Adds a tile of integers, `lanes` rows of which `rows` are there, to its sums. */
SMS_INLINE void sms_add_tile(const int64_t lanes, uint32_t tile, const float *a_scale, int64_t rows,
                             svfloat32_t scale) SMS_IN_ZA {
    enum { TILES = 4 };
    const int64_t quarter = lanes / 4;
    const uint32_t begin = q_slice(0) + tile;
    for (int64_t row = 0; row < quarter; row += 4) {
        const float *from = a_scale + row;
        const svfloat32_t scale0 = svld1rq_f32(sms_lanes_until(row, rows), from);
        const svfloat32_t scale1 = svld1rq_f32(sms_lanes_until(row + quarter, rows), from + quarter);
        const svfloat32_t scale2 = svld1rq_f32(sms_lanes_until(row + 2 * quarter, rows), from + 2 * quarter);
        const svfloat32_t scale3 = svld1rq_f32(sms_lanes_until(row + 3 * quarter, rows), from + 3 * quarter);
        SMS_ADD_ROWS(0);
        if (quarter >= 2)
            SMS_ADD_ROWS(1);
        if (quarter >= 4) {
            SMS_ADD_ROWS(2);
            SMS_ADD_ROWS(3);
        }
    }
}

SMS_INLINE void sms_block_depth(const enum sms_quant quant, const int whole, const int tiles,
                                const struct sms_block_rows *t, const struct sms_block_columns *u,
                                int64_t blocks) SMS_IN_ZA {
    const int64_t lanes = whole ? SMS_NR : (int64_t)svcntw();
    for (int64_t block = 0; block < blocks; block++) {
        const int8_t *a = t->a + block * t->height * SMS_BLOCK;
        const float *a_scale = t->a_scale + block * t->height;
        sms_block_sums(quant, whole, tiles, t, a, u->b + block * q_panel_bytes(quant));
        const svfloat32_t scale = q_scales(u->b_scale + block * SMS_NR);
        sms_add_tile(lanes, 0, a_scale, t->rows, scale);
        if (tiles == 2)
            sms_add_tile(lanes, 1, a_scale + lanes, t->rows - lanes, scale);
    }
}

SMS_INLINE void sms_block_tile(const enum sms_quant quant, const struct sms_block_rows *t,
                               const struct sms_block_columns *u, int64_t blocks, const float *bias, float *c,
                               int64_t ldc) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw(), low = sms_smaller(t->rows, lanes), high = t->rows - low;
    const svbool_t there = sms_lanes_until(0, u->columns);
    svzero_za();
    if (bias) {
        const svfloat32_t begin = svld1_f32(there, bias);
        SMS_EACH_SLICE(slice, low, svwrite_hor_za32_f32_m(2, slice, there, begin));
        SMS_EACH_SLICE(slice, high, svwrite_hor_za32_f32_m(3, slice, there, begin));
    }
    if (lanes == SMS_NR && high > 0)
        sms_block_depth(quant, 1, 2, t, u, blocks);
    else if (lanes == SMS_NR)
        sms_block_depth(quant, 1, 1, t, u, blocks);
    else
        sms_block_depth(quant, 0, 2, t, u, blocks);
    SMS_EACH_SLICE(slice, low, {
        svst1_hor_za32(2, slice, there, c);
        c += ldc;
    });
    SMS_EACH_SLICE(slice, high, {
        svst1_hor_za32(3, slice, there, c);
        c += ldc;
    });
}

struct sms_block_operands {
    const int8_t *lhs, *rhs;
    const float *lhs_scale;
    const uint16_t *rhs_scale;
    const float *bias;
    float *c;
    int64_t m, blocks, mr, n, ldc;
};

/* Panel by panel: its numbers stay in the cache while the strips go by. */
SMS_INLINE void sms_block_gemm(const enum sms_quant quant, const struct sms_block_operands *g, int64_t strip0,
                               int64_t strip1, int64_t panel0, int64_t panel1) SMS_IN_ZA {
    const int64_t width = q_width(), most_rows = 2 * (int64_t)svcntw();
    const int64_t strips = sms_lhs_strips(g->m, g->mr), end = sms_smaller(panel1 * SMS_NR, g->n);
    for (int64_t column = panel0 * SMS_NR; column < end; column += width) {
        const int64_t panel = column / SMS_NR * g->blocks, within = column % SMS_NR;
        const struct sms_block_columns u = {
            g->rhs + panel * q_panel_bytes(quant) + within * SMS_S8_GROUP,
            g->rhs_scale + panel * SMS_NR + within,
            sms_smaller(end - column, width),
        };
        for (int64_t strip = strip0; strip < strip1; strip++) {
            const int64_t row = sms_lhs_strip_row(strip, g->m, strips);
            const int64_t height = sms_lhs_strip_row(strip + 1, g->m, strips) - row;
            for (int64_t first = 0; first < height; first += most_rows) {
                const struct sms_block_rows t = {
                    g->lhs + row * g->blocks * SMS_BLOCK + first * SMS_S8_GROUP,
                    g->lhs_scale + row * g->blocks + first,
                    height,
                    sms_smaller(height - first, most_rows),
                };
                sms_block_tile(quant, &t, &u, g->blocks, g->bias ? g->bias + column : g->bias,
                               g->c + (row + first) * g->ldc + column, g->ldc);
            }
        }
    }
}

SMS_SME_LEAF void sms_gemm_q4(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,
                              const uint8_t *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias, float *c,
                              int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1) {
    const struct sms_block_operands g = {lhs, (const int8_t *)rhs, lhs_scale, rhs_scale, bias, c, m,
                                         sms_depth_blocks(k), mr, n, ldc};
    sms_block_gemm(SMS_Q4, &g, strip0, strip1, panel0, panel1);
}

SMS_SME_LEAF void sms_gemm_q8(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,
                              const int8_t *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias, float *c,
                              int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1) {
    const struct sms_block_operands g = {lhs, rhs, lhs_scale, rhs_scale, bias, c, m, sms_depth_blocks(k), mr, n, ldc};
    sms_block_gemm(SMS_Q8, &g, strip0, strip1, panel0, panel1);
}

#endif

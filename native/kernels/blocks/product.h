/* Products of matrices: the loops jr over groups of panels, pc over pieces of the depth, ir over strips.
 *
 * The micro-kernel adds up the integers of one block in registers, and then, once a block, takes the f32 sums of its
 * tile from where they lie, in the L1 cache, adds the block times its scales, and puts them back: a load and a store for
 * the products of 32 k. They lie in c, but for tiles that are wider.
 *
 * The left factor, in int8, is small: a strip of a piece stays in the L1 cache while the panels of a group go by, and
 * the group in the L2 cache while the strips do. What the excess of a strip's activations is, and into what its words
 * are split, the group shares. */
#ifndef SMESIM_BLOCKS_PRODUCT_H
#define SMESIM_BLOCKS_PRODUCT_H

#include "words.h"

enum {
    SMS_TILE_COLUMNS = SMS_NR * SMS_PANELS,
    SMS_EXCESS_ROWS = (SMS_MR + SMS_LANES - 1) / SMS_LANES * SMS_LANES, /* whole vectors of rows */
    SMS_PART_WORDS = SMS_MR * SMS_KC_BLOCKS * SMS_BLOCK_WORDS,          /* one part of the words of a strip */
};

struct sms_block_tile {
    const sms_word *a; /* the rows of each word of k after another, the next word `lda` further; other parts behind */
    int64_t lda;
    const float *a_scale; /* the rows of each block, the next block `ld_scale` further */
    int64_t ld_scale;
    const sms_word *excess; /* SMS_EXCESS_ROWS of each block, or minus that as sums have it */
    const sms_word *b[SMS_PANELS];
    const uint16_t *b_scale[SMS_PANELS];
    int64_t blocks;
    float *sums; /* of each row `ld` further */
    int64_t ld;
};

/* The parts of the words of `rows` rows of a strip, `lda` words between those of one k and the next. */
SMS_INLINE void sms_split_words(const enum sms_quant quant, const sms_word *a, int64_t lda, int64_t rows, int64_t depth,
                                sms_word *restrict out) {
    /* Rows of a strip that is not higher lie without gaps, and are one long row. */
    const int64_t runs = lda == rows ? 1 : depth, length = lda == rows ? depth * rows : rows;
    for (int64_t run = 0; run < runs; run++) {
        const sms_word *from = a + run * lda;
        sms_word *to = out + run * length;
        for (int64_t i = 0; i < length; i += SMS_LANES) {
            sms_word last[SMS_LANES] = {0};
            const int is_whole = i + SMS_LANES <= length;
            if (!is_whole)
                memcpy(last, from + i, (size_t)(length - i) * sizeof *from);
            const vi words = w_load(is_whole ? from + i : last);
            for (int part = 0; part < q_parts(quant); part++) {
                sms_word *at = to + part * SMS_PART_WORDS + i;
                w_store(is_whole ? at : last, q_part(quant, words, part));
                if (!is_whole)
                    memcpy(at, last, (size_t)(length - i) * sizeof *at);
            }
        }
    }
}

/* The excess of `rows` rows. Vectors are read beyond the last row, but not beyond the `words` from a on. */
SMS_INLINE void sms_excess(const enum sms_quant quant, const sms_word *a, int64_t lda, int64_t words, int64_t rows,
                           int64_t blocks, sms_word *excess) {
    for (int64_t block = 0; block < blocks; block++) {
        for (int64_t row = 0; row < rows; row += SMS_LANES) {
            vi sum = w_set(0);
            for (int64_t word = block * SMS_BLOCK_WORDS; word < (block + 1) * SMS_BLOCK_WORDS; word++) {
                const int64_t at = word * lda + row;
                sms_word last[SMS_LANES] = {0};
                if (at + SMS_LANES > words)
                    memcpy(last, a + at, (size_t)(words - at) * sizeof *a);
                sum = q_dot_words(quant, sum, w_set(q_excess_weights(quant)), w_load(at + SMS_LANES > words ? last : a + at));
            }
            w_store(excess + block * SMS_EXCESS_ROWS + row,
                    q_offset(quant) ? q_negated(quant, sum) : q_total(quant, sum));
        }
    }
}

SMS_INLINE void sms_block_micro(const enum sms_quant quant, const int height, const struct sms_block_tile *t) {
    enum { V = SMS_PANEL_VECTORS, VECTORS = SMS_PANELS * V };
    /* Copies: what is stored to the sums might be what `t` points to, as far as the compiler knows. */
    const int64_t lda = t->lda, ld_scale = t->ld_scale, ld = t->ld, blocks = t->blocks;
    const sms_word *a = t->a, *excess = t->excess, *b[SMS_PANELS];
    const float *a_scale = t->a_scale;
    const uint16_t *b_scale[SMS_PANELS];
    float *const sums = t->sums;
    for (int p = 0; p < SMS_PANELS; p++) {
        b[p] = t->b[p];
        b_scale[p] = t->b_scale[p];
    }
    for (int64_t block = 0; block < blocks; block++) {
        vi sum[SMS_MR][VECTORS];
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++) {
            SMS_UNROLL(16)
            for (int j = 0; j < VECTORS; j++)
                sum[r][j] = w_set(q_offset(quant) ? excess[r] : 0);
        }
        SMS_UNROLL(8)
        for (int word = 0; word < SMS_BLOCK_WORDS; word++) {
            SMS_UNROLL(2)
            for (int part = 0; part < q_parts(quant); part++) {
                vi column[VECTORS];
                SMS_UNROLL(16)
                for (int j = 0; j < VECTORS; j++)
                    column[j] = q_part(quant, q_weights(quant, b[j / V], word, j % V), part);
                SMS_UNROLL(16)
                for (int r = 0; r < height; r++) {
                    SMS_UNROLL(16)
                    for (int j = 0; j < VECTORS; j++)
                        sum[r][j] = q_dot(quant, sum[r][j], column[j], w_set(a[part * SMS_PART_WORDS + r]));
                }
            }
            a += lda;
        }
        SMS_UNROLL(16)
        for (int j = 0; j < VECTORS; j++) {
            const uint16_t *scales = b_scale[j / V] + j % V * SMS_LANES;
            const vf scale = w_halves(scales), least = quant == SMS_Q4_1 ? w_halves(scales + SMS_NR) : scale;
            SMS_UNROLL(16)
            for (int r = 0; r < height; r++) {
                float *to = sums + r * ld + j * SMS_LANES;
                vf y = w_scaled(q_total(quant, sum[r][j]), a_scale[r], scale, v_load(to));
                if (quant == SMS_Q4_1)
                    y = w_scaled(w_set(excess[r]), a_scale[r], least, y);
                v_store(to, y);
            }
        }
        a_scale += ld_scale;
        excess += SMS_EXCESS_ROWS;
        for (int p = 0; p < SMS_PANELS; p++) {
            b[p] += q_panel_words(quant);
            b_scale[p] += q_panel_scales(quant);
        }
    }
}

typedef void sms_block_kernel(const struct sms_block_tile *);

#define SMS_BLOCK_KERNELS(height)                                                                            \
    static void sms_q4_micro_##height(const struct sms_block_tile *t) { sms_block_micro(SMS_Q4, height, t); } \
    static void sms_q8_micro_##height(const struct sms_block_tile *t) { sms_block_micro(SMS_Q8, height, t); } \
    static void sms_q4_1_micro_##height(const struct sms_block_tile *t) { sms_block_micro(SMS_Q4_1, height, t); }
SMS_HEIGHTS(SMS_BLOCK_KERNELS)

#define SMS_Q4_KERNEL(height) sms_q4_micro_##height,
#define SMS_Q8_KERNEL(height) sms_q8_micro_##height,
#define SMS_Q4_1_KERNEL(height) sms_q4_1_micro_##height,
static sms_block_kernel *const sms_block_kernels[][SMS_MR] = {
    {SMS_HEIGHTS(SMS_Q4_KERNEL)}, {SMS_HEIGHTS(SMS_Q8_KERNEL)}, {SMS_HEIGHTS(SMS_Q4_1_KERNEL)}};

struct sms_block_operands {
    const sms_word *lhs, *rhs;
    const float *lhs_scale;
    const uint16_t *rhs_scale;
    const float *bias;
    float *c;
    int64_t m, blocks, mr, n, ldc;
};

/* `rows` rows from the one `first` of a strip that begins at `row` and is `height` high; the panels from panel0 until
 * column `end`; the blocks from block0 on. A panel that is not there is the tile's first one once more. */
SMS_INLINE void sms_block_part(const enum sms_quant quant, const struct sms_block_operands *g, int64_t row,
                               int64_t height, int64_t first, int64_t rows, int64_t panel0, int64_t end,
                               int64_t block0, int64_t blocks) {
    sms_word excess[SMS_KC_BLOCKS * SMS_EXCESS_ROWS], split[2 * SMS_PART_WORDS];
    const int64_t at = row * g->blocks + block0 * height + first; /* of the scales; of the words 8 times that */
    struct sms_block_tile t = {.lda = height, .ld_scale = height, .excess = excess, .blocks = blocks};
    t.a_scale = g->lhs_scale + at;
    t.a = g->lhs + (row * g->blocks + block0 * height) * SMS_BLOCK_WORDS + first;
    if (q_excess_weights(quant))
        sms_excess(quant, t.a, height, blocks * SMS_BLOCK_WORDS * height - first, rows, blocks, excess);
    if (q_parts(quant) > 1) {
        sms_split_words(quant, t.a, height, rows, blocks * SMS_BLOCK_WORDS, split);
        t.a = split;
        t.lda = rows;
    }
    for (int64_t panel = panel0; panel * SMS_NR < end; panel += SMS_PANELS) {
        const int64_t column = panel * SMS_NR;
        const int64_t columns = end - column < SMS_TILE_COLUMNS ? end - column : SMS_TILE_COLUMNS;
        float edge[SMS_MR * SMS_TILE_COLUMNS], *c = g->c + (row + first) * g->ldc + column;
        const int is_whole = columns == SMS_TILE_COLUMNS;
        for (int p = 0; p < SMS_PANELS; p++) {
            const int64_t there = p * SMS_NR < columns ? panel + p : panel;
            t.b[p] = g->rhs + (there * g->blocks + block0) * q_panel_words(quant);
            t.b_scale[p] = g->rhs_scale + (there * g->blocks + block0) * q_panel_scales(quant);
        }
        t.sums = is_whole ? c : edge;
        t.ld = is_whole ? g->ldc : SMS_TILE_COLUMNS;
        for (int64_t r = 0; r < rows; r++) {
            if (block0 == 0 && g->bias)
                memcpy(t.sums + r * t.ld, g->bias + column, (size_t)columns * sizeof *c);
            else if (block0 == 0)
                memset(t.sums + r * t.ld, 0, (size_t)(is_whole ? columns : SMS_TILE_COLUMNS) * sizeof *c);
            else if (!is_whole)
                memcpy(edge + r * t.ld, c + r * g->ldc, (size_t)columns * sizeof *c);
        }
        sms_block_kernels[quant][rows - 1](&t);
        for (int64_t r = 0; r < rows && !is_whole; r++)
            memcpy(c + r * g->ldc, edge + r * t.ld, (size_t)columns * sizeof *c);
    }
}

SMS_INLINE void sms_block_gemm(const enum sms_quant quant, const struct sms_block_operands *g, int64_t strip0,
                               int64_t strip1, int64_t panel0, int64_t panel1) {
    const int64_t strips = sms_lhs_strips(g->m, g->mr), end = panel1 * SMS_NR < g->n ? panel1 * SMS_NR : g->n;
    const int64_t pieces = g->blocks > 0 ? sms_ceil_div(g->blocks, SMS_KC_BLOCKS) : 1;
    for (int64_t panel = panel0; panel < panel1; panel += SMS_GROUP) {
        const int64_t group_end = (panel + SMS_GROUP) * SMS_NR;
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t block0 = piece * g->blocks / pieces, block1 = (piece + 1) * g->blocks / pieces;
            for (int64_t strip = strip0; strip < strip1; strip++) {
                const int64_t row = sms_lhs_strip_row(strip, g->m, strips);
                const int64_t height = sms_lhs_strip_row(strip + 1, g->m, strips) - row;
                const int64_t parts = sms_ceil_div(height, SMS_MR);
                for (int64_t part = 0; part < parts; part++) {
                    const int64_t first = part * height / parts;
                    sms_block_part(quant, g, row, height, first, (part + 1) * height / parts - first, panel,
                                   group_end < end ? group_end : end, block0, block1 - block0);
                }
            }
        }
    }
}

#define SMS_BLOCK_GEMM(name, quant, number)                                                                     \
    static void sms_gemm_##name(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,    \
                                const number *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias,     \
                                float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,          \
                                int64_t panel1) {                                                               \
        const struct sms_block_operands g = {                                                                   \
            .lhs = (const sms_word *)lhs, .rhs = (const sms_word *)rhs, .lhs_scale = lhs_scale,                 \
            .rhs_scale = rhs_scale, .bias = bias, .c = c, .m = m, .blocks = sms_depth_blocks(k), .mr = mr,      \
            .n = n, .ldc = ldc,                                                                                 \
        };                                                                                                      \
        sms_block_gemm(quant, &g, strip0, strip1, panel0, panel1);                                              \
    }
SMS_BLOCK_GEMM(q4, SMS_Q4, uint8_t)
SMS_BLOCK_GEMM(q8, SMS_Q8, int8_t)
SMS_BLOCK_GEMM(q4_1, SMS_Q4_1, uint8_t)

#endif

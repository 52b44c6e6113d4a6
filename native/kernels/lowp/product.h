/* Products of matrices of words, for bf16, f16 and int8 alike: as ../vector/gemm.h, a word in the place of an f32. What
 * differs:
 *
 * The lhs of one micro-kernel is first brought into the form that its products take (parts, offset bytes, or
 * blocks), in a buffer on the stack that stays in the L1 cache; a group of panels shares the work. So the inner loop
 * need not know how high the strip was, and turns only the rhs into parts. Of f16, whose parts take several
 * instructions, the rhs is prepared too, once for all strips of a block.
 *
 * Between blocks of the depth c holds the sums: of bf16 and f16 as f32, of int8 as int32 in the memory of the f32.
 * The last block gives int8 their scales. */
#ifndef SMESIM_PRODUCT_H
#define SMESIM_PRODUCT_H

#include "../vector/blocking.h"
#include "smesim/layout_lowp.h"
#include "words.h"

enum {
    SMS_MOST_PARTS = 2,
    SMS_PART_WORDS = SMS_MR * SMS_KC_WORDS,
    /* The rhs of f16, widened: fewer words of fewer panels, so that they stay in the L2 cache, and on any stack. */
    SMS_WIDE_KC_WORDS = 128,
    SMS_WIDE_GROUP = SMS_GROUP < 4 ? SMS_GROUP : 4,
    SMS_PLANE_WORDS = SMS_WIDE_KC_WORDS * SMS_NR,
    SMS_WIDE_PANEL_WORDS = SMS_MOST_PARTS * SMS_PLANE_WORDS,
};
_Static_assert(SMS_WIDE_KC_WORDS <= SMS_KC_WORDS && SMS_WIDE_GROUP % SMS_PANELS == 0, "a part of other blocks");

struct sms_word_tile {
    const sms_word *a; /* the prepared lhs: blocks, or one plane of SMS_PART_WORDS a part */
    const sms_word *b; /* words as they are packed; of f16 a plane of SMS_PLANE_WORDS a part */
    int64_t b_panel;   /* distance of neighbouring panels */
    int64_t depth;     /* words */
    float *c;
    int64_t ldc;
    int go_on;         /* whether c holds sums to go on from */
    int finish;        /* whether this is the last block of the depth */
    const float *bias; /* of the columns, may be NULL */
    const float *row_scale, *column_scale;
    /* What later tiles read: touched once every word and panel, prefetch_step further each time. */
    const char *prefetch;
    int64_t prefetch_step, prefetch_panel;
    /* The strip that comes next, fetched by the first of the tiles that share a prepared lhs: so many bytes a word. */
    const char *next_strip;
    int64_t next_step;
};

/* The sums of one tile, by row and vector of columns; `sum` of floating point, `count` of int8. */
struct sms_word_sums {
    vf sum[SMS_MR][SMS_PANELS * SMS_PANEL_VECTORS];
    vi count[SMS_MR][SMS_PANELS * SMS_PANEL_VECTORS];
};

#if SMS_BLOCKS
#include "blocks.h"
#endif

/* A vector of words of the lhs as products take it: its parts, to `to` and SMS_PART_WORDS further. */
SMS_INLINE void sms_prepare_vector(const enum sms_number number, vi words, sms_word *to) {
    if (w_offset(number))
        words ^= SMS_OFFSET_BYTES;
    for (int part = 0; part < w_parts(number); part++)
        w_store(to + part * SMS_PART_WORDS, w_part(number, words, part));
}

/* `length` words. */
SMS_INLINE void sms_prepare_run(const enum sms_number number, const sms_word *from, int64_t length, sms_word *to) {
    int64_t i = 0;
    for (; i + SMS_LANES <= length; i += SMS_LANES)
        sms_prepare_vector(number, w_load(from + i), to + i);
    for (; i < length; i++) {
        sms_word lanes[SMS_LANES];
        vi words = w_set(from[i]);
        if (w_offset(number))
            words ^= SMS_OFFSET_BYTES;
        for (int part = 0; part < w_parts(number); part++) {
            w_store(lanes, w_part(number, words, part));
            to[i + part * SMS_PART_WORDS] = lanes[0];
        }
    }
}

/* The lhs as products of words take it: word k of row r of part p at p * SMS_PART_WORDS + k * height + r. */
SMS_INLINE void sms_prepare_words(const enum sms_number number, const sms_word *a, int64_t stride, int64_t height,
                                  int64_t depth, sms_word *restrict prepared) {
    if (stride == height) { /* rows of a strip that is not higher lie without gaps */
        sms_prepare_run(number, a, depth * height, prepared);
        return;
    }
    int64_t k = 0;
    if (height <= SMS_LANES) /* what a vector has too much is of the strip's other rows, and the next k goes over it */
        for (; (depth - k) * height >= SMS_LANES && k + 1 < depth; k++)
            sms_prepare_vector(number, w_load(a + k * stride), prepared + k * height);
    for (; k < depth; k++)
        sms_prepare_run(number, a + k * stride, height, prepared + k * height);
}

SMS_INLINE void sms_sum_words(const enum sms_number number, const int height, const int panels,
                              const struct sms_word_tile *t, struct sms_word_sums *sums) {
    enum { V = SMS_PANEL_VECTORS };
    const int vectors = panels * V, offset = w_offset(number);
    const int64_t b_panel = t->b_panel, prefetch_step = t->prefetch_step, prefetch_panel = t->prefetch_panel;
    const int64_t next_step = t->next_step;
    const char *prefetch = t->prefetch, *next_strip = t->next_strip;
    vi excess[SMS_PANELS * V]; /* what the offset adds to a count */

    SMS_UNROLL(16)
    for (int j = 0; j < vectors; j++)
        excess[j] = w_set(0);
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++) {
            sums->sum[r][j] = v_set(0.0f);
            sums->count[r][j] = w_set(0);
        }
    }
    SMS_UNROLL(2)
    for (int part = 0; part < w_parts(number); part++) {
        const sms_word *a = t->a + part * SMS_PART_WORDS, *b = t->b + (number == SMS_F16 ? part * SMS_PLANE_WORDS : 0);
        for (int64_t k = t->depth; k > 0; k--) {
            vi column[SMS_PANELS * V];
            SMS_UNROLL(16)
            for (int j = 0; j < vectors; j++) {
                column[j] = w_load(b + j / V * b_panel + j % V * SMS_LANES);
                if (number != SMS_F16)
                    column[j] = w_part(number, column[j], part);
                if (offset)
                    excess[j] = w_dot_s8(excess[j], column[j], w_set(SMS_OFFSET_BYTES));
            }
            if (part == 0) {
                SMS_UNROLL(16)
                for (int p = 0; p < panels; p++)
                    __builtin_prefetch(prefetch + p * prefetch_panel, 0, SMS_PREFETCH_LOCALITY);
                __builtin_prefetch(next_strip, 0, SMS_PREFETCH_LOCALITY);
                prefetch += prefetch_step;
                next_strip += next_step;
            }
            SMS_UNROLL(16)
            for (int r = 0; r < height; r++) {
                SMS_UNROLL(16)
                for (int j = 0; j < vectors; j++) {
                    if (number == SMS_S8)
                        sums->count[r][j] = w_dot_s8(sums->count[r][j], column[j], w_row(a, r));
                    else
                        sums->sum[r][j] = w_dot_float(number, sums->sum[r][j], column[j], w_row(a, r));
                }
            }
            a += height;
            b += SMS_NR;
        }
    }
    SMS_UNROLL(16)
    for (int r = 0; r < height && offset; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++)
            sums->count[r][j] = w_subtract(sums->count[r][j], excess[j]);
    }
}

/* What a number's products take, words or blocks. */
SMS_INLINE void sms_prepare(const enum sms_number number, const sms_word *a, int64_t stride, int64_t height,
                            int64_t depth, sms_word *restrict prepared) {
#if SMS_BLOCKS
    if (number != SMS_F16) {
        sms_prepare_blocks(a, stride, height, depth, prepared);
        return;
    }
#endif
    sms_prepare_words(number, a, stride, height, depth, prepared);
}

/* Whether products take a whole strip as it is packed. */
SMS_INLINE int sms_takes_packed(const enum sms_number number) {
    return w_parts(number) == 1 && !w_offset(number) && !SMS_BLOCKS && !SMS_IS_NEON;
}

SMS_INLINE void sms_sum(const enum sms_number number, const int height, const int panels,
                        const struct sms_word_tile *t, struct sms_word_sums *sums) {
#if SMS_BLOCKS
    if (number != SMS_F16) {
        sms_sum_blocks(number, height, t, sums);
        return;
    }
#endif
    sms_sum_words(number, height, panels, t, sums);
}

SMS_INLINE void sms_word_micro(const enum sms_number number, const int height, const int panels,
                               const struct sms_word_tile *t) {
    const int vectors = panels * SMS_PANEL_VECTORS;
    const int64_t ldc = t->ldc;
    float *c = t->c;
    struct sms_word_sums sums;
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++)
        __builtin_prefetch(c + r * ldc, 1);
    sms_sum(number, height, panels, t, &sums);
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++) {
            float *to = c + r * ldc + j * SMS_LANES;
            if (number != SMS_S8) {
                vf sum = sums.sum[r][j];
                if (t->go_on)
                    sum += v_load(to);
                else if (t->bias)
                    sum += v_load(t->bias + j * SMS_LANES);
                v_store(to, sum);
                continue;
            }
            vi count = sums.count[r][j];
            if (t->go_on)
                count = w_add(count, v_bits(v_load(to)));
            v_store(to, !t->finish ? v_of_bits(count)
                                   : w_scaled(count, t->row_scale[r], v_load(t->column_scale + j * SMS_LANES),
                                              t->bias ? v_load(t->bias + j * SMS_LANES) : v_set(0.0f)));
        }
    }
}

typedef void sms_word_kernel(const struct sms_word_tile *);

#define SMS_WORD_KERNEL(name, number, height, panels) \
    static void name##_##height(const struct sms_word_tile *t) { sms_word_micro(number, height, panels, t); }
#define SMS_WORD_KERNELS(height)                                  \
    SMS_WORD_KERNEL(sms_bf16_micro, SMS_BF16, height, SMS_PANELS) \
    SMS_WORD_KERNEL(sms_bf16_micro_single, SMS_BF16, height, 1)   \
    SMS_WORD_KERNEL(sms_f16_micro, SMS_F16, height, SMS_PANELS)   \
    SMS_WORD_KERNEL(sms_f16_micro_single, SMS_F16, height, 1)     \
    SMS_WORD_KERNEL(sms_s8_micro, SMS_S8, height, SMS_PANELS)     \
    SMS_WORD_KERNEL(sms_s8_micro_single, SMS_S8, height, 1)
SMS_HEIGHTS(SMS_WORD_KERNELS)

/* By number, by a single panel or whole tile width, by height. */
#define SMS_BF16_TILE(height) sms_bf16_micro_##height,
#define SMS_BF16_SINGLE(height) sms_bf16_micro_single_##height,
#define SMS_F16_TILE(height) sms_f16_micro_##height,
#define SMS_F16_SINGLE(height) sms_f16_micro_single_##height,
#define SMS_S8_TILE(height) sms_s8_micro_##height,
#define SMS_S8_SINGLE(height) sms_s8_micro_single_##height,
static sms_word_kernel *const sms_word_kernels[3][2][SMS_MR] = {
    [SMS_BF16] = {{SMS_HEIGHTS(SMS_BF16_SINGLE)}, {SMS_HEIGHTS(SMS_BF16_TILE)}},
    [SMS_F16] = {{SMS_HEIGHTS(SMS_F16_SINGLE)}, {SMS_HEIGHTS(SMS_F16_TILE)}},
    [SMS_S8] = {{SMS_HEIGHTS(SMS_S8_SINGLE)}, {SMS_HEIGHTS(SMS_S8_TILE)}},
};

/* The first `columns` of the rows of one matrix into another. */
SMS_INLINE void sms_copy_columns(const float *from, int64_t ld_from, float *to, int64_t ld_to, int64_t rows,
                                 int64_t columns) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < columns; j++)
            to[r * ld_to + j] = from[r * ld_from + j];
}

/* One tile, `columns` wide: into c, or by way of a buffer where the panels are wider than the columns that are
 * there. */
static void sms_word_tile_product(const enum sms_number number, const struct sms_word_tile *t, int64_t height,
                                  int64_t columns) {
    const int wide = columns > SMS_NR;
    const int64_t width = wide ? SMS_TILE_COLUMNS : SMS_NR;
    sms_word_kernel *const kernel = sms_word_kernels[number][wide][height - 1];
    if (columns == width) {
        kernel(t);
        return;
    }
    float whole[SMS_MR * SMS_TILE_COLUMNS] = {0}, bias[SMS_TILE_COLUMNS] = {0}, scale[SMS_TILE_COLUMNS] = {0};
    struct sms_word_tile buffered = *t;
    buffered.c = whole;
    buffered.ldc = width;
    if (t->go_on)
        sms_copy_columns(t->c, t->ldc, whole, width, height, columns);
    if (t->bias) {
        sms_copy_columns(t->bias, 0, bias, 0, 1, columns);
        buffered.bias = bias;
    }
    if (t->column_scale) {
        sms_copy_columns(t->column_scale, 0, scale, 0, 1, columns);
        buffered.column_scale = scale;
    }
    kernel(&buffered);
    sms_copy_columns(whole, width, t->c, t->ldc, height, columns);
}

struct sms_word_operands {
    const sms_word *lhs, *rhs;
    const float *row_scale, *column_scale, *bias;
    float *c;
    int64_t m, depth, mr, n, ldc, strips, panel_end; /* depth in words */
};

/* A block of some panels of f16 as its products take it, both parts of each word. */
static void sms_widen_panels(const sms_word *b, int64_t b_panel, int64_t panels, int64_t depth,
                             sms_word *restrict widened) {
    for (int64_t panel = 0; panel < panels; panel++) {
        for (int64_t i = 0; i < depth * SMS_NR; i += SMS_LANES) {
            const vi words = w_load(b + panel * b_panel + i);
            for (int part = 0; part < SMS_MOST_PARTS; part++)
                w_store(widened + panel * SMS_WIDE_PANEL_WORDS + part * SMS_PLANE_WORDS + i,
                        w_part(SMS_F16, words, part));
        }
    }
}

/* The ir loop: one group of panels, one block of the depth, the strips strip0 .. strip1, each in as many parts as
 * the micro-kernel needs. The panels that `next` points at are fetched meanwhile, evenly over the parts. What is read
 * of the rhs begins at b, panels b_panel apart. */
SMS_INLINE void sms_word_ir(const enum sms_number number, const struct sms_word_operands *g, int64_t strip0,
                            int64_t strip1, int64_t panel0, int64_t panel1, int64_t k0, int64_t k1, int64_t next,
                            const sms_word *b, int64_t b_panel) {
    const int64_t end = g->panel_end * SMS_NR < g->n ? g->panel_end * SMS_NR : g->n;
    const int64_t depth = k1 - k0, panel_words = SMS_NR * g->depth;
    const int64_t touch_bytes = SMS_LINE_BYTES / ((strip1 - strip0) * sms_ceil_div(g->mr, SMS_MR));
    const char *prefetch = (const char *)(g->rhs + next);
    sms_word prepared[SMS_MOST_PARTS * SMS_PART_WORDS + SMS_LANES]; /* w_row reads on */
    struct sms_word_tile t = {
        .b_panel = b_panel,
        .depth = depth,
        .ldc = g->ldc,
        .go_on = k0 > 0,
        .finish = k1 == g->depth,
        .prefetch_step = touch_bytes,
        .prefetch_panel = panel_words * (int64_t)sizeof *b,
    };
    int64_t row = sms_lhs_strip_row(strip0, g->m, g->strips);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row_end = sms_lhs_strip_row(strip + 1, g->m, g->strips), height = row_end - row;
        const int64_t parts = sms_ceil_div(height, SMS_MR);
        const sms_word *block = g->lhs + row * g->depth + k0 * height;
        const int64_t next_strip = sms_next_strip(strip, strip0, strip1, k0, k1, g->m, g->depth, g->strips);
        for (int64_t part = 0; part < parts; part++) {
            const int64_t first = part * height / parts, rows = (part + 1) * height / parts - first;
            t.a = block;
            if (parts > 1 || !sms_takes_packed(number)) {
                sms_prepare(number, block + first, height, rows, depth, prepared);
                t.a = prepared;
            }
            t.next_strip = (const char *)(block + next_strip + first);
            t.next_step = height * (int64_t)sizeof *block;
            t.row_scale = g->row_scale ? g->row_scale + row + first : NULL;
            for (int64_t panel = panel0; panel < panel1; panel += SMS_PANELS) {
                const int64_t column = panel * SMS_NR, left = end - column;
                t.b = b + (panel - panel0) * b_panel;
                t.c = g->c + (row + first) * g->ldc + column;
                t.bias = g->bias ? g->bias + column : NULL;
                t.column_scale = g->column_scale ? g->column_scale + column : NULL;
                t.prefetch = prefetch + (panel - panel0) * t.prefetch_panel;
                sms_word_tile_product(number, &t, rows, left < SMS_TILE_COLUMNS ? left : SMS_TILE_COLUMNS);
                t.next_step = 0;
            }
            prefetch += depth * touch_bytes;
        }
        row = row_end;
    }
}

SMS_INLINE int64_t sms_group_end(const struct sms_word_operands *g, int64_t panel, int64_t group) {
    return panel + group < g->panel_end ? panel + group : g->panel_end;
}

#define SMS_WORD_IR(name, number)                                                                                   \
    static void name(const void *operands, int64_t strip0, int64_t strip1, int64_t panel, int64_t k0, int64_t k1,   \
                     int64_t next) {                                                                                \
        const struct sms_word_operands *g = operands;                                                               \
        const int64_t b_panel = SMS_NR * g->depth;                                                                  \
        sms_word_ir(number, g, strip0, strip1, panel, sms_group_end(g, panel, SMS_GROUP), k0, k1, next,             \
                    g->rhs + panel * b_panel + k0 * SMS_NR, b_panel);                                               \
    }
SMS_WORD_IR(sms_bf16_ir, SMS_BF16)
SMS_WORD_IR(sms_s8_ir, SMS_S8)

static void sms_f16_ir(const void *operands, int64_t strip0, int64_t strip1, int64_t panel, int64_t k0, int64_t k1,
                       int64_t next) {
    const struct sms_word_operands *g = operands;
    const int64_t panel1 = sms_group_end(g, panel, SMS_WIDE_GROUP), b_panel = SMS_NR * g->depth;
    sms_word widened[SMS_WIDE_GROUP * SMS_WIDE_PANEL_WORDS];
    sms_widen_panels(g->rhs + panel * b_panel + k0 * SMS_NR, b_panel, panel1 - panel, k1 - k0, widened);
    sms_word_ir(SMS_F16, g, strip0, strip1, panel, panel1, k0, k1, next, widened, SMS_WIDE_PANEL_WORDS);
}

static void sms_word_gemm(const enum sms_number number, sms_ir_loop *ir, const struct sms_word_operands *g,
                          int64_t strip0, int64_t strip1, int64_t panel0) {
    const struct sms_part part = {g->m, g->depth, g->mr, strip0, strip1, panel0, g->panel_end};
    const struct sms_blocking words = {SMS_KC_WORDS, SMS_GROUP, SMS_LHS_BLOCK_BYTES};
    const struct sms_blocking widened = {SMS_WIDE_KC_WORDS, SMS_WIDE_GROUP, SMS_LHS_BLOCK_BYTES};
    sms_each_block(&part, number == SMS_F16 ? widened : words, ir, g);
}

#define SMS_GEMM_FLOAT(name, number)                                                                              \
    static void sms_gemm_##name(const uint16_t *lhs, int64_t m, int64_t k, int64_t mr, const uint16_t *rhs,       \
                                int64_t n, const float *bias, float *c, int64_t ldc, int64_t strip0,              \
                                int64_t strip1, int64_t panel0, int64_t panel1) {                                 \
        const struct sms_word_operands g = {                                                                      \
            .lhs = (const sms_word *)lhs, .rhs = (const sms_word *)rhs, .bias = bias, .c = c, .m = m,             \
            .depth = sms_ceil_div(k, w_group(number)), .mr = mr, .n = n, .ldc = ldc,                              \
            .strips = sms_lhs_strips(m, mr), .panel_end = panel1,                                                 \
        };                                                                                                        \
        sms_word_gemm(number, sms_##name##_ir, &g, strip0, strip1, panel0);                                       \
    }
SMS_GEMM_FLOAT(bf16, SMS_BF16)
SMS_GEMM_FLOAT(f16, SMS_F16)

static void sms_gemm_s8(const int8_t *lhs, const float *row_scale, int64_t m, int64_t k, int64_t mr,
                        const int8_t *rhs, const float *column_scale, int64_t n, const float *bias, float *c,
                        int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1) {
    const struct sms_word_operands g = {
        .lhs = (const sms_word *)lhs, .rhs = (const sms_word *)rhs, .row_scale = row_scale,
        .column_scale = column_scale, .bias = bias, .c = c, .m = m,
        .depth = sms_ceil_div(k, SMS_S8_GROUP), .mr = mr, .n = n, .ldc = ldc,
        .strips = sms_lhs_strips(m, mr), .panel_end = panel1,
    };
    sms_word_gemm(SMS_S8, sms_s8_ir, &g, strip0, strip1, panel0);
}

#endif

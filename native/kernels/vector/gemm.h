/* Matrix products on packed panels.
 *
 * The micro-kernel holds a tile of the product, `height` rows by `panels` panels, in registers and runs along
 * the depth. height and panels are constants at each instance; the loops over them are unrolled. Around it
 * stand the loop ir over strips and those of blocking.h. */
#ifndef SMESIM_GEMM_H
#define SMESIM_GEMM_H

#include "blocking.h"

/* What a tile begins with: nothing, the bias of its columns, or what c holds. */
enum sms_begin { SMS_BEGIN_ZERO, SMS_BEGIN_BIAS, SMS_BEGIN_C };

/* How the rows of a lie: apart in memory, as one packed strip, or as some rows of a higher packed strip. */
enum sms_rows_of { SMS_ROWS_APART, SMS_WHOLE_STRIP, SMS_PART_OF_STRIP };

struct sms_tile {
    const float *a;
    int64_t lda; /* distance of rows that lie apart; height of the strip that they are a part of */
    const float *b;
    int64_t b_panel; /* distance of neighbouring panels */
    int64_t depth;
    const float *bias;
    float *c;
    int64_t ldc;
    enum sms_begin begin;
    /* What later tiles read: touched once every k and panel, prefetch_step further each time. */
    const char *prefetch;
    int64_t prefetch_step;
    /* How far behind a the next strip lies, which is fetched meanwhile: a strip is too short for the hardware to see it
     * coming, and the first panels wait for each of a large left factor. Not of rows that lie apart. */
    int64_t next_strip;
};

SMS_INLINE void sms_micro(const int height, const int panels, const enum sms_rows_of rows,
                          const struct sms_tile *t) {
    enum { V = SMS_PANEL_VECTORS };
    const int vectors = panels * V;
    const int64_t a_row = rows == SMS_ROWS_APART ? t->lda : 1;
    const int64_t a_depth = rows == SMS_ROWS_APART ? 1 : rows == SMS_WHOLE_STRIP ? height : t->lda;
    const int64_t b_panel = t->b_panel, prefetch_step = t->prefetch_step, next_strip = t->next_strip;
    const float *a = t->a, *b = t->b;
    const char *prefetch = t->prefetch;
    vf acc[SMS_MR][SMS_PANELS * V];

    SMS_UNROLL(16)
    for (int r = 0; r < height; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++)
            acc[r][j] = v_set(0.0f);
        SMS_UNROLL(16)
        for (int p = 0; p < panels; p++)
            __builtin_prefetch(t->c + r * t->ldc + p * SMS_NR, 1);
    }
    for (int64_t k = t->depth; k > 0; k--) {
        vf column[SMS_PANELS * V];
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++)
            column[j] = v_load(b + j / V * b_panel + j % V * SMS_LANES);
        SMS_UNROLL(16)
        for (int p = 0; p < panels; p++)
            __builtin_prefetch(prefetch + p * b_panel * (int64_t)sizeof *b, 0, SMS_PREFETCH_LOCALITY);
        if (rows != SMS_ROWS_APART)
            __builtin_prefetch(a + next_strip, 0, SMS_PREFETCH_LOCALITY);
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++) {
            SMS_UNROLL(16)
            for (int j = 0; j < vectors; j++)
                acc[r][j] += column[j] * a[r * a_row];
        }
        a += a_depth;
        b += SMS_NR;
        prefetch += prefetch_step;
    }
    const int64_t ldc = t->ldc;
    float *c = t->c;
    if (t->begin != SMS_BEGIN_ZERO) {
        const float *begin = t->begin == SMS_BEGIN_C ? c : t->bias;
        const int64_t begin_row = t->begin == SMS_BEGIN_C ? ldc : 0;
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++) {
            SMS_UNROLL(16)
            for (int j = 0; j < vectors; j++)
                acc[r][j] += v_load(begin + r * begin_row + j * SMS_LANES);
        }
    }
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++) {
        SMS_UNROLL(16)
        for (int j = 0; j < vectors; j++)
            v_store(c + r * ldc + j * SMS_LANES, acc[r][j]);
    }
}

typedef void sms_micro_kernel(const struct sms_tile *);

#define SMS_MICRO_KERNEL(name, height, panels, rows) \
    static void name##_##height(const struct sms_tile *t) { sms_micro(height, panels, rows, t); }
#define SMS_MICRO_KERNELS(height)                                                       \
    SMS_MICRO_KERNEL(sms_micro_rows, height, SMS_PANELS, SMS_ROWS_APART)                \
    SMS_MICRO_KERNEL(sms_micro_rows_single, height, 1, SMS_ROWS_APART)                  \
    SMS_MICRO_KERNEL(sms_micro_strip, height, SMS_PANELS, SMS_WHOLE_STRIP)              \
    SMS_MICRO_KERNEL(sms_micro_strip_single, height, 1, SMS_WHOLE_STRIP)                \
    SMS_MICRO_KERNEL(sms_micro_part, height, SMS_PANELS, SMS_PART_OF_STRIP)             \
    SMS_MICRO_KERNEL(sms_micro_part_single, height, 1, SMS_PART_OF_STRIP)
SMS_HEIGHTS(SMS_MICRO_KERNELS)

/* By how the rows lie, by a single panel or whole tile width, by height. */
#define SMS_ROWS(height) sms_micro_rows_##height,
#define SMS_ROWS_SINGLE(height) sms_micro_rows_single_##height,
#define SMS_STRIP(height) sms_micro_strip_##height,
#define SMS_STRIP_SINGLE(height) sms_micro_strip_single_##height,
#define SMS_PART(height) sms_micro_part_##height,
#define SMS_PART_SINGLE(height) sms_micro_part_single_##height,
static sms_micro_kernel *const sms_micro_kernels[3][2][SMS_MR] = {
    {{SMS_HEIGHTS(SMS_ROWS_SINGLE)}, {SMS_HEIGHTS(SMS_ROWS)}},
    {{SMS_HEIGHTS(SMS_STRIP_SINGLE)}, {SMS_HEIGHTS(SMS_STRIP)}},
    {{SMS_HEIGHTS(SMS_PART_SINGLE)}, {SMS_HEIGHTS(SMS_PART)}},
};

/* One tile, `columns` wide: into c, or past a buffer where the panels are wider than the columns that are
 * there. */
SMS_INLINE void sms_tile_product(const enum sms_rows_of rows, const struct sms_tile *t, int64_t height,
                                 int64_t columns) {
    const int wide = columns > SMS_NR;
    const int64_t width = wide ? SMS_TILE_COLUMNS : SMS_NR;
    if (columns == width) {
        sms_micro_kernels[rows][wide][height - 1](t);
        return;
    }
    float whole[SMS_MR * SMS_TILE_COLUMNS];
    struct sms_tile buffered = *t;
    buffered.c = whole;
    buffered.ldc = width;
    buffered.begin = SMS_BEGIN_ZERO;
    sms_micro_kernels[rows][wide][height - 1](&buffered);
    for (int64_t r = 0; r < height; r++) {
        for (int64_t j = 0; j < columns; j++) {
            float *c = &t->c[r * t->ldc + j];
            const float begin = t->begin == SMS_BEGIN_C ? *c : t->begin == SMS_BEGIN_BIAS ? t->bias[j] : 0.0f;
            *c = begin + whole[r * width + j];
        }
    }
}

struct sms_gemm_operands {
    const float *lhs, *rhs, *bias;
    float *c;
    int64_t m, k, mr, n, ldc, strips, panel_end;
};

/* The ir loop: one group of panels, one block of the depth, the strips strip0 .. strip1, each in as many parts
 * as the micro-kernel needs. The panels that `next` points at are fetched meanwhile, evenly over the parts. */
static void sms_gemm_ir(const void *operands, int64_t strip0, int64_t strip1, int64_t panel, int64_t k0, int64_t k1,
                        int64_t next) {
    const struct sms_gemm_operands *g = operands;
    const int64_t column = panel * SMS_NR, depth = k1 - k0;
    const int64_t end = g->panel_end * SMS_NR < g->n ? g->panel_end * SMS_NR : g->n;
    const int64_t columns = end - column < SMS_TILE_COLUMNS ? end - column : SMS_TILE_COLUMNS;
    const int64_t touch_bytes = SMS_LINE_BYTES / ((strip1 - strip0) * sms_ceil_div(g->mr, SMS_MR));
    struct sms_tile t = {
        .b = g->rhs + panel * SMS_NR * g->k + k0 * SMS_NR,
        .b_panel = SMS_NR * g->k,
        .depth = depth,
        .bias = g->bias ? g->bias + column : NULL,
        .ldc = g->ldc,
        .begin = k0 > 0    ? SMS_BEGIN_C
                 : g->bias ? SMS_BEGIN_BIAS
                           : SMS_BEGIN_ZERO,
        .prefetch = (const char *)(g->rhs + next),
        .prefetch_step = touch_bytes,
    };
    int64_t row = sms_lhs_strip_row(strip0, g->m, g->strips);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row_end = sms_lhs_strip_row(strip + 1, g->m, g->strips), height = row_end - row;
        const float *strip_a = g->lhs + row * g->k + k0 * height;
        t.next_strip = sms_next_strip(strip, strip0, strip1, k0, k1, g->m, g->k, g->strips);
        if (height <= SMS_MR) {
            t.a = strip_a;
            t.c = g->c + row * g->ldc + column;
            sms_tile_product(SMS_WHOLE_STRIP, &t, height, columns);
            t.prefetch += depth * touch_bytes;
        } else {
            const int64_t parts = sms_ceil_div(height, SMS_MR);
            t.lda = height;
            for (int64_t part = 0; part < parts; part++) {
                const int64_t first = part * height / parts, end_row = (part + 1) * height / parts;
                t.a = strip_a + first;
                t.c = g->c + (row + first) * g->ldc + column;
                sms_tile_product(SMS_PART_OF_STRIP, &t, end_row - first, columns);
                t.prefetch += depth * touch_bytes;
            }
        }
        row = row_end;
    }
}

static void sms_gemm(const float *lhs, int64_t m, int64_t k, int64_t mr, const float *rhs, int64_t n,
                     const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,
                     int64_t panel1) {
    const struct sms_gemm_operands g = {lhs, rhs, bias, c, m, k, mr, n, ldc, sms_lhs_strips(m, mr), panel1};
    const struct sms_part part = {m, k, mr, strip0, strip1, panel0, panel1};
    sms_each_block(&part, (struct sms_blocking){SMS_KC, SMS_PANELS, SMS_LHS_BLOCK_BYTES}, sms_gemm_ir, &g);
}

#endif

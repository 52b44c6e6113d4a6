/* The loops around the micro-kernel: ic over blocks of rows that stay in the cache, pc over blocks of the depth, jr
 * over groups of panels, ir over strips. Each strip is cut into parts of at most two vectors of rows. */
#ifndef SMESIM_SME_GEMM_H
#define SMESIM_SME_GEMM_H

#include <stddef.h>

#include "tile.h"

/* A matrix unit reads from the cache that its cluster shares, some MiB: a block of the lhs takes one of them. Products
 * deeper than SMS_KC load c and store it once more a block, a thirtieth of the block's outer products at SVL 512. */
enum { SMS_KC = 1024, SMS_LHS_BLOCK_BYTES = 1024 * 1024 };

struct sms_gemm_operands {
    const float *lhs, *rhs; /* words */
    int64_t m, k, mr, n;    /* k in words */
    const float *bias, *row_scale, *column_scale;
    float *c;
    int64_t ldc, strip0, strip1, panel0, panel1;
};

/* Strips strip0 .. strip1 times the panels of `panels`, from word k0 of the lhs on. */
SMS_INLINE void sms_gemm_ir(const enum sms_number number, const struct sms_gemm_operands *g,
                            const struct sms_tile *panels, int64_t strip0, int64_t strip1, int64_t k0) SMS_IN_ZA {
    const int64_t part_rows = 2 * (int64_t)svcntw(), strips = sms_lhs_strips(g->m, g->mr);
    int64_t row = sms_lhs_strip_row(strip0, g->m, strips);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row_end = sms_lhs_strip_row(strip + 1, g->m, strips), height = row_end - row;
        const int64_t parts = sms_ceil_div(height, part_rows);
        for (int64_t part = 0; part < parts; part++) {
            const int64_t first = part * height / parts;
            struct sms_tile t = *panels;
            t.a = g->lhs + row * g->k + k0 * height + first;
            t.lda = height;
            t.rows = (part + 1) * height / parts - first;
            t.c += (row + first) * t.ldc;
            if (number == SMS_S8)
                t.row_scale = g->row_scale + row + first;
            sms_tile_product(number, &t);
        }
        row = row_end;
    }
}

#if !defined(__ARM_FEATURE_SME2)
#include "whole_strips.h"
#endif

SMS_INLINE void sms_gemm_words(const enum sms_number number, const struct sms_gemm_operands *g) SMS_IN_ZA {
    const int64_t group = (int64_t)svcntw() / 4; /* panels that one row of four tiles covers */
    const int64_t depth_blocks = g->k > 0 ? sms_ceil_div(g->k, SMS_KC) : 1, strips = g->strip1 - g->strip0;
    const int64_t strip_bytes = g->mr * sms_smaller(g->k, SMS_KC) * (int64_t)sizeof *g->lhs;
    const int64_t fitting = g->k > 0 ? SMS_LHS_BLOCK_BYTES / strip_bytes : strips;
    const int64_t strip_blocks = sms_ceil_div(strips, fitting > 0 ? fitting : 1);
    const int64_t end = sms_smaller(g->panel1 * SMS_NR, g->n);
    const enum sms_begin first = g->bias && number != SMS_S8 ? SMS_BEGIN_BIAS : SMS_BEGIN_ZERO;
    for (int64_t ic = 0; ic < strip_blocks; ic++) {
        const int64_t ic0 = g->strip0 + ic * strips / strip_blocks;
        const int64_t ic1 = g->strip0 + (ic + 1) * strips / strip_blocks;
        for (int64_t pc = 0; pc < depth_blocks; pc++) {
            const int64_t k0 = pc * g->k / depth_blocks, k1 = (pc + 1) * g->k / depth_blocks;
            struct sms_tile panels = {
                .b_panel = SMS_NR * g->k,
                .ldc = g->ldc,
                .depth = k1 - k0,
                .begin = k0 > 0 ? SMS_BEGIN_C : first,
                .finish = k1 == g->k,
            };
            for (int64_t panel = g->panel0; panel < g->panel1; panel += group) {
                const int64_t column = panel * SMS_NR;
                panels.b = g->rhs + column * g->k + k0 * SMS_NR;
                panels.bias = g->bias ? g->bias + column : NULL;
                panels.c = g->c + column;
                panels.columns = sms_smaller(end - column, group * SMS_NR);
                if (number == SMS_S8)
                    panels.column_scale = g->column_scale + column;
#if !defined(__ARM_FEATURE_SME2)
                if (number == SMS_S8 && sms_strips_are_whole(g, panels.depth)) {
                    sms_whole_strips(g, &panels, ic0, ic1, k0);
                    continue;
                }
#endif
                sms_gemm_ir(number, g, &panels, ic0, ic1, k0);
            }
        }
    }
}

#endif

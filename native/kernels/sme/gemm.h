/* The loops around the micro-kernel: ic over blocks of rows that stay in the cache, pc over blocks of the depth, jr
 * over groups of panels, ir over strips. Each strip is cut into parts of at most two vectors of rows. */
#ifndef SMESIM_SME_GEMM_H
#define SMESIM_SME_GEMM_H

#include "tile.h"

/* A matrix unit reads from the cache that its cluster shares, some MiB: a block of the lhs takes one of them. Products
 * deeper than SMS_KC load c and store it once more a block, a thirtieth of the block's outer products at SVL 512. */
enum { SMS_KC = 1024, SMS_LHS_BLOCK_BYTES = 1024 * 1024 };

struct sms_gemm_operands {
    const float *lhs;
    int64_t m, k, strips;
    struct sms_tile tile; /* b, bias, c and columns are those of the panels at hand */
};

SMS_INLINE void sms_gemm_ir(const struct sms_gemm_operands *g, int64_t strip0, int64_t strip1, int64_t k0) SMS_IN_ZA {
    const int64_t part_rows = 2 * (int64_t)svcntw();
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, g->m, g->strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, g->m, g->strips) - row;
        const int64_t parts = sms_ceil_div(height, part_rows);
        for (int64_t part = 0; part < parts; part++) {
            const int64_t first = part * height / parts;
            struct sms_tile t = g->tile;
            t.a = g->lhs + row * g->k + k0 * height + first;
            t.lda = height;
            t.rows = (part + 1) * height / parts - first;
            t.c += (row + first) * t.ldc;
            sms_tile_product(&t);
        }
    }
}

SMS_SME_LEAF void sms_gemm(const float *lhs, int64_t m, int64_t k, int64_t mr, const float *rhs, int64_t n,
                           const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,
                           int64_t panel1) {
    const int64_t group = (int64_t)svcntw() / 4; /* panels that one row of four tiles covers */
    const int64_t depth_blocks = k > 0 ? sms_ceil_div(k, SMS_KC) : 1;
    const int64_t fitting = SMS_LHS_BLOCK_BYTES / (mr * SMS_KC * (int64_t)sizeof *lhs);
    const int64_t strip_blocks = sms_ceil_div(strip1 - strip0, fitting > 0 ? fitting : 1);
    const int64_t end = sms_smaller(panel1 * SMS_NR, n);
    struct sms_gemm_operands g = {lhs, m, k, sms_lhs_strips(m, mr), {.b_panel = SMS_NR * k, .ldc = ldc}};
    for (int64_t ic = 0; ic < strip_blocks; ic++) {
        const int64_t ic0 = strip0 + ic * (strip1 - strip0) / strip_blocks;
        const int64_t ic1 = strip0 + (ic + 1) * (strip1 - strip0) / strip_blocks;
        for (int64_t pc = 0; pc < depth_blocks; pc++) {
            const int64_t k0 = pc * k / depth_blocks;
            g.tile.depth = (pc + 1) * k / depth_blocks - k0;
            g.tile.begin = k0 > 0 ? SMS_BEGIN_C : bias ? SMS_BEGIN_BIAS : SMS_BEGIN_ZERO;
            for (int64_t panel = panel0; panel < panel1; panel += group) {
                const int64_t column = panel * SMS_NR;
                g.tile.b = rhs + column * k + k0 * SMS_NR;
                g.tile.bias = bias ? bias + column : bias;
                g.tile.c = c + column;
                g.tile.columns = sms_smaller(end - column, group * SMS_NR);
                sms_gemm_ir(&g, ic0, ic1, k0);
            }
        }
    }
}

#endif

/* The classic loops of a product, for f32 and for words of low precision, which are as wide: named as BLIS does (Van
 * Zee and van de Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality", 2015), ic over blocks of rows
 * that fit the L2 cache, pc over blocks of the depth, jr over groups of panels. The loop ir over strips is the
 * caller's. */
#ifndef SMESIM_BLOCKING_H
#define SMESIM_BLOCKING_H

#include "smesim/layout.h"
#include "vec.h"

enum {
    SMS_PANEL_VECTORS = SMS_NR / SMS_LANES,
    SMS_TILE_COLUMNS = SMS_NR * SMS_PANELS,
    SMS_LINE_BYTES = 64,
};

struct sms_part {
    int64_t m, k, mr;
    int64_t strip0, strip1, panel0, panel1;
};

/* How deep a block is, how many panels a group has, and the bytes of the lhs that stay in the L2 cache. */
struct sms_blocking {
    int64_t kc, group, lhs_bytes;
};

/* The strips strip0 .. strip1 times the group at `panel`, k0 .. k1 of the depth; what the next call reads of the rhs
 * begins at `next`. */
typedef void sms_ir_loop(const void *operands, int64_t strip0, int64_t strip1, int64_t panel, int64_t k0, int64_t k1,
                         int64_t next);

/* How far behind a strip's elements k0 .. k1 those lie of the strip that comes next, or behind the last one those of the
 * first at k1; where the depth ends, nothing more is known to come. */
SMS_INLINE int64_t sms_next_strip(int64_t strip, int64_t strip0, int64_t strip1, int64_t k0, int64_t k1, int64_t m,
                                  int64_t depth, int64_t strips) {
    const int64_t row = sms_lhs_strip_row(strip, m, strips), end = sms_lhs_strip_row(strip + 1, m, strips);
    if (strip + 1 < strip1)
        return (end - row) * (depth - k0) + k0 * (sms_lhs_strip_row(strip + 2, m, strips) - end);
    if (k1 == depth)
        return 0;
    const int64_t first = sms_lhs_strip_row(strip0, m, strips);
    return (first - row) * depth + k1 * (sms_lhs_strip_row(strip0 + 1, m, strips) - first) - k0 * (end - row);
}

SMS_INLINE void sms_each_block(const struct sms_part *p, const struct sms_blocking blocking, sms_ir_loop *ir,
                               const void *operands) {
    const int64_t k = p->k, strips = p->strip1 - p->strip0, group = blocking.group;
    if (strips == 0)
        return;
    const int64_t depth_blocks = k > 0 ? sms_ceil_div(k, blocking.kc) : 1, all_strips = sms_lhs_strips(p->m, p->mr);
    const int64_t rows =
        sms_lhs_strip_row(p->strip1, p->m, all_strips) - sms_lhs_strip_row(p->strip0, p->m, all_strips);
    if (rows * k * (int64_t)sizeof(float) <= blocking.lhs_bytes) {
        /* All of the lhs stays in the cache: go through the rhs in the order it lies. */
        for (int64_t panel = p->panel0; panel < p->panel1; panel += group) {
            for (int64_t pc = 0; pc < depth_blocks; pc++) {
                const int64_t k0 = pc * k / depth_blocks, k1 = (pc + 1) * k / depth_blocks;
                const int64_t next =
                    pc + 1 < depth_blocks ? panel * SMS_NR * k + k1 * SMS_NR : (panel + group) * SMS_NR * k;
                ir(operands, p->strip0, p->strip1, panel, k0, k1, next);
            }
        }
        return;
    }
    const int64_t most_strips = blocking.lhs_bytes / (p->mr * blocking.kc * (int64_t)sizeof(float));
    const int64_t strip_blocks = sms_ceil_div(strips, most_strips > 0 ? most_strips : 1);
    for (int64_t ic = 0; ic < strip_blocks; ic++) {
        const int64_t ic0 = p->strip0 + ic * strips / strip_blocks, ic1 = p->strip0 + (ic + 1) * strips / strip_blocks;
        for (int64_t pc = 0; pc < depth_blocks; pc++) {
            const int64_t k0 = pc * k / depth_blocks, k1 = (pc + 1) * k / depth_blocks;
            for (int64_t panel = p->panel0; panel < p->panel1; panel += group) {
                const int64_t next = panel + group < p->panel1 ? (panel + group) * SMS_NR * k + k0 * SMS_NR
                                                               : p->panel0 * SMS_NR * k + k1 * SMS_NR;
                ir(operands, ic0, ic1, panel, k0, k1, next);
            }
        }
    }
}

#endif

/* Products of int8 with SME alone at SVL 512, of strips that are 32 rows high, as those of most products are.
 *
 * An outer product of int8 takes four k, so that there are few of them for each sum, and the five instructions that a
 * vector of sums takes in the end weigh the most. With the three loads that four outer products need these are all but
 * a few: what depends on the columns alone is at hand for all strips, and the end of a tile is spelt out. */
#ifndef SMESIM_SME_WHOLE_STRIPS_H
#define SMESIM_SME_WHOLE_STRIPS_H

#include "tile.h"

enum { SMS_WHOLE_STRIP = 2 * SMS_NR };

/* Four rows, which are two slices of all tiles; their scales are the lanes of each quarter of `scales`. Eight vectors
 * are on their way at a time, so that none waits for itself. */
#define SMS_SCALE_FOUR_ROWS(at, slice0, slice1, scales)                       \
    "mov     z16.s, %[all]/m, za0h.s[%w[" at "], " slice0 "]\n\t"             \
    "mov     z17.s, %[all]/m, za1h.s[%w[" at "], " slice0 "]\n\t"             \
    "mov     z18.s, %[all]/m, za2h.s[%w[" at "], " slice0 "]\n\t"             \
    "mov     z19.s, %[all]/m, za3h.s[%w[" at "], " slice0 "]\n\t"             \
    "mov     z20.s, %[all]/m, za0h.s[%w[" at "], " slice1 "]\n\t"             \
    "mov     z21.s, %[all]/m, za1h.s[%w[" at "], " slice1 "]\n\t"             \
    "mov     z22.s, %[all]/m, za2h.s[%w[" at "], " slice1 "]\n\t"             \
    "mov     z23.s, %[all]/m, za3h.s[%w[" at "], " slice1 "]\n\t"             \
    "scvtf   z16.s, %[all]/m, z16.s\n\t"                                      \
    "scvtf   z17.s, %[all]/m, z17.s\n\t"                                      \
    "scvtf   z18.s, %[all]/m, z18.s\n\t"                                      \
    "scvtf   z19.s, %[all]/m, z19.s\n\t"                                      \
    "scvtf   z20.s, %[all]/m, z20.s\n\t"                                      \
    "scvtf   z21.s, %[all]/m, z21.s\n\t"                                      \
    "scvtf   z22.s, %[all]/m, z22.s\n\t"                                      \
    "scvtf   z23.s, %[all]/m, z23.s\n\t"                                      \
    "fmul    z24.s, %[left_scale].s, " scales ".s[0]\n\t"                     \
    "fmul    z25.s, %[right_scale].s, " scales ".s[0]\n\t"                    \
    "fmul    z26.s, %[left_scale].s, " scales ".s[1]\n\t"                     \
    "fmul    z27.s, %[right_scale].s, " scales ".s[1]\n\t"                    \
    "fmul    z28.s, %[left_scale].s, " scales ".s[2]\n\t"                     \
    "fmul    z29.s, %[right_scale].s, " scales ".s[2]\n\t"                    \
    "fmul    z30.s, %[left_scale].s, " scales ".s[3]\n\t"                     \
    "fmul    z31.s, %[right_scale].s, " scales ".s[3]\n\t"                    \
    "fmad    z16.s, %[all]/m, z24.s, %[left_bias].s\n\t"                      \
    "fmad    z17.s, %[all]/m, z25.s, %[right_bias].s\n\t"                     \
    "fmad    z18.s, %[all]/m, z26.s, %[left_bias].s\n\t"                      \
    "fmad    z19.s, %[all]/m, z27.s, %[right_bias].s\n\t"                     \
    "fmad    z20.s, %[all]/m, z28.s, %[left_bias].s\n\t"                      \
    "fmad    z21.s, %[all]/m, z29.s, %[right_bias].s\n\t"                     \
    "fmad    z22.s, %[all]/m, z30.s, %[left_bias].s\n\t"                      \
    "fmad    z23.s, %[all]/m, z31.s, %[right_bias].s\n\t"                     \
    "st1w    {z16.s}, %[left], [%[row]]\n\t"                                  \
    "st1w    {z17.s}, %[right], [%[row], #1, mul vl]\n\t"                     \
    "st1w    {z18.s}, %[left], [%[row], %[row1], lsl #2]\n\t"                 \
    "st1w    {z19.s}, %[right], [%[row], %[beside1], lsl #2]\n\t"             \
    "st1w    {z20.s}, %[left], [%[row], %[row2], lsl #2]\n\t"                 \
    "st1w    {z21.s}, %[right], [%[row], %[beside2], lsl #2]\n\t"             \
    "st1w    {z22.s}, %[left], [%[row], %[row3], lsl #2]\n\t"                 \
    "st1w    {z23.s}, %[right], [%[row], %[beside3], lsl #2]\n\t"             \
    "add     %[row], %[row], %[row1], lsl #4\n\t"

/* Eight rows: four slices from %[at] on. */
#define SMS_SCALE_EIGHT_ROWS(at, bytes, bytes_on)                        \
    "ld1rqw  {z6.s}, %[all]/z, [%[row_scale], #" bytes "]\n\t"           \
    "ld1rqw  {z7.s}, %[all]/z, [%[row_scale], #" bytes_on "]\n\t"        \
    SMS_SCALE_FOUR_ROWS(at, "0", "1", "z6") SMS_SCALE_FOUR_ROWS(at, "2", "3", "z7")

/* The strips strip0 .. strip1 of `g` from word k0 on, times the columns of two tiles. A function of its own: it needs
 * most of the registers. */
static __attribute__((noinline)) void sms_whole_strips_column(const struct sms_gemm_operands *g,
                                                              const struct sms_tile *panels, int64_t column,
                                                              int64_t strip0, int64_t strip1,
                                                              int64_t k0) SMS_IN_ZA {
    const struct sms_pair first = sms_first_rows(column), second = sms_second_rows(column);
    const svbool_t left = sms_lanes_until(column, panels->columns);
    const svbool_t right = sms_lanes_until(column + SMS_NR, panels->columns);
    SMS_PAIR_SCALES(panels, first);
    const float *left_panel = sms_columns_at(1, panels, column).part[0];
    const float *right_panel = sms_columns_at(1, panels, column + SMS_NR).part[0];
    const int64_t depth = panels->depth & ~(int64_t)(SMS_K_A_TURN - 1), ldc = panels->ldc;
    const int64_t strip_words = SMS_WHOLE_STRIP * g->k;
    const int only_block = depth == panels->depth && panels->begin != SMS_BEGIN_C && panels->finish;
    const float *a = g->lhs + strip0 * strip_words + k0 * SMS_WHOLE_STRIP;
    const float *row_scale = g->row_scale + strip0 * SMS_WHOLE_STRIP;
    float *row = panels->c + strip0 * SMS_WHOLE_STRIP * ldc + column;
    struct sms_tile t = *panels;
    t.rows = t.lda = SMS_WHOLE_STRIP;
    uint32_t slice0 = 0, slice4 = 4, slice8 = 8, slice12 = 12;
    SMS_ONE_REGISTER(slice0);
    SMS_ONE_REGISTER(slice4);
    SMS_ONE_REGISTER(slice8);
    SMS_ONE_REGISTER(slice12);
    for (const float *end = a + (strip1 - strip0) * strip_words; a < end; a += strip_words) {
        svzero_za();
        if (!only_block && t.begin == SMS_BEGIN_C) {
            t.c = row - column;
            SMS_LOAD_PAIR(&t, first, 0, 1);
            SMS_LOAD_PAIR(&t, second, 2, 3);
        }
        sms_turns(SMS_S8, a, left_panel, right_panel, left_panel + depth * SMS_NR);
        if (!only_block) {
            t.a = a;
            sms_depth_2x2(SMS_S8, 1, &t, column, depth);
            if (!t.finish) {
                t.c = row - column;
                SMS_STORE_PAIR(&t, first, 0, 1);
                SMS_STORE_PAIR(&t, second, 2, 3);
                row += SMS_WHOLE_STRIP * ldc;
                continue;
            }
        }
        __asm__ volatile(SMS_SCALE_EIGHT_ROWS("slice0", "0", "16") SMS_SCALE_EIGHT_ROWS("slice4", "32", "48")
                         SMS_SCALE_EIGHT_ROWS("slice8", "64", "80") SMS_SCALE_EIGHT_ROWS("slice12", "96", "112")
                         : [row] "+&r"(row)
                         : [row1] "r"(ldc), [row2] "r"(2 * ldc), [row3] "r"(3 * ldc), [beside1] "r"(ldc + SMS_NR),
                           [beside2] "r"(2 * ldc + SMS_NR), [beside3] "r"(3 * ldc + SMS_NR), [slice0] "Ucj"(slice0),
                           [slice4] "Ucj"(slice4), [slice8] "Ucj"(slice8), [slice12] "Ucj"(slice12),
                           [row_scale] "r"(row_scale), [left] "Upl"(left), [right] "Upl"(right),
                           [all] "Upl"(svptrue_b8()), [left_scale] "w"(left_scale), [right_scale] "w"(right_scale),
                           [left_bias] "w"(left_bias), [right_bias] "w"(right_bias)
                         : "z6", "z7", "z16", "z17", "z18", "z19", "z20", "z21", "z22", "z23", "z24", "z25", "z26",
                           "z27", "z28", "z29", "z30", "z31", "za", "memory");
        row_scale += SMS_WHOLE_STRIP;
    }
}

/* Whether all strips are what this file is for, and blocks deep enough for a turn. */
SMS_INLINE int sms_strips_are_whole(const struct sms_gemm_operands *g, int64_t depth) __arm_streaming {
    const int64_t strips = sms_lhs_strips(g->m, g->mr);
    return svcntw() == SMS_NR && strips * SMS_WHOLE_STRIP == g->m && depth >= SMS_K_A_TURN;
}

SMS_INLINE void sms_whole_strips(const struct sms_gemm_operands *g, const struct sms_tile *panels, int64_t strip0,
                                 int64_t strip1, int64_t k0) SMS_IN_ZA {
    for (int64_t column = 0; column < panels->columns; column += 2 * SMS_NR)
        sms_whole_strips_column(g, panels, column, strip0, strip1, k0);
}

#endif

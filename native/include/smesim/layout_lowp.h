/* How bf16, f16 and int8 tensors lie in memory for the kernels: as f32 tensors do (layout.h), with a group of
 * neighbouring k in the place of one, so that a group fills a word of 32 bits. What multiplies low precision
 * multiplies such groups: VDPBF16PS, BFDOT and BFMOPA two bf16, FMOPA two f16, VPDPBUSD, SDOT and SMOPA four int8.
 * BFMMLA and SMMLA multiply blocks of two rows by two groups; interleaving two neighbouring groups gives them.
 * K is padded with zeros to whole groups.
 *
 * lhs_bf16_m{mr}k2, lhs_f16_m{mr}k2, lhs_s8_m{mr}k4   The left factor x[M][K], in the balanced strips of
 * lhs_f32_m{mr}.
 *
 * rhs_bf16_n16k2, rhs_f16_n16k2, rhs_s8_n16k4         The right factor w[N][K], in panels of 16 as rhs_f32_n16;
 * the last panel is padded with zeros. A group is as wide as a float, so a panel's group is one cache line in all
 * of them.
 *
 * bf16 is the upper half of an f32, f16 the binary16 of IEEE 754. int8 numbers are of [-127, 127] and stand for
 * number * scale, with one f32 scale a row of the left factor and one a row of w (a column of the product). Sizes
 * and offsets count elements; packed operands are aligned to 4 bytes at least. */
#ifndef SMESIM_LAYOUT_LOWP_H
#define SMESIM_LAYOUT_LOWP_H

#include "smesim/layout.h"

#define SMS_BF16_GROUP 2
#define SMS_F16_GROUP 2
#define SMS_S8_GROUP 4

/* K rounded up to whole groups. */
static inline int64_t sms_grouped_depth(int64_t k, int64_t group) { return sms_ceil_div(k, group) * group; }

static inline int64_t sms_lhs_grouped_size(int64_t m, int64_t k, int64_t group) {
    return m * sms_grouped_depth(k, group);
}

/* Offset of element (row, k) of x[M][depth] within the strip that begins at row0 and is `height` rows high. */
static inline int64_t sms_lhs_grouped_offset(int64_t row, int64_t k, int64_t row0, int64_t height,
                                             int64_t depth, int64_t group) {
    return row0 * sms_grouped_depth(depth, group) + (k / group * height + (row - row0)) * group + k % group;
}

static inline int64_t sms_rhs_grouped_size(int64_t n, int64_t k, int64_t group) {
    return sms_rhs_size(n, sms_grouped_depth(k, group));
}

static inline int64_t sms_rhs_grouped_offset(int64_t n, int64_t k, int64_t depth, int64_t group) {
    return n / SMS_NR * SMS_NR * sms_grouped_depth(depth, group) + (k / group * SMS_NR + n % SMS_NR) * group +
           k % group;
}

#endif

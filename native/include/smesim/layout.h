/* How f32 tensors lie in memory for the kernels.
 *
 * row_major     element (r, c) at r * ld + c.
 *
 * lhs_f32_m{mr} The left factor x[M][K] of x * w^T, cut into ceil(M / mr) balanced strips: heights differ by
 * at most one row and none is above mr, so there is no padding and no sliver of a last strip. Within a strip
 * the rows are interleaved, the order in which a micro-kernel broadcasts them.
 *
 * rhs_f32_n16   The right factor w[N][K], cut into panels of 16 rows of w (16 columns of the product),
 * interleaved the same way; the last panel is padded with zeros. Every ISA reads this one layout, a wider one
 * takes neighbouring panels together, so one copy of a weight serves all.
 *
 * A K cache of one head is an rhs_f32_n16 of [capacity positions][head_dim], a V cache of one head an
 * rhs_f32_n16 of [head_dim][capacity positions]: scores = q * K^T and output = p * V are then both x * w^T on
 * packed panels. All sizes and offsets count elements. */
#ifndef SMESIM_LAYOUT_H
#define SMESIM_LAYOUT_H

#include <stdint.h>

#define SMS_NR 16

static inline int64_t sms_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline int64_t sms_lhs_strips(int64_t m, int64_t mr) { return sms_ceil_div(m, mr); }

/* First row of a strip; of strip number `strips` it is m. */
static inline int64_t sms_lhs_strip_row(int64_t strip, int64_t m, int64_t strips) {
    return strip * m / strips;
}

static inline int64_t sms_lhs_size(int64_t m, int64_t k) { return m * k; }

/* Offset of element (row, k) within the strip that begins at row0 and is `height` rows high. */
static inline int64_t sms_lhs_offset(int64_t row, int64_t k, int64_t row0, int64_t height, int64_t depth) {
    return row0 * depth + k * height + (row - row0);
}

static inline int64_t sms_rhs_panels(int64_t n) { return sms_ceil_div(n, SMS_NR); }

static inline int64_t sms_rhs_size(int64_t n, int64_t k) { return sms_rhs_panels(n) * SMS_NR * k; }

static inline int64_t sms_rhs_offset(int64_t n, int64_t k, int64_t depth) {
    return n / SMS_NR * SMS_NR * depth + k * SMS_NR + n % SMS_NR;
}

/* Elements of the K or V cache of one head; the heads of a batch element follow one another. */
static inline int64_t sms_k_cache_size(int64_t capacity, int64_t head_dim) {
    return sms_rhs_size(capacity, head_dim);
}

static inline int64_t sms_v_cache_size(int64_t capacity, int64_t head_dim) {
    return sms_rhs_size(head_dim, capacity);
}

/* What the tasks of one attention hand to each other, in whole cache lines. A place in the ring of a pipeline holds one
 * block: scores[rows][keys], shrink[rows]; and what the rows of one chain of blocks gather: scaled queries
 * [rows][head_dim], acc[rows][head_dim], peak[rows], total[rows]. A part of a past that is split holds the last three. */
static inline int64_t sms_ring_place_size(int64_t rows, int64_t head_dim, int64_t keys) {
    return sms_ceil_div(rows * (keys + 2 * head_dim + 3), SMS_NR) * SMS_NR;
}

static inline int64_t sms_attention_part_size(int64_t rows, int64_t head_dim) {
    return sms_ceil_div(rows * (head_dim + 2), SMS_NR) * SMS_NR;
}

#endif

/* How caches of keys and values of fewer bits lie in memory; the f32 ones are in layout.h. Of each head there is
 *
 * f16    the same as in f32, in half the bytes: keys an rhs_n16 of [capacity][head_dim], values one of
 *        [head_dim][capacity].
 * q8_0   blocks of 32 elements of one position, head_dim a multiple of 32. Keys are an rhs_q8_n16k32 of
 *        [capacity][head_dim] (layout_blocks.h), values lie in rows [capacity][head_dim], so that a position can be
 *        appended; the f16 scales, [panel][block][16] of keys and [capacity][blocks] of values, lie behind the numbers.
 *
 * The capacity is a multiple of 16. */
#ifndef SMESIM_LAYOUT_KV_H
#define SMESIM_LAYOUT_KV_H

#include "smesim/layout_blocks.h"

/* Bytes of the keys, or the values, of one head. */
static inline int64_t sms_f16_k_cache_bytes(int64_t capacity, int64_t head_dim) {
    return sms_k_cache_size(capacity, head_dim) * 2;
}

static inline int64_t sms_f16_v_cache_bytes(int64_t capacity, int64_t head_dim) {
    return sms_v_cache_size(capacity, head_dim) * 2;
}

static inline int64_t sms_q8_cache_bytes(int64_t capacity, int64_t head_dim) {
    return capacity * (head_dim + head_dim / SMS_BLOCK * 2);
}

/* Place of a number of a key in 8 bits. */
static inline int64_t sms_q8_k_offset(int64_t position, int64_t i, int64_t head_dim) {
    return sms_rhs_grouped_offset(position, i, head_dim, SMS_S8_GROUP);
}

#endif

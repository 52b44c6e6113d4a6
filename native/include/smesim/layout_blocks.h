/* How block-quantised tensors lie in memory for the kernels. A block is 32 neighbouring k of one row and has one
 * scale; K is padded with zeros to whole blocks. Within a block lie the words of layout_lowp.h, four k each.
 *
 * lhs_q8_m{mr}   The left factor x[M][K]: lhs_s8_m{mr}k4 of the padded K, and with it the f32 scales of
 * x's [M][blocks] as lhs_f32_m{mr}.
 *
 * rhs_q8_n16k32  The right factor w[N][K] in 8 bits: rhs_s8_n16k4 of the padded K.
 *
 * rhs_q4_n16k32  The same in 4 bits. Of a panel, each block is 256 bytes, four rows of 64: byte row j holds in its
 * low nibbles what row 2j of the 8-bit block holds in its bytes, in its high nibbles row 2j + 1. A nibble is the
 * two's complement number, so that in every byte v << 4 and v & 0xf0 are 16 times one.
 *
 * rhs_q4_1_n16k32 The same as rhs_q4, but the nibbles are numbers of [0, 15].
 *
 * With either go the f16 scales of w's [N][blocks] as rhs_f32_n16, which is [panel][block][16]. What pads the last
 * panel has numbers and scales of zero. With q4_1 each 16 scales are followed by the 16 least numbers of their blocks.
 * Packed words are aligned to 4 bytes at least.
 *
 * Where numbers and scales are one operand (program.h), the scales lie behind all numbers. */
#ifndef SMESIM_LAYOUT_BLOCKS_H
#define SMESIM_LAYOUT_BLOCKS_H

#include "smesim/layout_lowp.h"

#define SMS_BLOCK 32

static inline int64_t sms_depth_blocks(int64_t k) { return sms_ceil_div(k, SMS_BLOCK); }

/* Elements of x's numbers; its scales are m * sms_depth_blocks(k). */
static inline int64_t sms_lhs_q8_size(int64_t m, int64_t k) { return m * sms_depth_blocks(k) * SMS_BLOCK; }

/* Elements of w's scales. */
static inline int64_t sms_rhs_scales_size(int64_t n, int64_t k) { return sms_rhs_size(n, sms_depth_blocks(k)); }

/* Bytes of w's numbers. */
static inline int64_t sms_rhs_q8_size(int64_t n, int64_t k) { return sms_rhs_scales_size(n, k) * SMS_BLOCK; }
static inline int64_t sms_rhs_q4_size(int64_t n, int64_t k) { return sms_rhs_q8_size(n, k) / 2; }

#endif

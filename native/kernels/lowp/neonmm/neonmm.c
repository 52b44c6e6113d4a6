/* NEON with FEAT_BF16 and FEAT_I8MM: BFMMLA for bf16, SMMLA for int8; products with one vector use SDOT. */
#define SMS_ISA neonmm
#define SMS_BLOCKS 1
#include "../neon_tile.h"
#include "../neon_sdot.h"

/* Takes denormals as zero and gives none. */
SMS_INLINE vf isa_block_bf16(vf square, vi a, vi b) {
    return (vf)vbfmmlaq_f32((float32x4_t)square, (bfloat16x8_t)a, (bfloat16x8_t)b);
}

SMS_INLINE vi isa_block_s8(vi square, vi a, vi b) {
    return (vi)vmmlaq_s32((int32x4_t)square, (int8x16_t)a, (int8x16_t)b);
}

SMS_INLINE vi isa_zip_low(vi a, vi b) { return (vi)vzip1q_s32((int32x4_t)a, (int32x4_t)b); }
SMS_INLINE vi isa_zip_high(vi a, vi b) { return (vi)vzip2q_s32((int32x4_t)a, (int32x4_t)b); }

SMS_INLINE vi isa_row(vi left, vi right, const int row) {
    const int64x2_t rows = (int64x2_t)left, others = (int64x2_t)right;
    return (vi)(row == 0 ? vzip1q_s64(rows, others) : vzip2q_s64(rows, others));
}

#include "../table.h"

/* The table of one ISA. Its file defines, and then includes this once:
 *
 *   SMS_ISA            its name, a C identifier
 *   SMS_LANES          32-bit elements of a vector; 1 is plain C
 *   SMS_BF16_DOT       1 where the ISA multiplies pairs of bf16, with isa_dot_bf16
 *   SMS_S8_DOT         1 where it multiplies groups of four bytes, with isa_dot_s8
 *   SMS_S8_OFFSET      1 where isa_dot_s8 takes those of the lhs unsigned
 *   SMS_BLOCKS         1 where it multiplies blocks of bf16 and of bytes (blocks.h)
 *   SMS_MR             highest strip, with SMS_HEIGHTS(X) listing X(1) .. X(SMS_MR)
 *   SMS_PANELS         panels of a micro-kernel's tile
 *   SMS_GROUP          panels, a multiple of SMS_PANELS, for which the lhs is prepared once
 *   SMS_KC_WORDS       depth of a block, in words
 *   SMS_LHS_BLOCK_BYTES the block of the lhs that stays in the L2 cache
 *   SMS_TEST_ONLY      1 for a table that only tests may choose
 *   SMS_STAND_IN       defined for a table that is narrower than need be */
#include "../name.h"
#include "append.h"
#include "pack.h"
#include "peak.h"
#include "product.h"
#include "smesim/lowp.h"
#include "vector_product.h"

/* Of one lane of a chain: half a word, a word, or two. */
#define SMS_PEAK_HALF_WORDS(dot) (SMS_BLOCKS ? 4 : (dot) ? 2 : 1)
#define SMS_PEAK_OPERATIONS(half_words, group) (SMS_LANES * SMS_PEAK_CHAINS * (half_words) * (group))

const struct sms_lowp SMS_JOIN(sms_lowp_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .lanes = SMS_LANES,
    .mr = SMS_MR,
    .nr = SMS_NR,
    .panels = SMS_PANELS,
    .kc_groups = SMS_KC_WORDS,
    .test_only = SMS_TEST_ONLY,
#if defined(SMS_STAND_IN)
    .stand_in = 1,
#endif
    .bf16_peak_flop = SMS_PEAK_OPERATIONS(SMS_PEAK_HALF_WORDS(SMS_BF16_DOT), SMS_BF16_GROUP),
    .f16_peak_flop = SMS_PEAK_OPERATIONS(1, SMS_F16_GROUP),
    .s8_peak_op = SMS_PEAK_OPERATIONS(SMS_PEAK_HALF_WORDS(SMS_S8_DOT), SMS_S8_GROUP),
    .pack_lhs_bf16 = sms_pack_lhs_bf16,
    .pack_rhs_bf16 = sms_pack_rhs_bf16,
    .pack_lhs_f16 = sms_pack_lhs_f16,
    .pack_rhs_f16 = sms_pack_rhs_f16,
    .quantize_lhs_s8 = sms_quantize_lhs_s8,
    .pack_rhs_s8 = sms_pack_rhs_s8,
    .narrow_f16 = sms_narrow_f16,
    .widen_f16 = sms_widen_f16,
    .kv_append_f16 = sms_kv_append_f16,
    .kv_pack_f16 = sms_kv_append_f16,
    .gemm_bf16 = sms_gemm_bf16,
    .gemm_f16 = sms_gemm_f16,
    .gemm_s8 = sms_gemm_s8,
    .gemv_bf16 = sms_gemv_bf16,
    .gemv_f16 = sms_gemv_f16,
    .gemv_s8 = sms_gemv_s8,
    .bf16_peak = sms_bf16_peak,
    .f16_peak = sms_f16_peak,
    .s8_peak = sms_s8_peak,
};

/* The table of one ISA. Its file defines, and then includes this once:
 *
 *   SMS_ISA            its name, a C identifier; a table of lowp.h has the same one and needs the same of a CPU
 *   SMS_LANES          32-bit elements of a vector; 1 is plain C
 *   SMS_S8_DOT         1 where it multiplies groups of four bytes, with w_dot_s8
 *   SMS_S8_OFFSET      1 where those of one factor are unsigned
 *   SMS_MR             highest strip, with SMS_HEIGHTS(X) listing X(1) .. X(SMS_MR)
 *   SMS_PANELS         panels of a micro-kernel's tile
 *   SMS_TEST_ONLY      1 for a table that only tests may choose
 *   SMS_STAND_IN       defined for a table that is narrower than need be */
#define SMS_BF16_DOT 0
#define SMS_KC_BLOCKS 64           /* a strip of 6 in 12 KiB, or split into two parts in 24 */
#define SMS_GROUP (8 * SMS_PANELS) /* panels, in 128 KiB of 4 bits where they are 8 */

#include "../name.h"
#include "cache.h"
#include "pack.h"
#include "product.h"
#include "smesim/blocks.h"
#include "vector_product.h"

const struct sms_blocks SMS_JOIN(sms_blocks_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .lanes = SMS_LANES,
    .mr = SMS_MR,
    .nr = SMS_NR,
    .panels = SMS_PANELS,
    .kc_blocks = SMS_KC_BLOCKS,
    .test_only = SMS_TEST_ONLY,
#if defined(SMS_STAND_IN)
    .stand_in = 1,
#endif
    .quantize_lhs_q8 = sms_quantize_lhs_q8,
    .pack_rhs_q4 = sms_pack_rhs_q4,
    .pack_rhs_q8 = sms_pack_rhs_q8,
    .repack_rhs_q4 = sms_repack_rhs_q4,
    .repack_rhs_q8 = sms_repack_rhs_q8,
    .pack_rhs_q4_1 = sms_pack_rhs_q4_1,
    .repack_rhs_q4_1 = sms_repack_rhs_q4_1,
    .quantize_row_q8 = sms_quantize_row_q8,
    .widen_rhs_q8 = sms_widen_rhs_q8,
    .widen_rows_q8 = sms_widen_rows_q8,
    .gemm_q4 = sms_gemm_q4,
    .gemm_q8 = sms_gemm_q8,
    .gemv_q4 = sms_gemv_q4,
    .gemv_q8 = sms_gemv_q8,
    .gemm_q4_1 = sms_gemm_q4_1,
    .gemv_q4_1 = sms_gemv_q4_1,
};

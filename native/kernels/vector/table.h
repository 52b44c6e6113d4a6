/* The table of one ISA. Its file defines, and then includes this once:
 *
 *   SMS_ISA            its name, a C identifier
 *   SMS_LANES          f32 elements of a vector; 1 is plain C
 *   SMS_MR             highest strip, with SMS_HEIGHTS(X) listing X(1) .. X(SMS_MR)
 *   SMS_PANELS         panels of a micro-kernel's tile
 *   SMS_KC             depth of a block: its panels stay in the L1 cache while the strips go by
 *   SMS_LHS_BLOCK_BYTES the block of the lhs that stays in the L2 cache
 *   SMS_TEST_ONLY      1 for a table that only tests may choose
 *   SMS_STAND_IN       defined for a table that is narrower than need be */
#include "../name.h"
#include "attention.h"
#include "attention_fused.h"
#include "gemm.h"
#include "gemv.h"
#include "measure.h"
#include "pack.h"
#include "packed_rows.h"
#include "rows.h"
#include "smesim/kernels.h"

const struct sms_kernels SMS_JOIN(sms_kernels_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .lanes = SMS_LANES,
    .mr = SMS_MR,
    .nr = SMS_NR,
    .panels = SMS_PANELS,
    .kc = SMS_KC,
    .test_only = SMS_TEST_ONLY,
#if defined(SMS_STAND_IN)
    .stand_in = 1,
#endif
    .fma_flop = 2 * SMS_LANES * SMS_MR * SMS_FMA_VECTORS,
    .fma_flop_f64 = 2 * (int)(sizeof(vd) / sizeof(double)) * SMS_MR * SMS_FMA_VECTORS_F64,
    .pack_lhs = sms_pack_lhs,
    .pack_rhs = sms_pack_rhs,
    .unpack_rhs = sms_unpack_rhs,
    .fill_rhs = sms_fill_rhs,
    .fill_rows = sms_fill_rows,
    .gemm = sms_gemm,
    .gemv = sms_gemv,
    .rmsnorm = sms_rmsnorm,
    .add = sms_add,
    .swiglu = sms_swiglu,
    .rmsnorm_packed = sms_rmsnorm_packed,
    .swiglu_packed = sms_swiglu_packed,
    .copy = sms_copy,
    .weighted_sum = sms_weighted_sum,
    .rope = sms_rope,
    .embed_rows = sms_embed_rows,
    .embed_rhs = sms_embed_rhs,
    .argmax = sms_argmax,
    .kv_append = sms_kv_append,
    .kv_pack = sms_kv_append,
    .attention = sms_attention,
    .attention_scratch = sms_attention_scratch,
    .qk_block = sms_qk_block,
    .softmax_block = sms_softmax_block,
    .pv_block = sms_pv_block,
    .scale_rows = sms_scale_rows,
    .attention_begin = sms_attention_begin,
    .attention_end = sms_attention_end,
    .attention_part = sms_attention_part,
    .attention_combine = sms_attention_combine,
    .fma_peak = sms_fma_peak,
    .fma_peak_f64 = sms_fma_peak_f64,
    .read_bandwidth = sms_read_bandwidth,
    .write_bandwidth = sms_write_bandwidth,
    .triad = sms_triad,
};

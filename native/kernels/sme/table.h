/* What a matrix unit does itself. Its file defines SMS_ISA, the table's name, and includes this once.
 *
 * The table is not whole: whatever else there is to compute, the cores' own vectors do better than streaming mode
 * would, and how many rows suit the unit depends on the machine. The registry adds both. */
#include "../name.h"
#include "attention.h"
#include "gemm.h"
#include "measure.h"
#include "pack.h"
#include "smesim/kernels.h"
#if defined(__ARM_FEATURE_SME2)
#include "gemv.h"
#endif

const struct sms_kernels SMS_JOIN(sms_leaves_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .kc = SMS_KC,
    .pack_lhs = sms_pack_lhs,
    .pack_rhs = sms_pack_rhs,
    .gemm = sms_gemm,
#if defined(__ARM_FEATURE_SME2)
    .gemv = sms_gemv, /* SME alone has nothing that a matrix unit could do for one vector */
#endif
    .attention = sms_attention,
    .attention_scratch = sms_attention_scratch,
    .qk_block = sms_qk_block,
    .softmax_block = sms_softmax_block,
    .pv_block = sms_pv_block,
    .fma_peak = sms_fma_peak,
};

/* What a matrix unit does itself of f32. Its file defines SMS_ISA, the table's name, and includes this once.
 *
 * The table is not whole: whatever else there is to compute, the cores' own vectors do better than streaming mode
 * would, and how many rows suit the unit depends on the machine. The registry adds both. */
#include "../name.h"
#include "append.h"
#include "attention.h"
#include "gemm.h"
#include "measure.h"
#include "pack.h"
#include "smesim/kernels.h"
#if defined(__ARM_FEATURE_SME2)
#include "gemv.h"
#endif

SMS_SME_LEAF void sms_gemm(const float *lhs, int64_t m, int64_t k, int64_t mr, const float *rhs, int64_t n,
                           const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,
                           int64_t panel1) {
    const struct sms_gemm_operands g = {
        .lhs = lhs, .rhs = rhs, .m = m, .k = k, .mr = mr, .n = n, .bias = bias, .c = c, .ldc = ldc,
        .strip0 = strip0, .strip1 = strip1, .panel0 = panel0, .panel1 = panel1,
    };
    sms_gemm_words(SMS_F32, &g);
}

#if defined(__ARM_FEATURE_SME2) /* SME alone has nothing that a matrix unit could do for one vector */
SMS_SME_LEAF void sms_gemv(const float *x, const float *rhs, int64_t n, int64_t k, const float *bias, float *y,
                           int64_t panel0, int64_t panel1) {
    const struct sms_gemv_operands g = {
        .x = x, .rhs = rhs, .n = n, .k = k, .depth = k, .bias = bias, .y = y, .panel0 = panel0, .panel1 = panel1,
    };
    sms_gemv_words(SMS_F32, &g);
}
#endif

SMS_KV_PACK(sms_kv_pack, SMS_F32, float)

SMS_SME_LEAF float sms_fma_peak(int64_t iterations) {
    sms_outer_products(SMS_F32, iterations);
    return sms_sum_of_za();
}

const struct sms_kernels SMS_JOIN(sms_leaves_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .kc = SMS_KC,
    .pack_lhs = sms_pack_lhs,
    .pack_rhs = sms_pack_rhs,
    .gemm = sms_gemm,
#if defined(__ARM_FEATURE_SME2)
    .gemv = sms_gemv,
#endif
    .kv_pack = sms_kv_pack,
    .attention = sms_attention,
    .attention_scratch = sms_attention_scratch,
    .qk_block = sms_qk_block,
    .softmax_block = sms_softmax_block,
    .pv_block = sms_pv_block,
    .attention_part = sms_attention_part,
    .fma_peak = sms_fma_peak,
};

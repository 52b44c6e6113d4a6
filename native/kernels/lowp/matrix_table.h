/* What a matrix unit does itself of low precision. Its file defines SMS_ISA, the table's name, and includes this once;
 * the registry adds the rest, as it does to f32's (../sme/table.h). */
#include "../name.h"
#include "../sme/append.h"
#include "../sme/gemm.h"
#include "../sme/measure.h"
#include "smesim/lowp.h"
#if defined(__ARM_FEATURE_SME2)
#include "../sme/gemv.h"
#endif

#define SMS_GEMM_OF_HALVES(name, number)                                                                            \
    SMS_SME_LEAF void name(const uint16_t *lhs, int64_t m, int64_t k, int64_t mr, const uint16_t *rhs, int64_t n,   \
                           const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, \
                           int64_t panel1) {                                                                        \
        const struct sms_gemm_operands g = {                                                                        \
            .lhs = (const float *)lhs, .rhs = (const float *)rhs, .m = m, .k = sms_ceil_div(k, SMS_BF16_GROUP),     \
            .mr = mr, .n = n, .bias = bias, .c = c, .ldc = ldc, .strip0 = strip0, .strip1 = strip1,                 \
            .panel0 = panel0, .panel1 = panel1,                                                                     \
        };                                                                                                          \
        sms_gemm_words(number, &g);                                                                                 \
    }
SMS_GEMM_OF_HALVES(sms_gemm_bf16, SMS_BF16)
SMS_GEMM_OF_HALVES(sms_gemm_f16, SMS_F16)

SMS_SME_LEAF void sms_gemm_s8(const int8_t *lhs, const float *row_scale, int64_t m, int64_t k, int64_t mr,
                              const int8_t *rhs, const float *column_scale, int64_t n, const float *bias, float *c,
                              int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1) {
    const struct sms_gemm_operands g = {
        .lhs = (const float *)lhs, .rhs = (const float *)rhs, .m = m, .k = sms_ceil_div(k, SMS_S8_GROUP),
        .mr = mr, .n = n, .bias = bias, .row_scale = row_scale, .column_scale = column_scale, .c = c, .ldc = ldc,
        .strip0 = strip0, .strip1 = strip1, .panel0 = panel0, .panel1 = panel1,
    };
    sms_gemm_words(SMS_S8, &g);
}

#if defined(__ARM_FEATURE_SME2)
#define SMS_GEMV_OF_HALVES(name, number)                                                                            \
    SMS_SME_LEAF void name(const float *x, const uint16_t *rhs, int64_t n, int64_t k, const float *bias, float *y,  \
                           int64_t panel0, int64_t panel1) {                                                        \
        const struct sms_gemv_operands g = {                                                                        \
            .x = x, .rhs = (const float *)rhs, .n = n, .k = k, .depth = sms_ceil_div(k, SMS_BF16_GROUP),            \
            .bias = bias, .y = y, .panel0 = panel0, .panel1 = panel1,                                               \
        };                                                                                                          \
        sms_gemv_words(number, &g);                                                                                 \
    }
SMS_GEMV_OF_HALVES(sms_gemv_bf16, SMS_BF16)
SMS_GEMV_OF_HALVES(sms_gemv_f16, SMS_F16)

SMS_SME_LEAF void sms_gemv_s8(const int8_t *x, float x_scale, const int8_t *rhs, const float *column_scale, int64_t n,
                              int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) {
    const int64_t words = sms_ceil_div(k, SMS_S8_GROUP);
    const struct sms_gemv_operands g = {
        .x = (const float *)x, .rhs = (const float *)rhs, .n = n, .k = words, .depth = words, .bias = bias,
        .x_scale = x_scale, .column_scale = column_scale, .y = y, .panel0 = panel0, .panel1 = panel1,
    };
    sms_gemv_words(SMS_S8, &g);
}
#endif

SMS_KV_PACK(sms_kv_pack_f16, SMS_F16, uint16_t)

SMS_SME_LEAF float sms_bf16_peak(int64_t iterations) {
    sms_outer_products(SMS_BF16, iterations);
    return sms_sum_of_za();
}

SMS_SME_LEAF float sms_f16_peak(int64_t iterations) {
    sms_outer_products(SMS_F16, iterations);
    return sms_sum_of_za();
}

SMS_SME_LEAF int32_t sms_s8_peak(int64_t iterations) {
    sms_outer_products(SMS_S8, iterations);
    return sms_count_of_za();
}

const struct sms_lowp SMS_JOIN(sms_lowp_leaves_, SMS_ISA) = {
    .isa = SMS_NAME(SMS_ISA),
    .kc_groups = SMS_KC,
    .kv_pack_f16 = sms_kv_pack_f16,
    .gemm_bf16 = sms_gemm_bf16,
    .gemm_f16 = sms_gemm_f16,
    .gemm_s8 = sms_gemm_s8,
#if defined(__ARM_FEATURE_SME2)
    .gemv_bf16 = sms_gemv_bf16,
    .gemv_f16 = sms_gemv_f16,
    .gemv_s8 = sms_gemv_s8,
#endif
    .bf16_peak = sms_bf16_peak,
    .f16_peak = sms_f16_peak,
    .s8_peak = sms_s8_peak,
};

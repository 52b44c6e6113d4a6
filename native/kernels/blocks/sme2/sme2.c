/* SME2: products with one vector by SDOT into ZA, products of matrices by SMOPA. The other leaves are the cores'. */
#include "gemm.h"
#include "gemv.h"
#include "smesim/blocks.h"

const struct sms_blocks sms_block_leaves_sme2 = {
    .isa = "sme2",
    .gemm_q4 = sms_gemm_q4,
    .gemm_q8 = sms_gemm_q8,
    .gemv_q4 = sms_gemv_q4,
    .gemv_q8 = sms_gemv_q8,
};

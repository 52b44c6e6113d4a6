/* The tables of low precision that drive a matrix unit: the leaves that the unit has, completed with those of the
 * best core that runs here, and with the sizes that the machine's vectors give. */
#if defined(SMS_HAVE_SME) || defined(SMS_HAVE_SME2)
#include "matrix.h"

#include "smesim/cpu.h"

extern const struct sms_lowp sms_lowp_leaves_sme, sms_lowp_leaves_sme2;

static void complete(struct sms_lowp *table, const struct sms_lowp *leaves) {
    enum { SVL_BITS_WITHOUT_SME = 512, WORD_BITS = 32, TILES = 4 };
    const int32_t svl_bits = sms_cpu_has_sme() ? sms_cpu_svl_bits() : SVL_BITS_WITHOUT_SME;
    const int32_t lanes = svl_bits / WORD_BITS, columns = 2 * lanes, word_flop = TILES * 2 * lanes * lanes;
    *table = *sms_lowp_best();
    table->isa = leaves->isa;
    table->lanes = lanes;
    table->mr = 2 * lanes;
    table->panels = columns > SMS_NR ? columns / SMS_NR : 1;
    table->kc_groups = leaves->kc_groups;
    table->matrix = 1;
    table->bf16_peak_flop = table->f16_peak_flop = word_flop * SMS_BF16_GROUP;
    table->s8_peak_op = word_flop * SMS_S8_GROUP;
    table->kv_pack_f16 = leaves->kv_pack_f16;
    table->gemm_bf16 = leaves->gemm_bf16;
    table->gemm_f16 = leaves->gemm_f16;
    table->gemm_s8 = leaves->gemm_s8;
    if (leaves->gemv_bf16) {
        table->gemv_bf16 = leaves->gemv_bf16;
        table->gemv_f16 = leaves->gemv_f16;
        table->gemv_s8 = leaves->gemv_s8;
    }
    table->bf16_peak = leaves->bf16_peak;
    table->f16_peak = leaves->f16_peak;
    table->s8_peak = leaves->s8_peak;
}

/* Said before they are complete, so that none is taken for a core's. */
#if defined(SMS_HAVE_SME)
struct sms_lowp sms_lowp_sme = {.matrix = 1};
#endif
#if defined(SMS_HAVE_SME2)
struct sms_lowp sms_lowp_sme2 = {.matrix = 1};
#endif

/* When the library is loaded: before anyone looks, and by one thread. */
__attribute__((constructor)) static void complete_tables(void) {
#if defined(SMS_HAVE_SME)
    complete(&sms_lowp_sme, &sms_lowp_leaves_sme);
#endif
#if defined(SMS_HAVE_SME2)
    complete(&sms_lowp_sme2, &sms_lowp_leaves_sme2);
#endif
}
#endif

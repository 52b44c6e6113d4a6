/* Which tables of blocks are compiled in, and which of them this machine can run. */
#include "../lookup.h"
#include "smesim/blocks.h"
#include "smesim/kernels.h"
#include "smesim/lowp.h"

extern const struct sms_blocks sms_blocks_portable;

#if defined(__x86_64__)
extern const struct sms_blocks sms_blocks_avx2, sms_blocks_avx512vnni, sms_blocks_wide16vnni, sms_blocks_fma128;

static const struct sms_blocks *const tables[] = {&sms_blocks_avx512vnni, &sms_blocks_avx2, &sms_blocks_portable,
                                                  &sms_blocks_fma128, &sms_blocks_wide16vnni};
#elif defined(__aarch64__)
#include "smesim/cpu.h"

extern const struct sms_blocks sms_blocks_neon, sms_blocks_neondot;

/* What a matrix unit does itself; the other leaves are those of the cores. SME alone has nothing that would pay: it
 * reads a tile one row at a time, more instructions than its outer products save. */
static struct sms_blocks with_cores(const char *isa) {
    struct sms_blocks table = sms_cpu_has_dotprod() ? sms_blocks_neondot : sms_blocks_neon;
    table.isa = isa;
    table.matrix = 1;
    return table;
}

#if defined(SMS_HAVE_SME)
static struct sms_blocks sme;
#endif
#if defined(SMS_HAVE_SME2)
extern const struct sms_blocks sms_block_leaves_sme2;
static struct sms_blocks sme2;

static void complete_sme2(void) {
    enum { F32_BITS = 32 };
    sme2 = with_cores(sms_block_leaves_sme2.isa);
    sme2.lanes = sms_cpu_svl_bits() / F32_BITS;
    sme2.mr = 2 * sme2.lanes;
    sme2.gemm_q4 = sms_block_leaves_sme2.gemm_q4;
    sme2.gemm_q8 = sms_block_leaves_sme2.gemm_q8;
    sme2.gemv_q4 = sms_block_leaves_sme2.gemv_q4;
    sme2.gemv_q8 = sms_block_leaves_sme2.gemv_q8;
}
#endif

/* When the library is loaded: before anyone looks, and by one thread. */
__attribute__((constructor)) static void complete_tables(void) {
#if defined(SMS_HAVE_SME)
    sme = with_cores("sme");
#endif
#if defined(SMS_HAVE_SME2)
    complete_sme2();
#endif
}

static const struct sms_blocks *const tables[] = {
#if defined(SMS_HAVE_SME2)
    &sme2,
#endif
#if defined(SMS_HAVE_SME)
    &sme,
#endif
    &sms_blocks_neondot,
    &sms_blocks_neon,
    &sms_blocks_portable,
};
#else
static const struct sms_blocks *const tables[] = {&sms_blocks_portable};
#endif

/* A table needs of a CPU what other tables of its name need. */
static int32_t supported(const struct sms_blocks *blocks) {
    return blocks->matrix ? sms_kernels_find(blocks->isa) != NULL : sms_lowp_find(blocks->isa) != NULL;
}

SMS_LOOKUP(blocks);

/* Which tables are compiled in, and which of them this machine can run. */
#include "lookup.h"
#include "smesim/kernels.h"

extern const struct sms_kernels sms_kernels_portable;

#if defined(__x86_64__)
#include <cpuid.h>

extern const struct sms_kernels sms_kernels_avx2, sms_kernels_avx512, sms_kernels_wide16, sms_kernels_fma128;

/* Register state that the operating system saves (XCR0): x87 is bit 0, SSE 1, AVX 2, AVX-512 masks and uppers
 * 5 to 7. */
enum { SAVED_AVX = 0x06, SAVED_AVX512 = 0xe6 };

/* Feature bits of CPUID leaf 1 (ecx) and leaf 7 (ebx). */
enum {
    LEAF1_FMA = 1u << 12,
    LEAF1_OSXSAVE = 1u << 27,
    LEAF1_AVX = 1u << 28,
    LEAF7_AVX2 = 1u << 5,
    LEAF7_BMI2 = 1u << 8,
    LEAF7_AVX512F = 1u << 16,
    LEAF7_AVX512DQ = 1u << 17,
    LEAF7_AVX512BW = 1u << 30,
};
static const unsigned LEAF7_AVX512VL = 1u << 31;

static unsigned saved_state(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has_avx2(unsigned saved, unsigned leaf1, unsigned leaf7) {
    const unsigned need1 = LEAF1_AVX | LEAF1_FMA, need7 = LEAF7_AVX2 | LEAF7_BMI2;
    return (saved & SAVED_AVX) == SAVED_AVX && (leaf1 & need1) == need1 && (leaf7 & need7) == need7;
}

static int has_avx512(unsigned saved, unsigned leaf7) {
    const unsigned need7 = LEAF7_AVX512F | LEAF7_AVX512DQ | LEAF7_AVX512BW | LEAF7_AVX512VL;
    return (saved & SAVED_AVX512) == SAVED_AVX512 && (leaf7 & need7) == need7;
}

/* Asked of the CPU itself: __builtin_cpu_supports needs a run-time library that not every compiler brings. */
static int32_t supported(const struct sms_kernels *kernels) {
    unsigned eax, ebx, ecx, edx, leaf1, leaf7;
    if (kernels == &sms_kernels_portable)
        return 1;
    if (!__get_cpuid(1, &eax, &ebx, &leaf1, &edx) || !(leaf1 & LEAF1_OSXSAVE))
        return 0;
    if (!__get_cpuid_count(7, 0, &eax, &leaf7, &ecx, &edx))
        return 0;
    const unsigned saved = saved_state();
    return has_avx2(saved, leaf1, leaf7) && (kernels != &sms_kernels_avx512 || has_avx512(saved, leaf7));
}

static const struct sms_kernels *const tables[] = {&sms_kernels_avx512, &sms_kernels_avx2,
                                                   &sms_kernels_portable, &sms_kernels_fma128,
                                                   &sms_kernels_wide16};
#elif defined(__aarch64__)
#include "smesim/cpu.h"

extern const struct sms_kernels sms_kernels_neon;

/* A table whose outer products a matrix unit computes. The leaves that its file gives are only those that the unit has;
 * the others are those of the cores, NEON's. */
static void complete(struct sms_kernels *table, const struct sms_kernels *leaves) {
    enum { SVL_BITS_WITHOUT_SME = 512, F32_BITS = 32, TILES = 4 };
    const int32_t svl_bits = sms_cpu_has_sme() ? sms_cpu_svl_bits() : SVL_BITS_WITHOUT_SME;
    const int32_t lanes = svl_bits / F32_BITS, columns = 2 * lanes;
    *table = sms_kernels_neon;
    table->isa = leaves->isa;
    table->lanes = lanes;
    table->mr = 2 * lanes;
    table->panels = columns > SMS_NR ? columns / SMS_NR : 1;
    table->kc = leaves->kc;
    table->matrix = 1;
    table->fma_flop = TILES * 2 * lanes * lanes;
    table->fma_peak = leaves->fma_peak;
    table->pack_lhs = leaves->pack_lhs;
    table->pack_rhs = leaves->pack_rhs;
    table->gemm = leaves->gemm;
    if (leaves->gemv)
        table->gemv = leaves->gemv;
    table->kv_pack = leaves->kv_pack;
    table->attention = leaves->attention;
    table->attention_scratch = leaves->attention_scratch;
    table->qk_block = leaves->qk_block;
    table->softmax_block = leaves->softmax_block;
    table->pv_block = leaves->pv_block;
    table->attention_part = leaves->attention_part;
}

#if defined(SMS_HAVE_SME)
extern const struct sms_kernels sms_leaves_sme;
static struct sms_kernels sme;
#endif
#if defined(SMS_HAVE_SME2)
extern const struct sms_kernels sms_leaves_sme2;
static struct sms_kernels sme2;
#endif

/* When the library is loaded: before anyone looks, and by one thread. */
__attribute__((constructor)) static void complete_tables(void) {
#if defined(SMS_HAVE_SME)
    complete(&sme, &sms_leaves_sme);
#endif
#if defined(SMS_HAVE_SME2)
    complete(&sme2, &sms_leaves_sme2);
#endif
}

static int32_t supported(const struct sms_kernels *kernels) {
#if defined(SMS_HAVE_SME)
    if (kernels == &sme)
        return sms_cpu_has_sme();
#endif
#if defined(SMS_HAVE_SME2)
    if (kernels == &sme2)
        return sms_cpu_has_sme2();
#endif
    return kernels == &sms_kernels_portable || kernels == &sms_kernels_neon;
}

static const struct sms_kernels *const tables[] = {
#if defined(SMS_HAVE_SME2)
    &sme2,
#endif
#if defined(SMS_HAVE_SME)
    &sme,
#endif
    &sms_kernels_neon,
    &sms_kernels_portable,
};
#else
static int32_t supported(const struct sms_kernels *kernels) { return kernels == &sms_kernels_portable; }

static const struct sms_kernels *const tables[] = {&sms_kernels_portable};
#endif

SMS_LOOKUP(kernels);

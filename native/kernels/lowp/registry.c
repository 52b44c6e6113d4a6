/* Which tables of low precision are compiled in, and which of them this machine can run. */
#include "../lookup.h"
#include "smesim/kernels.h"
#include "smesim/lowp.h"

extern const struct sms_lowp sms_lowp_portable;

#if defined(__x86_64__)
#include <cpuid.h>

extern const struct sms_lowp sms_lowp_avx2, sms_lowp_avx512vnni, sms_lowp_avx512bf16;
extern const struct sms_lowp sms_lowp_wide16vnni, sms_lowp_wide16bf16, sms_lowp_fma128;

enum {
    LEAF1_ECX_F16C = 1u << 29,
    LEAF7_ECX_AVX512_VNNI = 1u << 11,
    LEAF7_1_EAX_AVX512_BF16 = 1u << 5,
};

static int has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & LEAF1_ECX_F16C);
}

static int has_vnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & LEAF7_ECX_AVX512_VNNI);
}

static int has_bf16(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & LEAF7_1_EAX_AVX512_BF16);
}

/* What a table needs beyond these instructions is what the f32 table of its width needs. */
static int32_t supported(const struct sms_lowp *lowp) {
    if (lowp == &sms_lowp_portable)
        return 1;
    if (lowp == &sms_lowp_avx512bf16)
        return sms_kernels_find("avx512") && has_vnni() && has_bf16();
    if (lowp == &sms_lowp_avx512vnni)
        return sms_kernels_find("avx512") && has_vnni();
    return sms_kernels_find("avx2") && has_f16c();
}

static const struct sms_lowp *const tables[] = {&sms_lowp_avx512bf16, &sms_lowp_avx512vnni,
                                                &sms_lowp_avx2,       &sms_lowp_portable,
                                                &sms_lowp_fma128,     &sms_lowp_wide16vnni,
                                                &sms_lowp_wide16bf16};
#elif defined(__aarch64__)
#include "matrix.h"
#include "smesim/cpu.h"

extern const struct sms_lowp sms_lowp_neon, sms_lowp_neondot, sms_lowp_neonmm;

static int32_t supported(const struct sms_lowp *lowp) {
#if defined(SMS_HAVE_SME)
    if (lowp == &sms_lowp_sme)
        return sms_cpu_has_sme();
#endif
#if defined(SMS_HAVE_SME2)
    if (lowp == &sms_lowp_sme2)
        return sms_cpu_has_sme2();
#endif
    if (lowp == &sms_lowp_neonmm)
        return sms_cpu_has_dotprod() && sms_cpu_has_i8mm() && sms_cpu_has_bf16();
    return lowp != &sms_lowp_neondot || sms_cpu_has_dotprod();
}

static const struct sms_lowp *const tables[] = {
#if defined(SMS_HAVE_SME2)
    &sms_lowp_sme2,
#endif
#if defined(SMS_HAVE_SME)
    &sms_lowp_sme,
#endif
    &sms_lowp_neonmm,
    &sms_lowp_neondot,
    &sms_lowp_neon,
    &sms_lowp_portable,
};
#else
static int32_t supported(const struct sms_lowp *lowp) { return lowp == &sms_lowp_portable; }

static const struct sms_lowp *const tables[] = {&sms_lowp_portable};
#endif

SMS_LOOKUP(lowp);

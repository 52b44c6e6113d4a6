/* Asks the system, not the CPU: an instruction is there only if the system also saves the state it needs. */
#include "smesim/cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

/* Bits of the kernel's ABI (Linux, arch/arm64/include/uapi/asm/hwcap.h); a C library may be older than they are. */
enum { FP16 = 10, DOTPROD = 20, SVE = 22 };         /* of AT_HWCAP */
enum { I8MM = 13, BF16 = 14, SME = 23, SME2 = 37 }; /* of AT_HWCAP2 */

static int32_t in_hwcap(int bit) { return getauxval(AT_HWCAP) >> bit & 1; }
static int32_t in_hwcap2(int bit) { return getauxval(AT_HWCAP2) >> bit & 1; }

int32_t sms_cpu_has_fp16(void) { return in_hwcap(FP16); }
int32_t sms_cpu_has_dotprod(void) { return in_hwcap(DOTPROD); }
int32_t sms_cpu_has_i8mm(void) { return in_hwcap2(I8MM); }
int32_t sms_cpu_has_bf16(void) { return in_hwcap2(BF16); }
int32_t sms_cpu_has_sve(void) { return in_hwcap(SVE); }
int32_t sms_cpu_has_sme(void) { return in_hwcap2(SME); }
int32_t sms_cpu_has_sme2(void) { return in_hwcap2(SME2); }

#elif defined(__aarch64__) && defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>

/* A name that the system does not know is a feature that it does not offer. */
static int32_t offered(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value;
}

int32_t sms_cpu_has_fp16(void) { return offered("hw.optional.arm.FEAT_FP16"); }
int32_t sms_cpu_has_dotprod(void) { return offered("hw.optional.arm.FEAT_DotProd"); }
int32_t sms_cpu_has_i8mm(void) { return offered("hw.optional.arm.FEAT_I8MM"); }
int32_t sms_cpu_has_bf16(void) { return offered("hw.optional.arm.FEAT_BF16"); }
int32_t sms_cpu_has_sve(void) { return 0; } /* no Apple CPU has it outside streaming mode */
int32_t sms_cpu_has_sme(void) { return offered("hw.optional.arm.FEAT_SME"); }
int32_t sms_cpu_has_sme2(void) { return offered("hw.optional.arm.FEAT_SME2"); }

#else

int32_t sms_cpu_has_fp16(void) { return 0; }
int32_t sms_cpu_has_dotprod(void) { return 0; }
int32_t sms_cpu_has_i8mm(void) { return 0; }
int32_t sms_cpu_has_bf16(void) { return 0; }
int32_t sms_cpu_has_sve(void) { return 0; }
int32_t sms_cpu_has_sme(void) { return 0; }
int32_t sms_cpu_has_sme2(void) { return 0; }

#endif

#if defined(__aarch64__)
int32_t sms_cpu_svl_bits(void) {
    if (!sms_cpu_has_sme())
        return 0;
    int64_t bits;
    /* rdsvl x0, #8: eight times the bytes of a streaming vector, in any mode; by its code, for assemblers without SME. */
    __asm__ volatile(".inst 0x04bf5900\n\tmov %0, x0" : "=r"(bits) : : "x0");
    return (int32_t)bits;
}
#else
int32_t sms_cpu_svl_bits(void) { return 0; }
#endif

#if defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>

int64_t sms_cpu_sysctl(const char *name, void *value, int64_t size) {
    size_t length = (size_t)size;
    return sysctlbyname(name, value, &length, NULL, 0) == 0 ? (int64_t)length : -1;
}
#else
int64_t sms_cpu_sysctl(const char *name, void *value, int64_t size) {
    (void)name;
    (void)value;
    (void)size;
    return -1;
}
#endif

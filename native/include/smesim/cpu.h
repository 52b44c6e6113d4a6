/* What an Arm CPU, and its operating system for it, can run beyond Armv8.0. All say 0 on every other CPU. */
#ifndef SMESIM_CPU_H
#define SMESIM_CPU_H

#include <stdint.h>

/* 1 if instructions of that name can be used: FEAT_FP16, DotProd, I8MM, BF16, SVE, SME, SME2. */
int32_t sms_cpu_has_fp16(void);
int32_t sms_cpu_has_dotprod(void);
int32_t sms_cpu_has_i8mm(void);
int32_t sms_cpu_has_bf16(void);
int32_t sms_cpu_has_sve(void);
int32_t sms_cpu_has_sme(void);
int32_t sms_cpu_has_sme2(void);
/* Streaming vector length of the calling thread, in bits; 0 without SME. */
int32_t sms_cpu_svl_bits(void);
/* What macOS tells under a name of sysctl: its bytes go to value, at most `size`. Returns how many they are; -1 where
 * there is nothing of that name or size, or no macOS. */
int64_t sms_cpu_sysctl(const char *name, void *value, int64_t size);

#endif

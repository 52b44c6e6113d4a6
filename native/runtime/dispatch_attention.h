#ifndef SMESIM_DISPATCH_ATTENTION_H
#define SMESIM_DISPATCH_ATTENTION_H

#include "smesim/runtime.h"

/* One task of attention, of any of its kinds. */
void sms_run_attention(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);

/* Floats of scratch that a task of that kind needs; 0 if it is none of attention. */
int64_t sms_attention_task_scratch(const struct sms_kernels *kernels, const struct sms_op *op, int32_t task_kind);

#endif

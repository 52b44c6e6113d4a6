#ifndef SMESIM_DISPATCH_ATTENTION_H
#define SMESIM_DISPATCH_ATTENTION_H

#include "smesim/runtime.h"

/* One task of attention, of any of its kinds. */
void sms_run_attention(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                       const struct sms_task *t, float *scratch);

#endif

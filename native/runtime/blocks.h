/* Tasks with weights in blocks, and with what is quantised for them. Numbers and scales of an operand are one buffer, the
 * scales behind all numbers (layout_blocks.h). */
#ifndef SMESIM_RUN_BLOCKS_H
#define SMESIM_RUN_BLOCKS_H

#include "smesim/runtime.h"

/* Whether weights of a format lie in blocks. */
int sms_in_blocks(int32_t number);

/* Quantises rows of x, `ld` apart, into strips of lhs_q8. */
void sms_run_quantize(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                      const float *x, int64_t ld);
/* Brings quantised rows into strips. */
void sms_run_pack_q8(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t);
void sms_run_expert_pack_q8(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t);

/* Products of all of an operator's rows, and of those of some experts. */
void sms_run_block_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);
void sms_run_block_gemv(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);
void sms_run_block_expert(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);

/* y[r] = row ids[r] of a table of weights, packed or in rows of GGUF's blocks. */
void sms_run_block_embed(const struct sms_run *run, const struct sms_op *op, const struct sms_task *t);

#endif

/* Tasks of a mixture of experts.
 *
 * A token's row goes to several experts, and comes back from them as a weighted sum. In between rows lie grouped: those
 * of the first reached expert, then those of the next, as many as smesim/plan/tiles.py says. A routing table tells
 * where each of the m grouped rows belongs; it has three rows of m integers:
 *
 *     token[g]   the token whose row is grouped row g
 *     place[p]   the grouped row of pair p = token * experts_per_token + rank, the token's experts ranked best first
 *     expert[g]  the expert of grouped row g */
#ifndef SMESIM_EXPERTS_H
#define SMESIM_EXPERTS_H

#include "smesim/runtime.h"

/* First grouped row of a reached expert, whose rows are spread as evenly as can be: the first ones have one more. */
int64_t sms_first_row_of_expert(const struct sms_op *op, int64_t expert);

void sms_run_router(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                    const struct sms_task *t, float *scratch);
void sms_run_expert_pack(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                         float *scratch);
void sms_run_expert_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);
void sms_run_expert_combine(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                            const struct sms_task *t);

/* Scratch of a task of these kinds, in elements. */
int64_t sms_expert_scratch(const struct sms_op *op, int32_t task_kind);

#endif

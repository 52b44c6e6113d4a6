/* Tasks of a mixture of experts.
 *
 * A token's row goes to several experts, and comes back from them as a weighted sum. In between rows lie grouped: those
 * of the first reached expert, then those of the next, as many as smesim/plan/tiles.py says. A routing table tells
 * where each of the m grouped rows belongs; it has three rows of m integers:
 *
 *     token[g]   the token whose row is grouped row g
 *     place[p]   the grouped row of pair p = token * experts_per_token + rank, the token's experts ranked best first
 *     expert[g]  the expert of grouped row g
 *
 * Such a table is given to a run, or, for operators that are `routed`, made in it from what the router chose. Then
 * experts have as many rows as fell to them, those with most first, and behind its three rows the table has
 *
 *     first[e]   the first grouped row of the e-th of so many experts as could be reached, and their end */
#ifndef SMESIM_EXPERTS_H
#define SMESIM_EXPERTS_H

#include "smesim/runtime.h"

/* First grouped row of a reached expert; of a given routing rows are spread as evenly as can be, the first experts have
 * one more. */
int64_t sms_first_row_of_expert(const struct sms_run *run, const struct sms_op *op, int64_t expert);
/* A task of an expert's product as it is for so many rows: all their strips, where only the run could know them. */
struct sms_task sms_task_of_expert(const struct sms_op *op, const struct sms_task *t, int64_t rows);

void sms_run_router(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                    const struct sms_task *t, float *scratch);
void sms_run_expert_route(const struct sms_run *run, const struct sms_op *op, float *scratch);
void sms_run_expert_pack(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                         float *scratch);
void sms_run_expert_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                         float *scratch);
void sms_run_expert_combine(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                            const struct sms_task *t);

/* Scratch of a task of these kinds, in elements. */
int64_t sms_expert_scratch(const struct sms_op *op, int32_t task_kind);

#endif

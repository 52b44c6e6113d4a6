/* Attention on caches of keys and values in f16 and Q8_0.
 *
 * A block of keys is made f32 in a worker's scratch, which costs its bytes once for all rows that see it, and then the
 * stages of f32 attention compute with it: there is one set of stages for all formats, on cores and matrix units. */
#ifndef SMESIM_NARROW_CACHE_H
#define SMESIM_NARROW_CACHE_H

#include "smesim/runtime.h"

/* One sequence's head of keys and values, and what its worker computes with. */
struct sms_narrow_head {
    const struct sms_kernels *kernels;
    const struct sms_lowp *lowp;
    const struct sms_blocks *blocks;
    const uint8_t *k_cache, *v_cache;
    int64_t head_dim, capacity;
    int32_t number; /* enum sms_number_format */
};

/* Head number `head` of all sequences' heads. */
struct sms_narrow_head sms_narrow_head(const struct sms_run *run, int32_t worker, const struct sms_op *op, int64_t head);

/* Floats of scratch for the leaves below; `keys` of a stage's block, 0 for whole attention. */
int64_t sms_narrow_scratch(int64_t group, int64_t head_dim, int64_t keys);

/* As the leaves of struct sms_kernels without "narrow". */
void sms_narrow_qk(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *q, int64_t key0,
                   int64_t keys, float *scores, int64_t lds, float *scratch);
void sms_narrow_pv(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *scores,
                   int64_t lds, int64_t key0, int64_t keys, float *acc, float *scratch);
void sms_narrow_attention(const struct sms_narrow_head *head, const float *q, int64_t ldq, float *out, int64_t ldo,
                          int64_t token0, int64_t token1, int64_t past, int64_t group, float *scratch);
void sms_narrow_part(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *q, int64_t ldq,
                     int64_t key0, int64_t keys, float *part, float *scratch);
void sms_narrow_append(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t);

#endif

/* Attention: fused, as a pipeline of stages around a ring, or to parts of the past that are combined. */
#include <math.h>
#include <string.h>

#include "dispatch_attention.h"
#include "narrow_cache.h"

/* Whether keys and values are of fewer bits than f32. */
static int is_narrow(const struct sms_op *op) { return op->rhs_dtype != SMS_NUMBER_F32; }

/* One sequence's head of f32 keys and values, and the query heads that share it. */
struct head {
    const float *q, *k_cache, *v_cache;
    float *out;
    int64_t ld, group;
};

static float *floats(const struct sms_run *run, int32_t buffer) { return run->buffers[buffer]; }

static struct head head_of(const struct sms_run *run, const struct sms_op *op, int64_t sequence, int64_t head) {
    const int64_t cache = is_narrow(op) ? 0 : sequence * op->kv_heads + head, group = op->heads / op->kv_heads;
    const int64_t ld = (int64_t)op->heads * op->head_dim;
    const int64_t first = sequence * op->tokens * ld + head * group * op->head_dim;
    return (struct head){
        .q = floats(run, op->input0) + first,
        .k_cache = floats(run, op->input1) + cache * sms_k_cache_size(op->capacity, op->head_dim),
        .v_cache = floats(run, op->input2) + cache * sms_v_cache_size(op->capacity, op->head_dim),
        .out = floats(run, op->output0) + first,
        .ld = ld,
        .group = group,
    };
}

static struct sms_attention_rows rows_of(const struct sms_op *op, int64_t token0, int64_t token1) {
    const int64_t group = op->heads / op->kv_heads;
    return (struct sms_attention_rows){(token1 - token0) * group, group, op->past + token0, op->head_dim, op->capacity};
}

static void run_fused(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    const struct sms_kernels *k = run->kernels[worker];
    float *scratch = run->scratch[worker];
    for (int64_t sequence = t->begin2; sequence < t->end2; sequence++)
        for (int64_t head = t->begin1; head < t->end1; head++) {
            const struct head h = head_of(run, op, sequence, head);
            if (is_narrow(op)) {
                const struct sms_narrow_head n = sms_narrow_head(run, worker, op, sequence * op->kv_heads + head);
                sms_narrow_attention(&n, h.q, h.ld, h.out, h.ld, t->begin0, t->end0, op->past, h.group, scratch);
                continue;
            }
            k->attention(h.q, h.ld, h.k_cache, h.v_cache, h.out, h.ld, t->begin0, t->end0, op->past, h.group,
                         op->head_dim, op->capacity, scratch);
        }
}

/* One stage of one block. The stages reset what is theirs at the first block of a chain; the last block's values make
 * the chain's output. */
static void run_stage(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    const struct sms_kernels *k = run->kernels[worker];
    const struct head h = head_of(run, op, t->begin2 / op->kv_heads, t->begin2 % op->kv_heads);
    const struct sms_attention_rows at = rows_of(op, t->begin0, t->end0);
    const int64_t d = op->head_dim, key0 = t->begin1, keys = t->end1 - key0, lds = op->key_block;
    const int64_t most_rows = op->query_block * h.group, place = sms_ring_place_size(most_rows, d, lds);
    float *scores = floats(run, op->handover) + t->slot * place, *shrink = scores + most_rows * lds;
    float *scaled = floats(run, op->handover) + t->state * place + most_rows * (lds + 1);
    float *acc = scaled + most_rows * d, *peak = acc + most_rows * d, *total = peak + most_rows;
    switch (t->kind) {
    case SMS_ATTENTION_QK:
        if (key0 == 0)
            k->attention_begin(&at, h.q + t->begin0 * h.ld, h.ld, scaled);
        if (is_narrow(op)) {
            const struct sms_narrow_head n = sms_narrow_head(run, worker, op, t->begin2);
            sms_narrow_qk(&n, &at, scaled, key0, keys, scores, lds, run->scratch[worker]);
        } else
            k->qk_block(&at, scaled, h.k_cache, key0, keys, scores, lds);
        break;
    case SMS_ATTENTION_SOFTMAX:
        for (int64_t row = 0; key0 == 0 && row < at.rows; row++) {
            peak[row] = -INFINITY;
            total[row] = 0.0f;
        }
        k->softmax_block(&at, key0, keys, scores, lds, peak, total, shrink);
        break;
    default:
        if (key0 == 0)
            memset(acc, 0, (size_t)(at.rows * d) * sizeof *acc);
        else
            k->scale_rows(acc, at.rows, d, shrink);
        if (is_narrow(op)) {
            const struct sms_narrow_head n = sms_narrow_head(run, worker, op, t->begin2);
            sms_narrow_pv(&n, &at, scores, lds, key0, keys, acc, run->scratch[worker]);
        } else
            k->pv_block(&at, scores, lds, h.v_cache, key0, keys, acc);
        if (t->end1 == op->past + t->end0)
            k->attention_end(&at, acc, total, h.out + t->begin0 * h.ld, h.ld);
    }
}

/* Parts of the past, or what they are combined to. Part after part lies whole, heads and sequences in it. */
static void run_split(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    const struct sms_kernels *k = run->kernels[worker];
    float *scratch = run->scratch[worker];
    const struct sms_attention_rows at = rows_of(op, 0, op->tokens);
    const int64_t size = sms_attention_part_size(at.rows, op->head_dim), heads = (int64_t)op->batch * op->kv_heads;
    for (int64_t sequence = t->begin2; sequence < t->end2; sequence++)
        for (int64_t head = t->begin1; head < t->end1; head++) {
            const struct head h = head_of(run, op, sequence, head);
            float *parts = floats(run, op->handover) + (sequence * op->kv_heads + head) * size;
            if (t->kind == SMS_ATTENTION_PART && is_narrow(op)) {
                const struct sms_narrow_head n = sms_narrow_head(run, worker, op, sequence * op->kv_heads + head);
                sms_narrow_part(&n, &at, h.q, h.ld, t->begin0, t->end0 - t->begin0, parts + t->slot * heads * size,
                                scratch);
            } else if (t->kind == SMS_ATTENTION_PART)
                k->attention_part(&at, h.q, h.ld, h.k_cache, h.v_cache, t->begin0, t->end0 - t->begin0,
                                  parts + t->slot * heads * size, scratch);
            else
                k->attention_combine(&at, parts, t->end0, heads * size, h.out, h.ld);
        }
}

void sms_run_attention(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    switch (t->kind) {
    case SMS_ATTENTION: run_fused(run, worker, op, t); break;
    case SMS_ATTENTION_PART:
    case SMS_ATTENTION_COMBINE: run_split(run, worker, op, t); break;
    default: run_stage(run, worker, op, t);
    }
}

int64_t sms_attention_task_scratch(const struct sms_kernels *kernels, const struct sms_op *op, int32_t task_kind) {
    const int is_whole = task_kind == SMS_ATTENTION || task_kind == SMS_ATTENTION_PART;
    const int64_t group = op->kv_heads ? op->heads / op->kv_heads : 0;
    if (is_whole)
        return is_narrow(op) ? sms_narrow_scratch(group, op->head_dim, 0)
                             : kernels->attention_scratch(group, op->head_dim);
    const int is_product = task_kind == SMS_ATTENTION_QK || task_kind == SMS_ATTENTION_PV;
    return is_product && is_narrow(op) ? sms_narrow_scratch(group, op->head_dim, op->key_block) : 0;
}

/* From a task to the leaf that does it: resolves buffers, rows and leading dimensions, and calls one kernel. */
#include <stddef.h>

#include "blocks.h"
#include "dispatch_attention.h"
#include "embed_bf16.h"
#include "experts.h"
#include "narrow_cache.h"
#include "smesim/runtime.h"

/* What a leaf needs to know of an operand: where the operator's row 0 is, and how far apart its rows are. */
struct rows {
    float *data;
    int64_t ld;
};

static float *buffer(const struct sms_run *run, int32_t index) { return index < 0 ? NULL : run->buffers[index]; }

/* The rows of an activation as the operator counts them. An operator that computes fewer rows than there are reads the
 * last row of each sequence, or of its first `tokens` rows where that is given; one that computes more (a norm of each
 * head) sees shorter rows, one after another. */
static struct rows activation(const struct sms_run *run, int32_t index, const struct sms_op *op, int64_t width) {
    const struct sms_buffer *facts = &run->buffer_facts[index];
    int64_t stride = op->m < facts->rows ? facts->rows / op->m : 1;
    int64_t last = stride > 1 && op->tokens ? op->tokens : stride;
    return (struct rows){buffer(run, index) + (last - 1) * width, stride * width};
}

static void run_rowwise(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                        const struct sms_task *t) {
    int64_t begin = t->begin0, rows = t->end0 - t->begin0, n = op->n;
    struct rows x = activation(run, op->input0, op, n), y = {buffer(run, op->output0), n};
    float *from = x.data + begin * x.ld, *to = y.data + begin * n;
    if (t->kind == SMS_RMSNORM) {
        k->rmsnorm(from, x.ld, buffer(run, op->weight), to, n, rows, n, op->eps);
        return;
    }
    struct rows other = activation(run, op->input1, op, n);
    for (int64_t r = 0; r < rows; r++) {
        const float *a = from + r * x.ld, *b = other.data + (begin + r) * other.ld;
        if (t->kind == SMS_ADD)
            k->add(a, b, to + r * n, n);
        else
            k->swiglu(a, b, to + r * n, n);
    }
}

static void run_embed(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                      const struct sms_task *t) {
    const int32_t *ids = (const int32_t *)run->buffers[op->input0] + t->begin0;
    float *to = buffer(run, op->output0) + (int64_t)t->begin0 * op->n;
    const int64_t rows = t->end0 - t->begin0;
    const void *table = run->buffers[op->weight];
    const int packed = run->buffer_facts[op->weight].layout == SMS_RHS_PACKED;
    if (sms_in_blocks(op->rhs_dtype))
        sms_run_block_embed(run, op, t);
    else if (op->rhs_dtype == SMS_NUMBER_BF16) {
        if (packed)
            sms_embed_rhs_bf16(ids, rows, table, op->n, to, op->n);
        else
            sms_embed_rows_bf16(ids, rows, table, op->n, op->n, to, op->n);
    } else if (packed)
        k->embed_rhs(ids, rows, table, op->n, to, op->n);
    else
        k->embed_rows(ids, rows, table, op->n, op->n, to, op->n);
}

static void run_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_block_gemm(run, worker, op, t);
        return;
    }
    const void *lhs = run->buffers[op->packed], *rhs = run->buffers[op->weight];
    const float *bias = buffer(run, op->bias);
    float *c = buffer(run, op->output0);
    if (op->rhs_dtype == SMS_NUMBER_BF16)
        run->lowp[worker]->gemm_bf16(lhs, op->m, op->k, op->lhs_mr, rhs, op->n, bias, c, op->n, t->begin0, t->end0,
                                     t->begin1, t->end1);
    else
        run->kernels[worker]->gemm(lhs, op->m, op->k, op->lhs_mr, rhs, op->n, bias, c, op->n, t->begin0, t->end0,
                                   t->begin1, t->end1);
}

static void run_gemv(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_block_gemv(run, worker, op, t);
        return;
    }
    const float *x = activation(run, op->input0, op, op->k).data, *bias = buffer(run, op->bias);
    const void *rhs = run->buffers[op->weight];
    float *y = buffer(run, op->output0);
    if (op->rhs_dtype == SMS_NUMBER_BF16)
        run->lowp[worker]->gemv_bf16(x, rhs, op->n, op->k, bias, y, t->begin1, t->end1);
    else
        run->kernels[worker]->gemv(x, rhs, op->n, op->k, bias, y, t->begin1, t->end1);
}

static void run_pack(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_pack_q8(run, op, t);
        return;
    }
    struct rows x = activation(run, op->input0, op, op->k);
    void *packed = run->buffers[op->packed];
    if (op->rhs_dtype == SMS_NUMBER_BF16)
        run->lowp[worker]->pack_lhs_bf16(x.data, x.ld, op->m, op->k, op->lhs_mr, t->begin0, t->end0, packed);
    else
        run->kernels[worker]->pack_lhs(x.data, x.ld, op->m, op->k, op->lhs_mr, t->begin0, t->end0, packed);
}

static void run_quantize(const struct sms_run *run, int32_t worker, const struct sms_op *op,
                         const struct sms_task *t) {
    const struct rows x = activation(run, op->input0, op, op->n);
    sms_run_quantize(run, worker, op, t, x.data, x.ld);
}

/* A norm or an activation whose output is the packed operand of the products that read it. */
static void run_packed_rows(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                            const struct sms_task *t) {
    struct rows x = activation(run, op->input0, op, op->n);
    float *out = buffer(run, op->packed_out);
    if (t->kind == SMS_RMSNORM_PACKED) {
        k->rmsnorm_packed(x.data, x.ld, buffer(run, op->weight), op->m, op->n, op->eps, op->lhs_mr, t->begin0,
                          t->end0, out);
        return;
    }
    struct rows other = activation(run, op->input1, op, op->n);
    k->swiglu_packed(x.data, x.ld, other.data, other.ld, op->m, op->n, op->lhs_mr, t->begin0, t->end0, out);
}

/* Rows of one sequence follow one another in position; a range may span sequences. */
static void run_rope(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                     const struct sms_task *t) {
    float *x = buffer(run, op->input0);
    for (int64_t r = t->begin0; r < t->end0;) {
        int64_t token = r % op->tokens, rows = op->tokens - token;
        if (rows > t->end0 - r)
            rows = t->end0 - r;
        k->rope(x + r * op->n, op->n, rows, op->heads, op->head_dim, buffer(run, op->input1), buffer(run, op->input2),
                op->past + token);
        r += rows;
    }
}

static void run_kv_append(const struct sms_run *run, int32_t worker, const struct sms_op *op,
                          const struct sms_task *t) {
    const struct sms_kernels *k = run->kernels[worker];
    if (op->rhs_dtype != SMS_NUMBER_F32) {
        sms_narrow_append(run, worker, op, t);
        return;
    }
    int64_t ld = (int64_t)op->kv_heads * op->head_dim;
    for (int64_t sequence = t->begin2; sequence < t->end2; sequence++) {
        int64_t row = sequence * op->tokens + t->begin0;
        float *k_cache = buffer(run, op->output0) + sequence * op->kv_heads * sms_k_cache_size(op->capacity, op->head_dim);
        float *v_cache = buffer(run, op->output1) + sequence * op->kv_heads * sms_v_cache_size(op->capacity, op->head_dim);
        k->kv_append(buffer(run, op->input0) + row * ld, ld, buffer(run, op->input1) + row * ld, ld,
                     t->end0 - t->begin0, op->past + t->begin0, 0, op->kv_heads, op->head_dim, op->capacity, k_cache,
                     v_cache);
    }
}

static void run_argmax(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                       const struct sms_task *t) {
    int32_t *ids = run->buffers[op->output0];
    for (int64_t r = t->begin0; r < t->end0; r++)
        ids[r] = (int32_t)k->argmax(buffer(run, op->input0) + r * op->n, op->n);
}

int sms_run_task(const struct sms_run *run, const struct sms_task *t, int32_t worker) {
    const struct sms_kernels *k = run->kernels[worker];
    const struct sms_op *op = &run->ops[t->op];
    switch (t->kind) {
    case SMS_EMBED: run_embed(run, k, op, t); return 0;
    case SMS_RMSNORM:
    case SMS_ADD:
    case SMS_SWIGLU: run_rowwise(run, k, op, t); return 0;
    case SMS_PACK_LHS: run_pack(run, worker, op, t); return 0;
    case SMS_RMSNORM_PACKED:
    case SMS_SWIGLU_PACKED: run_packed_rows(run, k, op, t); return 0;
    case SMS_GEMM: run_gemm(run, worker, op, t); return 0;
    case SMS_GEMV: run_gemv(run, worker, op, t); return 0;
    case SMS_ROPE: run_rope(run, k, op, t); return 0;
    case SMS_KV_APPEND: run_kv_append(run, worker, op, t); return 0;
    case SMS_ATTENTION:
    case SMS_ATTENTION_QK:
    case SMS_ATTENTION_SOFTMAX:
    case SMS_ATTENTION_PV:
    case SMS_ATTENTION_PART:
    case SMS_ATTENTION_COMBINE: sms_run_attention(run, worker, op, t); return 0;
    case SMS_ARGMAX: run_argmax(run, k, op, t); return 0;
    case SMS_ROUTER: sms_run_router(run, k, op, t, run->scratch[worker]); return 0;
    case SMS_EXPERT_ROUTE: sms_run_expert_route(run, op, run->scratch[worker]); return 0;
    case SMS_EXPERT_PACK: sms_run_expert_pack(run, worker, op, t, run->scratch[worker]); return 0;
    case SMS_EXPERT_GEMM: sms_run_expert_gemm(run, worker, op, t, run->scratch[worker]); return 0;
    case SMS_QUANTIZE: run_quantize(run, worker, op, t); return 0;
    case SMS_EXPERT_COMBINE: sms_run_expert_combine(run, k, op, t); return 0;
    default: return SMS_NO_KERNEL;
    }
}

int64_t sms_scratch_bytes(const struct sms_kernels *kernels, const struct sms_op *ops, const struct sms_task *tasks,
                          int32_t n_tasks) {
    int64_t most = 0;
    for (int32_t i = 0; i < n_tasks; i++) {
        const struct sms_op *op = &ops[tasks[i].op];
        const int64_t of_attention = sms_attention_task_scratch(kernels, op, tasks[i].kind);
        const int64_t need = of_attention ? of_attention : sms_expert_scratch(op, tasks[i].kind);
        most = need > most ? need : most;
    }
    return most * (int64_t)sizeof(float);
}

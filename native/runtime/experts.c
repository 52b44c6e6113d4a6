#include "experts.h"

#include <math.h>
#include <stddef.h>

#include "blocks.h"

/* Rows that the router scores at a time; what it needs of scratch does not grow with the tokens. */
enum { ROUTER_ROWS = 64 };

static int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

int64_t sms_first_row_of_expert(const struct sms_op *op, int64_t expert) {
    return op->m / op->experts * expert + at_most(expert, op->m % op->experts);
}

/* A NaN is above all numbers, so that it gets into the shares, where it is found. */
static int above(float a, float b) { return a > b || (a != a && b == b); }

/* The experts of one token, best first; of equal ones that of the lowest index. */
static void choose(const struct sms_op *op, const float *logits, int32_t *experts, float *shares) {
    const int64_t most = op->experts_per_token;
    int64_t kept = 0;
    for (int32_t e = 0; e < op->n; e++) {
        if (kept == most && !above(logits[e], shares[most - 1]))
            continue;
        int64_t at = kept < most ? kept++ : most - 1;
        for (; at > 0 && above(logits[e], shares[at - 1]); at--) {
            shares[at] = shares[at - 1];
            experts[at] = experts[at - 1];
        }
        shares[at] = logits[e];
        experts[at] = e;
    }
    const float peak = shares[0];
    float total = 0.0f;
    for (int64_t i = 0; i < most; i++) {
        shares[i] = expf(shares[i] - peak);
        total += shares[i];
    }
    if (!op->normalised) {
        total = 0.0f;
        for (int32_t e = 0; e < op->n; e++)
            total += expf(logits[e] - peak);
    }
    for (int64_t i = 0; i < most; i++)
        shares[i] /= total;
}

void sms_run_router(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                    const struct sms_task *t, float *scratch) {
    const float *x = run->buffers[op->input0], *weight = run->buffers[op->weight];
    const int64_t n = op->n, depth = op->k, panels = sms_rhs_panels(n), most = op->experts_per_token;
    int32_t *experts = run->buffers[op->output0];
    float *shares = run->buffers[op->output1];
    float *logits = scratch, *packed = scratch + at_most(op->m, ROUTER_ROWS) * n;
    for (int64_t first = t->begin0; first < t->end0; first += ROUTER_ROWS) {
        const int64_t rows = at_most(t->end0 - first, ROUTER_ROWS), strips = sms_lhs_strips(rows, k->mr);
        if (op->m == 1) {
            k->gemv(x, weight, n, depth, NULL, logits, 0, panels);
        } else {
            k->pack_lhs(x + first * depth, depth, rows, depth, k->mr, 0, strips, packed);
            k->gemm(packed, rows, depth, k->mr, weight, n, NULL, logits, n, 0, strips, 0, panels);
        }
        for (int64_t r = 0; r < rows; r++)
            choose(op, logits + r * n, experts + (first + r) * most, shares + (first + r) * most);
    }
}

/* Rows that lie apart are brought together strip by strip; one row alone is packed as it is. */
static void gather(const struct sms_kernels *k, const float *x, const int32_t *tokens, int64_t rows, int64_t depth,
                   int64_t mr, float *out, float *scratch) {
    const int64_t strips = sms_lhs_strips(rows, mr);
    for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t begin = sms_lhs_strip_row(strip, rows, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, rows, strips) - begin;
        float *strip_rows = height == 1 ? out + begin * depth : scratch;
        for (int64_t r = 0; r < height; r++)
            k->copy(x + tokens[begin + r] * depth, strip_rows + r * depth, depth);
        if (height > 1)
            k->pack_lhs(scratch, depth, height, depth, mr, 0, 1, out + begin * depth);
    }
}

void sms_run_expert_pack(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                         float *scratch) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_expert_pack_q8(run, op, t);
        return;
    }
    const struct sms_kernels *k = run->kernels[worker];
    const float *x = run->buffers[op->input0];
    const int32_t *tokens = run->buffers[op->input2];
    const int64_t depth = op->k, mr = op->lhs_mr;
    for (int64_t expert = t->begin2; expert < t->end2; expert++) {
        const int64_t first = sms_first_row_of_expert(op, expert), rows = sms_first_row_of_expert(op, expert + 1) - first;
        float *out = (float *)run->buffers[op->packed] + first * depth;
        if (op->gathers)
            gather(k, x, tokens + first, rows, depth, mr, out, scratch);
        else
            k->pack_lhs(x + first * depth, depth, rows, depth, mr, 0, sms_lhs_strips(rows, mr), out);
    }
}

void sms_run_expert_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_block_expert(run, worker, op, t);
        return;
    }
    const struct sms_kernels *k = run->kernels[worker];
    const int32_t *expert_of = (const int32_t *)run->buffers[op->input2] + 2 * (int64_t)op->m;
    for (int64_t expert = t->begin2; expert < t->end2; expert++) {
        const int64_t first = sms_first_row_of_expert(op, expert), rows = sms_first_row_of_expert(op, expert + 1) - first;
        const float *lhs = (const float *)run->buffers[op->packed] + first * op->k;
        const float *rhs = (const float *)run->buffers[op->weight] + expert_of[first] * sms_rhs_size(op->n, op->k);
        float *out = (float *)run->buffers[op->output0] + first * op->n;
        if (rows == 1)
            k->gemv(lhs, rhs, op->n, op->k, NULL, out, t->begin1, t->end1);
        else
            k->gemm(lhs, rows, op->k, op->lhs_mr, rhs, op->n, NULL, out, op->n, t->begin0, t->end0, t->begin1,
                    t->end1);
    }
}

void sms_run_expert_combine(const struct sms_run *run, const struct sms_kernels *k, const struct sms_op *op,
                            const struct sms_task *t) {
    const int64_t n = op->n, most = op->experts_per_token;
    const int32_t *places = (const int32_t *)run->buffers[op->input2] + op->m * most;
    const float *shares = run->buffers[op->input1];
    for (int64_t row = t->begin0; row < t->end0; row++)
        k->weighted_sum(run->buffers[op->input0], n, places + row * most, shares + row * most, most,
                        (float *)run->buffers[op->output0] + row * n, n);
}

int64_t sms_expert_scratch(const struct sms_op *op, int32_t task_kind) {
    if (task_kind == SMS_ROUTER)
        return at_most(op->m, ROUTER_ROWS) * (op->n + op->k);
    if (task_kind == SMS_EXPERT_PACK && op->gathers)
        return (int64_t)op->lhs_mr * op->k;
    return 0;
}

#include "experts.h"

#include <math.h>
#include <stddef.h>

#include "blocks.h"
#include "embed_bf16.h"

/* Rows that the router scores at a time; what it needs of scratch does not grow with the tokens. */
enum { ROUTER_ROWS = 64 };

static int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

int64_t sms_first_row_of_expert(const struct sms_run *run, const struct sms_op *op, int64_t expert) {
    if (op->routed)
        return ((const int32_t *)run->buffers[op->input2])[3 * (int64_t)op->m + expert];
    return op->m / op->experts * expert + at_most(expert, op->m % op->experts);
}

struct sms_task sms_task_of_expert(const struct sms_op *op, const struct sms_task *t, int64_t rows) {
    struct sms_task task = *t;
    if (op->routed) {
        task.begin0 = 0;
        task.end0 = (int32_t)sms_lhs_strips(rows, op->lhs_mr);
    }
    return task;
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

/* The table of the routing that the router chose. In scratch: how many rows each expert has, and the experts that have
 * any, those with most first. */
void sms_run_expert_route(const struct sms_run *run, const struct sms_op *op, float *scratch) {
    const int64_t most = op->experts_per_token, pairs = op->m * most, experts = op->n, reachable = at_most(pairs, experts);
    const int32_t *chosen = run->buffers[op->output0];
    int32_t *token = run->buffers[op->input2], *place = token + pairs, *expert_of = place + pairs;
    int32_t *first = expert_of + pairs, *rows = (int32_t *)(void *)scratch, *order = rows + experts;
    for (int64_t e = 0; e < experts; e++)
        rows[e] = 0;
    for (int64_t pair = 0; pair < pairs; pair++)
        rows[chosen[pair]]++;
    int64_t reached = 0;
    for (int32_t e = 0; e < experts; e++) {
        if (rows[e] == 0)
            continue;
        int64_t at = reached++;
        for (; at > 0 && rows[order[at - 1]] < rows[e]; at--)
            order[at] = order[at - 1];
        order[at] = e;
    }
    int32_t next = 0;
    for (int64_t i = 0; i < reachable; i++) {
        first[i] = next;
        if (i < reached) {
            const int32_t count = rows[order[i]];
            rows[order[i]] = next; /* from here on: where its next row goes */
            next += count;
        }
    }
    first[reachable] = next;
    for (int64_t pair = 0; pair < pairs; pair++) {
        const int32_t at = rows[chosen[pair]]++;
        token[at] = (int32_t)(pair / most);
        place[pair] = at;
        expert_of[at] = chosen[pair];
    }
}

/* The depth of packed rows, in elements: that of bf16 is padded to whole pairs. */
static int64_t packed_depth(const struct sms_op *op) {
    return op->rhs_dtype == SMS_NUMBER_BF16 ? sms_ceil_div(op->k, SMS_BF16_GROUP) * SMS_BF16_GROUP : op->k;
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

/* The same in bf16; rows that follow one another, `tokens` NULL, are packed from where they are. */
static void pack_bf16(const struct sms_kernels *k, const struct sms_lowp *lowp, const float *x, const int32_t *tokens,
                      int64_t rows, int64_t depth, int64_t mr, int64_t out_depth, uint16_t *out, float *scratch) {
    const int64_t strips = sms_lhs_strips(rows, mr);
    if (!tokens) {
        lowp->pack_lhs_bf16(x, depth, rows, depth, mr, 0, strips, out);
        return;
    }
    for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t begin = sms_lhs_strip_row(strip, rows, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, rows, strips) - begin;
        for (int64_t r = 0; r < height; r++)
            k->copy(x + tokens[begin + r] * depth, scratch + r * depth, depth);
        lowp->pack_lhs_bf16(scratch, depth, height, depth, mr, 0, 1, out + begin * out_depth);
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
        const int64_t first = sms_first_row_of_expert(run, op, expert);
        const int64_t rows = sms_first_row_of_expert(run, op, expert + 1) - first;
        if (op->rhs_dtype == SMS_NUMBER_BF16) {
            const int64_t out_depth = packed_depth(op);
            pack_bf16(k, run->lowp[worker], op->gathers ? x : x + first * depth, op->gathers ? tokens + first : NULL, rows,
                      depth, mr, out_depth, (uint16_t *)run->buffers[op->packed] + first * out_depth, scratch);
            continue;
        }
        float *out = (float *)run->buffers[op->packed] + first * depth;
        if (op->gathers)
            gather(k, x, tokens + first, rows, depth, mr, out, scratch);
        else
            k->pack_lhs(x + first * depth, depth, rows, depth, mr, 0, sms_lhs_strips(rows, mr), out);
    }
}

/* The rows of one expert, from grouped row `first` on, in bf16. A single row is widened again, for a matrix times a
 * vector. */
static void expert_bf16(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                        int64_t expert, int64_t first, int64_t rows, float *out, float *scratch) {
    const struct sms_lowp *lowp = run->lowp[worker];
    const uint16_t *lhs = (const uint16_t *)run->buffers[op->packed] + first * packed_depth(op);
    const uint16_t *rhs =
        (const uint16_t *)run->buffers[op->weight] + expert * sms_rhs_grouped_size(op->n, op->k, SMS_BF16_GROUP);
    if (rows == 1) {
        sms_widen_bf16(lhs, op->k, scratch);
        lowp->gemv_bf16(scratch, rhs, op->n, op->k, NULL, out, t->begin1, t->end1);
    } else {
        lowp->gemm_bf16(lhs, rows, op->k, op->lhs_mr, rhs, op->n, NULL, out, op->n, t->begin0, t->end0, t->begin1,
                        t->end1);
    }
}

void sms_run_expert_gemm(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t,
                         float *scratch) {
    if (sms_in_blocks(op->rhs_dtype)) {
        sms_run_block_expert(run, worker, op, t);
        return;
    }
    const struct sms_kernels *k = run->kernels[worker];
    const int32_t *expert_of = (const int32_t *)run->buffers[op->input2] + 2 * (int64_t)op->m;
    for (int64_t expert = t->begin2; expert < t->end2; expert++) {
        const int64_t first = sms_first_row_of_expert(run, op, expert);
        const int64_t rows = sms_first_row_of_expert(run, op, expert + 1) - first;
        if (rows == 0)
            continue;
        const struct sms_task task = sms_task_of_expert(op, t, rows);
        float *out = (float *)run->buffers[op->output0] + first * op->n;
        if (op->rhs_dtype == SMS_NUMBER_BF16) {
            expert_bf16(run, worker, op, &task, expert_of[first], first, rows, out, scratch);
            continue;
        }
        const float *lhs = (const float *)run->buffers[op->packed] + first * op->k;
        const float *rhs = (const float *)run->buffers[op->weight] + expert_of[first] * sms_rhs_size(op->n, op->k);
        if (rows == 1)
            k->gemv(lhs, rhs, op->n, op->k, NULL, out, t->begin1, t->end1);
        else
            k->gemm(lhs, rows, op->k, op->lhs_mr, rhs, op->n, NULL, out, op->n, task.begin0, task.end0, task.begin1,
                    task.end1);
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
    if (task_kind == SMS_EXPERT_ROUTE)
        return 2 * (int64_t)op->n;
    if (task_kind == SMS_EXPERT_PACK && op->gathers)
        return (int64_t)op->lhs_mr * op->k;
    if (task_kind == SMS_EXPERT_GEMM && op->rhs_dtype == SMS_NUMBER_BF16)
        return op->k;
    return 0;
}

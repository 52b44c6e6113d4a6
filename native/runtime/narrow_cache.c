#include "narrow_cache.h"

#include <math.h>
#include <string.h>

#include "smesim/layout_kv.h"

/* Rows that are worked on together, and keys of a block: with many rows a block is used often, with few it should
 * stay in the L1 cache. */
enum { MOST_ROWS = 96, KEYS_OF_MANY = 256, FEW_ROWS = 16, KEYS_OF_FEW = 64 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t block_tokens(int64_t group) { return group < MOST_ROWS ? MOST_ROWS / group : 1; }

static int64_t block_keys(int64_t rows) { return rows > FEW_ROWS ? KEYS_OF_MANY : KEYS_OF_FEW; }

/* Keys of a block in whole panels. */
static int64_t whole(int64_t keys) { return sms_rhs_panels(keys) * SMS_NR; }

/* A block of keys or of values as f32. */
static int64_t wide_size(int64_t keys, int64_t head_dim) { return whole(keys) * sms_rhs_panels(head_dim) * SMS_NR; }

int64_t sms_narrow_scratch(int64_t group, int64_t head_dim, int64_t keys) {
    if (keys)
        return wide_size(keys, head_dim);
    const int64_t rows = block_tokens(group) * group;
    return rows * (2 * head_dim + KEYS_OF_MANY + 3) + wide_size(KEYS_OF_MANY, head_dim);
}

static int64_t cache_bytes(int32_t number, int is_v, int64_t capacity, int64_t head_dim) {
    if (number == SMS_NUMBER_Q8_0)
        return sms_q8_cache_bytes(capacity, head_dim);
    return is_v ? sms_f16_v_cache_bytes(capacity, head_dim) : sms_f16_k_cache_bytes(capacity, head_dim);
}

struct sms_narrow_head sms_narrow_head(const struct sms_run *run, int32_t worker, const struct sms_op *op, int64_t head) {
    const int64_t d = op->head_dim, capacity = op->capacity;
    const uint8_t *k = run->buffers[op->input1], *v = run->buffers[op->input2];
    return (struct sms_narrow_head){
        .kernels = run->kernels[worker],
        .lowp = run->lowp[worker],
        .blocks = run->blocks[worker],
        .k_cache = k + head * cache_bytes(op->rhs_dtype, 0, capacity, d),
        .v_cache = v + head * cache_bytes(op->rhs_dtype, 1, capacity, d),
        .head_dim = d,
        .capacity = capacity,
        .number = op->rhs_dtype,
    };
}

/* Keys key0 .. key0 + keys, key0 a multiple of 16, as an rhs_f32_n16 of them alone. */
static void widen_keys(const struct sms_narrow_head *head, int64_t key0, int64_t keys, float *wide) {
    const int64_t d = head->head_dim;
    if (head->number == SMS_NUMBER_Q8_0) {
        const uint16_t *scale = (const uint16_t *)(const void *)(head->k_cache + head->capacity * d);
        const int8_t *numbers = (const int8_t *)head->k_cache;
        head->blocks->widen_rhs_q8(numbers, scale, d, key0 / SMS_NR, (key0 + whole(keys)) / SMS_NR, wide);
    } else {
        head->lowp->widen_f16((const uint16_t *)(const void *)head->k_cache + key0 * d, whole(keys) * d, wide);
    }
}

/* Values of the same, as an rhs_f32_n16 of [head_dim][whole(keys)]. */
static void widen_values(const struct sms_narrow_head *head, int64_t key0, int64_t keys, float *wide) {
    const int64_t d = head->head_dim, n = whole(keys);
    if (head->number == SMS_NUMBER_Q8_0) {
        const uint16_t *scale = (const uint16_t *)(const void *)(head->v_cache + head->capacity * d);
        head->blocks->widen_rows_q8((const int8_t *)head->v_cache + key0 * d, scale + key0 * (d / SMS_BLOCK), n, d, wide);
        return;
    }
    const uint16_t *v = (const uint16_t *)(const void *)head->v_cache;
    for (int64_t panel = 0; panel < sms_rhs_panels(d); panel++)
        head->lowp->widen_f16(v + (panel * head->capacity + key0) * SMS_NR, n * SMS_NR, wide + panel * n * SMS_NR);
}

/* The rows as they see a block that begins with key0. */
static struct sms_attention_rows seen_from(const struct sms_attention_rows *at, int64_t key0, int64_t keys) {
    struct sms_attention_rows rows = *at;
    rows.position -= key0;
    rows.capacity = whole(keys);
    return rows;
}

void sms_narrow_qk(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *q, int64_t key0,
                   int64_t keys, float *scores, int64_t lds, float *scratch) {
    const struct sms_attention_rows rows = seen_from(at, key0, keys);
    widen_keys(head, key0, keys, scratch);
    head->kernels->qk_block(&rows, q, scratch, 0, keys, scores, lds);
}

void sms_narrow_pv(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *scores,
                   int64_t lds, int64_t key0, int64_t keys, float *acc, float *scratch) {
    const struct sms_attention_rows rows = seen_from(at, key0, keys);
    widen_values(head, key0, keys, scratch);
    head->kernels->pv_block(&rows, scores, lds, scratch, 0, keys, acc);
}

/* What a block of rows gathers as the keys go by, and where it keeps what passes between the stages. */
struct gathered {
    float *acc, *peak, *total;
    float *scores, *shrink, *wide;
};

static void gather(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *scaled,
                   int64_t key_begin, int64_t key_end, struct gathered to) {
    const int64_t block = block_keys(at->rows);
    for (int64_t row = 0; row < at->rows; row++) {
        to.peak[row] = -INFINITY;
        to.total[row] = 0.0f;
    }
    memset(to.acc, 0, (size_t)(at->rows * at->head_dim) * sizeof *to.acc);
    for (int64_t key0 = key_begin; key0 < key_end; key0 += block) {
        const int64_t keys = smaller(key_end - key0, block);
        sms_narrow_qk(head, at, scaled, key0, keys, to.scores, block, to.wide);
        head->kernels->softmax_block(at, key0, keys, to.scores, block, to.peak, to.total, to.shrink);
        head->kernels->scale_rows(to.acc, at->rows, at->head_dim, to.shrink);
        sms_narrow_pv(head, at, to.scores, block, key0, keys, to.acc, to.wide);
    }
}

void sms_narrow_attention(const struct sms_narrow_head *head, const float *q, int64_t ldq, float *out, int64_t ldo,
                          int64_t token0, int64_t token1, int64_t past, int64_t group, float *scratch) {
    const int64_t d = head->head_dim, most = block_tokens(group), rows = most * group;
    float *scaled = scratch, *acc = scaled + rows * d, *scores = acc + rows * d;
    float *peak = scores + rows * KEYS_OF_MANY, *total = peak + rows, *shrink = total + rows;
    const struct gathered gathered = {acc, peak, total, scores, shrink, shrink + rows};
    for (int64_t token = token0; token < token1; token += most) {
        const int64_t tokens = smaller(token1 - token, most);
        const struct sms_attention_rows at = {tokens * group, group, past + token, d, head->capacity};
        head->kernels->attention_begin(&at, q + token * ldq, ldq, scaled);
        gather(head, &at, scaled, 0, past + token + tokens, gathered);
        head->kernels->attention_end(&at, acc, total, out + token * ldo, ldo);
    }
}

void sms_narrow_part(const struct sms_narrow_head *head, const struct sms_attention_rows *at, const float *q, int64_t ldq,
                     int64_t key0, int64_t keys, float *part, float *scratch) {
    const int64_t rows = at->rows, d = at->head_dim;
    float *scaled = scratch, *scores = scaled + rows * d, *shrink = scores + rows * block_keys(rows);
    float *peak = part + rows * d;
    const struct gathered gathered = {part, peak, peak + rows, scores, shrink, shrink + rows};
    head->kernels->attention_begin(at, q, ldq, scaled);
    gather(head, at, scaled, key0, key0 + keys, gathered);
}

static void append_q8(const struct sms_blocks *blocks, const float *x, int is_v, int64_t position, int64_t d,
                      int64_t capacity, uint8_t *cache) {
    const int64_t per_row = d / SMS_BLOCK;
    int8_t *numbers = (int8_t *)cache;
    uint16_t *scales = (uint16_t *)(void *)(cache + capacity * d);
    if (is_v) {
        blocks->quantize_row_q8(x, d, numbers + position * d, scales + position * per_row);
        return;
    }
    for (int64_t block = 0; block < per_row; block++) {
        int8_t own[SMS_BLOCK];
        blocks->quantize_row_q8(x + block * SMS_BLOCK, SMS_BLOCK, own, &scales[sms_rhs_offset(position, block, per_row)]);
        for (int64_t j = 0; j < SMS_BLOCK; j++)
            numbers[sms_q8_k_offset(position, block * SMS_BLOCK + j, d)] = own[j];
    }
}

static void append_f16(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    const struct sms_lowp *lowp = run->lowp[worker];
    const int64_t d = op->head_dim, capacity = op->capacity, ld = op->kv_heads * d;
    const float *k = run->buffers[op->input0], *v = run->buffers[op->input1];
    uint16_t *k_cache = run->buffers[op->output0], *v_cache = run->buffers[op->output1];
    for (int64_t sequence = t->begin2; sequence < t->end2; sequence++) {
        const int64_t row = sequence * op->tokens + t->begin0, first = sequence * op->kv_heads;
        (t->kind == SMS_KV_PACK ? lowp->kv_pack_f16 : lowp->kv_append_f16)(
            k + row * ld, ld, v + row * ld, ld, t->end0 - t->begin0, op->past + t->begin0, 0, op->kv_heads, d, capacity,
            k_cache + first * sms_k_cache_size(capacity, d), v_cache + first * sms_v_cache_size(capacity, d));
    }
}

void sms_narrow_append(const struct sms_run *run, int32_t worker, const struct sms_op *op, const struct sms_task *t) {
    if (op->rhs_dtype == SMS_NUMBER_F16) {
        append_f16(run, worker, op, t);
        return;
    }
    const int64_t d = op->head_dim, ld = op->kv_heads * d, size = sms_q8_cache_bytes(op->capacity, d);
    for (int is_v = 0; is_v < 2; is_v++) {
        const float *x = run->buffers[is_v ? op->input1 : op->input0];
        uint8_t *caches = run->buffers[is_v ? op->output1 : op->output0];
        for (int64_t sequence = t->begin2; sequence < t->end2; sequence++)
            for (int64_t token = t->begin0; token < t->end0; token++)
                for (int64_t head = 0; head < op->kv_heads; head++) {
                    const float *from = x + (sequence * op->tokens + token) * ld + head * d;
                    append_q8(run->blocks[worker], from, is_v, op->past + token, d, op->capacity,
                              caches + (sequence * op->kv_heads + head) * size);
                }
    }
}

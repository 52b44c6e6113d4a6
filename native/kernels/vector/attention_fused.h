/* Fused causal attention of one KV head: blocks of keys flow through scores = q * K^T, an online softmax, and
 * acc += p * V (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
 * "FlashAttention", 2022).
 *
 * Before this is included stand the stages sms_qk_block, sms_softmax_block and sms_pv_block, and the sizes of a
 * block: SMS_ATTENTION_ROWS and SMS_ATTENTION_KEYS. */
#ifndef SMESIM_ATTENTION_FUSED_H
#define SMESIM_ATTENTION_FUSED_H

#include <math.h>
#include <string.h>

#include "inline.h"
#include "smesim/kernels.h"

/* Tokens whose rows are worked on together: as many as give the products reuse, and at least one. */
SMS_INLINE int64_t sms_attention_tokens(int64_t group) {
    return group < SMS_ATTENTION_ROWS ? SMS_ATTENTION_ROWS / group : 1;
}

static int64_t sms_attention_scratch(int64_t group, int64_t head_dim) {
    const int64_t rows = sms_attention_tokens(group) * group;
    return rows * (2 * head_dim + SMS_ATTENTION_KEYS + 3);
}

static void sms_scale_rows(float *x, int64_t rows, int64_t dim, const float *factors) {
    for (int64_t row = 0; row < rows; row++)
        if (factors[row] != 1.0f)
            for (int64_t j = 0; j < dim; j++)
                x[row * dim + j] *= factors[row];
}

static void sms_attention_begin(const struct sms_attention_rows *at, const float *q, int64_t ldq, float *scaled) {
    const int64_t width = at->group * at->head_dim, tokens = at->rows / at->group;
    const float scale = 1.0f / sqrtf((float)at->head_dim);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t j = 0; j < width; j++)
            scaled[t * width + j] = q[t * ldq + j] * scale;
}

static void sms_attention_end(const struct sms_attention_rows *at, const float *acc, const float *total, float *out,
                              int64_t ldo) {
    const int64_t d = at->head_dim;
    for (int64_t row = 0; row < at->rows; row++) {
        const float inverse = 1.0f / total[row];
        float *to = out + row / at->group * ldo + row % at->group * d;
        for (int64_t j = 0; j < d; j++)
            to[j] = acc[row * d + j] * inverse;
    }
}

/* What a block of rows gathers as the keys go by, and where it keeps what passes between the stages. */
struct sms_gathered {
    float *acc, *peak, *total;
    float *scores, *shrink;
};

static void sms_gather(const struct sms_attention_rows *at, const float *scaled, const float *k_cache,
                       const float *v_cache, int64_t key_begin, int64_t key_end, struct sms_gathered to) {
    for (int64_t row = 0; row < at->rows; row++) {
        to.peak[row] = -INFINITY;
        to.total[row] = 0.0f;
    }
    memset(to.acc, 0, (size_t)(at->rows * at->head_dim) * sizeof *to.acc);
    for (int64_t key0 = key_begin; key0 < key_end; key0 += SMS_ATTENTION_KEYS) {
        const int64_t keys = key_end - key0 < SMS_ATTENTION_KEYS ? key_end - key0 : SMS_ATTENTION_KEYS;
        sms_qk_block(at, scaled, k_cache, key0, keys, to.scores, SMS_ATTENTION_KEYS);
        sms_softmax_block(at, key0, keys, to.scores, SMS_ATTENTION_KEYS, to.peak, to.total, to.shrink);
        sms_scale_rows(to.acc, at->rows, at->head_dim, to.shrink);
        sms_pv_block(at, to.scores, SMS_ATTENTION_KEYS, v_cache, key0, keys, to.acc);
    }
}

static void sms_attention(const float *q, int64_t ldq, const float *k_cache, const float *v_cache, float *out,
                          int64_t ldo, int64_t token0, int64_t token1, int64_t past, int64_t group,
                          int64_t head_dim, int64_t capacity, float *scratch) {
    const int64_t d = head_dim, block_tokens = sms_attention_tokens(group), block_rows = block_tokens * group;
    float *scaled = scratch, *acc = scaled + block_rows * d, *scores = acc + block_rows * d;
    float *peak = scores + block_rows * SMS_ATTENTION_KEYS, *total = peak + block_rows, *shrink = total + block_rows;
    const struct sms_gathered gathered = {acc, peak, total, scores, shrink};
    for (int64_t token = token0; token < token1; token += block_tokens) {
        const int64_t tokens = token1 - token < block_tokens ? token1 - token : block_tokens;
        const struct sms_attention_rows at = {tokens * group, group, past + token, d, capacity};
        sms_attention_begin(&at, q + token * ldq, ldq, scaled);
        sms_gather(&at, scaled, k_cache, v_cache, 0, past + token + tokens, gathered);
        sms_attention_end(&at, acc, total, out + token * ldo, ldo);
    }
}

static void sms_attention_part(const struct sms_attention_rows *at, const float *q, int64_t ldq, const float *k_cache,
                               const float *v_cache, int64_t key0, int64_t keys, float *part, float *scratch) {
    const int64_t rows = at->rows, d = at->head_dim;
    float *scaled = scratch, *scores = scaled + rows * d, *peak = part + rows * d;
    const struct sms_gathered gathered = {part, peak, peak + rows, scores, scores + rows * SMS_ATTENTION_KEYS};
    sms_attention_begin(at, q, ldq, scaled);
    sms_gather(at, scaled, k_cache, v_cache, key0, key0 + keys, gathered);
}

#endif

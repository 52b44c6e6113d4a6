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
    return rows * (2 * head_dim + SMS_ATTENTION_KEYS + 2);
}

static void sms_attention(const float *q, int64_t ldq, const float *k_cache, const float *v_cache, float *out,
                          int64_t ldo, int64_t token0, int64_t token1, int64_t past, int64_t group,
                          int64_t head_dim, int64_t capacity, float *scratch) {
    const int64_t d = head_dim, block_tokens = sms_attention_tokens(group), block_rows = block_tokens * group;
    const float scale = 1.0f / sqrtf((float)d);
    float *scaled = scratch, *acc = scaled + block_rows * d, *scores = acc + block_rows * d;
    float *peak = scores + block_rows * SMS_ATTENTION_KEYS, *total = peak + block_rows;
    for (int64_t token = token0; token < token1; token += block_tokens) {
        const int64_t tokens = token1 - token < block_tokens ? token1 - token : block_tokens;
        const struct sms_attention_rows at = {tokens * group, group, past + token, d, capacity};
        const int64_t keys_end = past + token + tokens;
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t j = 0; j < group * d; j++)
                scaled[t * group * d + j] = q[(token + t) * ldq + j] * scale;
        for (int64_t row = 0; row < at.rows; row++) {
            peak[row] = -INFINITY;
            total[row] = 0.0f;
        }
        memset(acc, 0, (size_t)(at.rows * d) * sizeof *acc);
        for (int64_t key0 = 0; key0 < keys_end; key0 += SMS_ATTENTION_KEYS) {
            const int64_t keys = keys_end - key0 < SMS_ATTENTION_KEYS ? keys_end - key0 : SMS_ATTENTION_KEYS;
            sms_qk_block(&at, scaled, k_cache, key0, keys, scores, SMS_ATTENTION_KEYS);
            sms_softmax_block(&at, key0, keys, scores, SMS_ATTENTION_KEYS, peak, total, acc);
            sms_pv_block(&at, scores, SMS_ATTENTION_KEYS, v_cache, key0, keys, acc);
        }
        for (int64_t row = 0; row < at.rows; row++) {
            const float inverse = 1.0f / total[row];
            float *to = out + (token + row / group) * ldo + row % group * d;
            for (int64_t j = 0; j < d; j++)
                to[j] = acc[row * d + j] * inverse;
        }
    }
}

#endif

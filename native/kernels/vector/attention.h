/* The stages of attention: scores = q * K^T, an online softmax, and acc += p * V. Both products are the
 * micro-kernels of gemm.h on the packed caches.
 *
 * Causality is cut, not masked: a strip of rows computes no panel of keys that none of its rows sees, and
 * multiplies values only as deep as its last row sees. The softmax writes zeros as far as the last row of all sees:
 * the products may be another table's, whose strips are higher. */
#ifndef SMESIM_ATTENTION_H
#define SMESIM_ATTENTION_H

#include <math.h>

#include "causal.h"
#include "gemm.h"
#include "rows.h"
#include "smesim/kernels.h"

static void sms_qk_block(const struct sms_attention_rows *at, const float *q, const float *k_cache,
                         int64_t key0, int64_t keys, float *scores, int64_t lds) {
    const int64_t strips = sms_lhs_strips(at->rows, SMS_MR), d = at->head_dim;
    struct sms_tile t = {
        .lda = d, .b_panel = SMS_NR * d, .depth = d, .ldc = lds, .prefetch_step = SMS_LINE_BYTES};
    int64_t first = 0; /* strips that see the panel: visibility grows with the row */
    for (int64_t key = 0; key < keys; key += SMS_TILE_COLUMNS) {
        while (first < strips &&
               sms_visible(at, sms_lhs_strip_row(first + 1, at->rows, strips) - 1, key0, keys) <= key)
            first++;
        t.b = k_cache + (key0 + key) * d;
        t.prefetch = (const char *)(t.b + SMS_TILE_COLUMNS * d);
        for (int64_t strip = first; strip < strips; strip++) {
            const int64_t row = sms_lhs_strip_row(strip, at->rows, strips);
            const int64_t height = sms_lhs_strip_row(strip + 1, at->rows, strips) - row;
            t.a = q + row * d;
            t.c = scores + row * lds + key;
            sms_tile_product(SMS_ROWS_APART, &t, height, keys - key < SMS_TILE_COLUMNS ? keys - key : SMS_TILE_COLUMNS);
            t.prefetch = (const char *)t.b;
            t.prefetch_step = 0;
        }
        t.prefetch_step = SMS_LINE_BYTES;
    }
}

SMS_INLINE vf sms_exp_vector(float *scores, float peak) {
    const vf p = v_exp(v_load(scores) - peak);
    v_store(scores, p);
    return p;
}

/* scores[visible] become exp(score - peak); returns their sum. */
static float sms_exp_row(float *scores, int64_t visible, float peak) {
    vf total = v_set(0.0f);
    int64_t i = 0;
    for (; i + SMS_LANES <= visible; i += SMS_LANES)
        total += sms_exp_vector(scores + i, peak);
    if (i < visible) {
        float tail[SMS_LANES];
        for (int j = 0; j < SMS_LANES; j++)
            tail[j] = i + j < visible ? scores[i + j] : -INFINITY;
        total += sms_exp_vector(tail, peak);
        memcpy(scores + i, tail, (size_t)(visible - i) * sizeof *tail);
    }
    return v_sum(total);
}

static void sms_softmax_block(const struct sms_attention_rows *at, int64_t key0, int64_t keys, float *scores,
                              int64_t lds, float *peak, float *total, float *shrink) {
    const int64_t most_visible = sms_visible(at, at->rows - 1, key0, keys);
    for (int64_t row = 0; row < at->rows; row++) {
        const int64_t visible = sms_visible(at, row, key0, keys);
        float *p = scores + row * lds;
        shrink[row] = 1.0f;
        if (visible > 0) {
            const float largest = sms_largest(p, visible);
            if (largest > peak[row]) {
                shrink[row] = peak[row] > -INFINITY ? expf(peak[row] - largest) : 0.0f;
                peak[row] = largest;
                total[row] *= shrink[row];
            }
            total[row] += sms_exp_row(p, visible, peak[row]);
        }
        for (int64_t i = visible; i < most_visible; i++)
            p[i] = 0.0f;
    }
}

static void sms_pv_block(const struct sms_attention_rows *at, const float *scores, int64_t lds,
                         const float *v_cache, int64_t key0, int64_t keys, float *acc) {
    const int64_t strips = sms_lhs_strips(at->rows, SMS_MR), d = at->head_dim;
    struct sms_tile t = {.lda = lds, .b_panel = SMS_NR * at->capacity, .ldc = d, .begin = SMS_BEGIN_C};
    for (int64_t column = 0; column < d; column += SMS_TILE_COLUMNS) {
        t.b = v_cache + column * at->capacity + key0 * SMS_NR;
        t.prefetch = (const char *)(t.b + SMS_TILE_COLUMNS * at->capacity);
        t.prefetch_step = SMS_LINE_BYTES;
        for (int64_t strip = strips - 1; strip >= 0; strip--) {
            const int64_t row = sms_lhs_strip_row(strip, at->rows, strips);
            const int64_t height = sms_lhs_strip_row(strip + 1, at->rows, strips) - row;
            t.depth = sms_visible(at, row + height - 1, key0, keys);
            if (t.depth == 0)
                break;
            t.a = scores + row * lds;
            t.c = acc + row * d + column;
            sms_tile_product(SMS_ROWS_APART, &t, height, d - column < SMS_TILE_COLUMNS ? d - column : SMS_TILE_COLUMNS);
            t.prefetch = (const char *)t.b;
            t.prefetch_step = 0;
        }
    }
}

static void sms_attention_combine(const struct sms_attention_rows *at, const float *parts, int64_t n_parts,
                                  int64_t stride, float *out, int64_t ldo) {
    const int64_t rows = at->rows, d = at->head_dim;
    for (int64_t row = 0; row < rows; row++) {
        const float *acc = parts + row * d, *peaks = parts + rows * d + row, *totals = peaks + rows;
        float *to = out + row / at->group * ldo + row % at->group * d;
        float peak = -INFINITY, total = 0.0f;
        for (int64_t i = 0; i < n_parts; i++)
            peak = peaks[i * stride] > peak ? peaks[i * stride] : peak;
        for (int64_t i = 0; i < n_parts; i++)
            total += totals[i * stride] * expf(peaks[i * stride] - peak);
        memset(to, 0, (size_t)d * sizeof *to);
        for (int64_t i = 0; i < n_parts; i++) {
            const float weight = expf(peaks[i * stride] - peak) / total;
            for (int64_t j = 0; j < d; j++)
                to[j] += acc[i * stride + j] * weight;
        }
    }
}

static void sms_kv_append(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens,
                          int64_t past, int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity,
                          float *k_cache, float *v_cache) {
    for (int64_t head = head0; head < head1; head++) {
        float *restrict k_head = k_cache + head * sms_k_cache_size(capacity, head_dim);
        float *restrict v_head = v_cache + head * sms_v_cache_size(capacity, head_dim);
        for (int64_t t = 0; t < tokens; t++) {
            const float *k_row = k + t * ldk + head * head_dim, *v_row = v + t * ldv + head * head_dim;
            for (int64_t j = 0; j < head_dim; j++)
                k_head[sms_rhs_offset(past + t, j, head_dim)] = k_row[j];
            for (int64_t j = 0; j < head_dim; j++)
                v_head[sms_rhs_offset(j, past + t, capacity)] = v_row[j];
        }
    }
}

#endif

/* The stages of attention: both products on the matrix unit, the softmax between them by NEON outside streaming
 * mode.
 *
 * Queries and scores lie in rows, and outer products want columns, so each strip is packed into a buffer on the way.
 * Causality is cut, not masked, as in vector/attention.h; strips are as high as two vectors are long. */
#ifndef SMESIM_SME_ATTENTION_H
#define SMESIM_SME_ATTENTION_H

#include "../vector/causal.h"
#include "pack.h"
#include "tile.h"

enum {
    SMS_BUFFER_FLOATS = 8192, /* a strip of 32 rows, 256 deep, which is 32 KiB of stack */
    SMS_ATTENTION_ROWS = 128,
    SMS_ATTENTION_KEYS = 256,
};

extern const struct sms_kernels sms_kernels_neon;

/* c = (or +=) x * b^T, where x[rows][depth] is row-major; `t` says what b and c are. */
SMS_INLINE void sms_rows_product(struct sms_tile t, const float *x, int64_t ldx, int64_t depth,
                                 float *buffer) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw(), height = t.rows > lanes ? 2 * lanes : lanes;
    const int64_t most = SMS_BUFFER_FLOATS / height;
    t.a = buffer;
    t.lda = height;
    for (int64_t k = 0; k < depth; k += most) {
        t.depth = sms_smaller(depth - k, most);
        sms_pack_strip(x + k, ldx, t.rows, t.depth, height, buffer);
        sms_tile_product(SMS_F32, &t);
        t.b += t.depth * SMS_NR;
        t.begin = SMS_BEGIN_C;
    }
}

/* All rows of a block times what `t` says, strip by strip. Of `keys` keys from key0 on a strip goes as far as its last
 * row sees: they are the columns of scores, and the depth of their product with the values. */
SMS_INLINE void sms_strips_product(const struct sms_attention_rows *at, struct sms_tile t, const float *x, int64_t ldx,
                                   int64_t key0, int64_t keys, const int keys_are_columns) SMS_IN_ZA {
    const int64_t strips = sms_lhs_strips(at->rows, 2 * (int64_t)svcntw()), ldc = t.ldc;
    float buffer[SMS_BUFFER_FLOATS];
    for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, at->rows, strips);
        const int64_t row_end = sms_lhs_strip_row(strip + 1, at->rows, strips);
        const int64_t visible = sms_visible(at, row_end - 1, key0, keys);
        t.rows = row_end - row;
        if (keys_are_columns)
            t.columns = visible;
        sms_rows_product(t, x + row * ldx, ldx, keys_are_columns ? at->head_dim : visible, buffer);
        t.c += t.rows * ldc;
    }
}

SMS_SME_LEAF void sms_qk_block(const struct sms_attention_rows *at, const float *q, const float *k_cache, int64_t key0,
                               int64_t keys, float *scores, int64_t lds) {
    const int64_t d = at->head_dim;
    const struct sms_tile t = {
        .b = k_cache + key0 * d, .b_panel = SMS_NR * d, .begin = SMS_BEGIN_ZERO, .c = scores, .ldc = lds,
    };
    sms_strips_product(at, t, q, d, key0, keys, 1);
}

SMS_SME_LEAF void sms_pv_block(const struct sms_attention_rows *at, const float *scores, int64_t lds,
                               const float *v_cache, int64_t key0, int64_t keys, float *acc) {
    const int64_t d = at->head_dim;
    const struct sms_tile t = {
        .b = v_cache + key0 * SMS_NR, .b_panel = SMS_NR * at->capacity, .begin = SMS_BEGIN_C, .c = acc, .ldc = d,
        .columns = d,
    };
    sms_strips_product(at, t, scores, lds, key0, keys, 0);
}

static void sms_softmax_block(const struct sms_attention_rows *at, int64_t key0, int64_t keys, float *scores,
                              int64_t lds, float *peak, float *total, float *shrink) {
    sms_kernels_neon.softmax_block(at, key0, keys, scores, lds, peak, total, shrink);
}

#include "../vector/attention_fused.h"

#endif

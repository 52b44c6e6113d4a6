/* Keys and values into their caches, in f32 or in f16. A key is a column of a panel of 16 positions, so keys are turned
 * over as rows of a left operand are: they go into tiles as horizontal slices, and each column of a vertical slice comes
 * out, those of its positions that are new. A value is a row of its panels and goes there as it is. f16 are rounded on
 * the way, in the lanes of the f32 that they were. */
#ifndef SMESIM_SME_APPEND_H
#define SMESIM_SME_APPEND_H

#include "turn.h"
#include "words.h"

/* Rows of `tokens` new positions behind `past`, of which the heads head0 .. head1 are appended. */
struct sms_appended {
    const float *k, *v;
    int64_t ldk, ldv, tokens, past, head0, head1, head_dim, capacity;
    void *k_cache, *v_cache;
};

SMS_INLINE int64_t sms_cache_bytes(const enum sms_number number, int64_t count) __arm_streaming {
    return count * (int64_t)(number == SMS_F16 ? sizeof(uint16_t) : sizeof(float));
}

/* The lanes of a vector, side by side in a cache. */
SMS_INLINE void sms_keep(const enum sms_number number, svbool_t lanes, char *to, svfloat32_t x) __arm_streaming {
    if (number == SMS_F16)
        svst1h_u32(lanes, (uint16_t *)(void *)to, svreinterpret_u32_f16(svcvt_f16_f32_x(lanes, x)));
    else
        svst1_f32(lanes, (float *)(void *)to, x);
}

#if defined(__ARM_FEATURE_SME2)
/* Four whole vectors, one behind the other. */
SMS_INLINE void sms_keep_four(const enum sms_number number, char *to, svfloat32x4_t x) __arm_streaming {
    if (number == SMS_F16) {
        const svfloat16_t first = svcvt_f16_f32_x2(svcreate2_f32(svget4_f32(x, 0), svget4_f32(x, 1)));
        const svfloat16_t second = svcvt_f16_f32_x2(svcreate2_f32(svget4_f32(x, 2), svget4_f32(x, 3)));
        svst1_f16_x2(svptrue_c16(), (float16_t *)(void *)to, svcreate2_f16(first, second));
    } else {
        svst1_f32_x4(svptrue_c32(), (float *)(void *)to, x);
    }
}

/* Columns of a panel that is a vector high, and whole, are neighbours: four of them at a time. */
#define SMS_KEEP_WHOLE_COLUMNS(number, tile)                                           \
    for (const uint32_t fours = whole ? slices & ~3u : 0; slice < fours; slice += 4) { \
        sms_keep_four(number, to, svread_ver_za32_f32_vg4(tile, slice));               \
        to += 4 * column_bytes;                                                        \
    }
#else
#define SMS_KEEP_WHOLE_COLUMNS(number, tile)
#endif

#define SMS_KEEP_COLUMNS(number, tile)                                                                      \
    do {                                                                                                    \
        const int64_t first = (tile) * width, behind = columns - first;                                     \
        const uint32_t slices = (uint32_t)(behind > 0 ? sms_smaller(behind, width) : 0);                    \
        char *to = out + first * column_bytes;                                                              \
        uint32_t slice = 0;                                                                                 \
        SMS_KEEP_WHOLE_COLUMNS(number, tile)                                                                \
        for (; slice < slices; slice++, to += column_bytes) {                                               \
            if ((number) == SMS_F16)                                                                        \
                sms_keep(number, lanes, to, svread_ver_za32_f32_m(svdup_f32(0.0f), lanes, tile, slice));    \
            else                                                                                            \
                svst1_ver_za32(tile, slice, lanes, to);                                                     \
        }                                                                                                   \
    } while (0)

/* At most a vector of positions, and of a panel: its first column's first new place is `out`. */
SMS_INLINE void sms_keep_keys(const enum sms_number number, const float *k, int64_t ldk, int64_t rows, int64_t head_dim,
                              char *out) SMS_IN_ZA {
    const int64_t width = (int64_t)svcntw(), column_bytes = sms_cache_bytes(number, SMS_NR);
    const svbool_t lanes = sms_lanes_until(0, rows);
    const int whole = width == SMS_NR && rows == SMS_NR;
    (void)whole;
    for (int64_t column = 0; column < head_dim; column += 4 * width) {
        const int64_t columns = sms_smaller(head_dim - column, 4 * width);
        sms_rows_into_tiles(k + column, ldk, rows, columns);
        SMS_KEEP_COLUMNS(number, 0);
        SMS_KEEP_COLUMNS(number, 1);
        SMS_KEEP_COLUMNS(number, 2);
        SMS_KEEP_COLUMNS(number, 3);
        out += 4 * width * column_bytes;
    }
}

SMS_INLINE void sms_append_keys(const enum sms_number number, const struct sms_appended *at, const float *k,
                                char *cache) SMS_IN_ZA {
    const int64_t width = (int64_t)svcntw(), d = at->head_dim;
    for (int64_t token = 0; token < at->tokens;) {
        const int64_t place = (at->past + token) % SMS_NR;
        const int64_t rows = sms_smaller(sms_smaller(at->tokens - token, SMS_NR - place), width);
        const int64_t first = sms_rhs_offset(at->past + token, 0, d);
        sms_keep_keys(number, k + token * at->ldk, at->ldk, rows, d, cache + sms_cache_bytes(number, first));
        token += rows;
    }
}

/* A panel's width of values, or a vector's where that is less, position after position. */
SMS_INLINE void sms_append_values(const enum sms_number number, const struct sms_appended *at, const float *v,
                                  char *cache) SMS_IN_ZA {
    const int64_t width = sms_smaller((int64_t)svcntw(), SMS_NR), row_bytes = sms_cache_bytes(number, SMS_NR);
    for (int64_t i = 0; i < at->head_dim; i += width) {
        const svbool_t lanes = sms_lanes_until(0, sms_smaller(at->head_dim - i, width));
        const float *from = v + i;
        char *to = cache + sms_cache_bytes(number, sms_rhs_offset(i, at->past, at->capacity));
        for (int64_t token = 0; token < at->tokens; token++) {
            sms_keep(number, lanes, to, svld1_f32(lanes, from));
            from += at->ldv;
            to += row_bytes;
        }
    }
}

SMS_INLINE void sms_append(const enum sms_number number, const struct sms_appended *at) SMS_IN_ZA {
    const int64_t d = at->head_dim;
    const int64_t k_bytes = sms_cache_bytes(number, sms_k_cache_size(at->capacity, d));
    const int64_t v_bytes = sms_cache_bytes(number, sms_v_cache_size(at->capacity, d));
    for (int64_t head = at->head0; head < at->head1; head++) {
        sms_append_keys(number, at, at->k + head * d, (char *)at->k_cache + head * k_bytes);
        sms_append_values(number, at, at->v + head * d, (char *)at->v_cache + head * v_bytes);
    }
}

/* The leaf of a table, for caches of `type`. */
#define SMS_KV_PACK(name, number, type)                                                                            \
    SMS_SME_LEAF void name(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past, \
                           int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, type *k_cache,        \
                           type *v_cache) {                                                                        \
        const struct sms_appended at = {                                                                           \
            .k = k, .v = v, .ldk = ldk, .ldv = ldv, .tokens = tokens, .past = past, .head0 = head0,                \
            .head1 = head1, .head_dim = head_dim, .capacity = capacity, .k_cache = k_cache, .v_cache = v_cache,    \
        };                                                                                                         \
        sms_append(number, &at);                                                                                   \
    }

#endif

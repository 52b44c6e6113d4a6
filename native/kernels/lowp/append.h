/* Keys and values rounded to f16 into their caches. */
#ifndef SMESIM_LOWP_APPEND_H
#define SMESIM_LOWP_APPEND_H

#include "halves.h"

/* One position of one head: a key as a column of its panels, a value as a row of them. */
SMS_INLINE void sms_append_f16(const float *x, const int is_v, int64_t position, int64_t d, int64_t capacity,
                               uint16_t *cache) {
    enum { PIECE = 64 };
    uint16_t numbers[PIECE];
    for (int64_t i = 0; i < d; i += PIECE) {
        const int64_t count = d - i < PIECE ? d - i : PIECE;
        uint16_t *to = cache + (is_v ? sms_rhs_offset(i, position, capacity) : sms_rhs_offset(position, i, d));
        sms_narrow_f16(x + i, count, numbers);
        for (int64_t j = 0; is_v && j < count; j += SMS_NR)
            memcpy(to + j * capacity, numbers + j, (size_t)(count - j < SMS_NR ? count - j : SMS_NR) * sizeof *numbers);
        for (int64_t j = 0; !is_v && j < count; j++)
            to[j * SMS_NR] = numbers[j];
    }
}

static void sms_kv_append_f16(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past,
                              int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, uint16_t *k_cache,
                              uint16_t *v_cache) {
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = head0; head < head1; head++) {
            const int64_t k_head = head * sms_k_cache_size(capacity, head_dim);
            const int64_t v_head = head * sms_v_cache_size(capacity, head_dim);
            sms_append_f16(k + token * ldk + head * head_dim, 0, past + token, head_dim, capacity, k_cache + k_head);
            sms_append_f16(v + token * ldv + head * head_dim, 1, past + token, head_dim, capacity, v_cache + v_head);
        }
}

#endif

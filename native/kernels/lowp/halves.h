/* Rows of f16, as caches of keys and values hold them: from f32 and back. */
#ifndef SMESIM_HALVES_H
#define SMESIM_HALVES_H

#include "convert.h"

static void sms_narrow_f16(const float *restrict x, int64_t n, uint16_t *restrict y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = sms_f16(x[i]);
}

/* A cache is read block after block, and in it the next block lies behind this one: so far ahead it is asked for. */
static void sms_widen_f16(const uint16_t *x, int64_t n, float *y) {
    enum { LINE = 32 };
    int64_t i = 0;
    for (; i + LINE <= n; i += LINE) {
        __builtin_prefetch(x + n + i, 0, 2);
        for (int j = 0; j < LINE; j += SMS_LANES)
            v_store(y + i + j, w_halves(x + i + j));
    }
    for (; i + SMS_LANES <= n; i += SMS_LANES)
        v_store(y + i, w_halves(x + i));
    if (i < n) {
        uint16_t tail[SMS_LANES] = {0};
        float wide[SMS_LANES];
        memcpy(tail, x + i, (size_t)(n - i) * sizeof *x);
        v_store(wide, w_halves(tail));
        memcpy(y + i, wide, (size_t)(n - i) * sizeof *y);
    }
}

#endif

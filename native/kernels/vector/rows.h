/* What works on rows: norm, activation, rotation, look-up. Where a plain loop is enough, the compiler makes
 * the vectors; reductions and the exponential are written out, because their order and accuracy are part of
 * what they promise. */
#ifndef SMESIM_ROWS_H
#define SMESIM_ROWS_H

#include <math.h>

#include "smesim/layout.h"
#include "vec.h"

static float sms_sum_of_squares(const float *x, int64_t n) {
    enum { CHAINS = 4 };
    vf acc[CHAINS];
    for (int j = 0; j < CHAINS; j++)
        acc[j] = v_set(0.0f);
    int64_t i = 0;
    for (; i + CHAINS * SMS_LANES <= n; i += CHAINS * SMS_LANES) {
        SMS_UNROLL(4)
        for (int j = 0; j < CHAINS; j++) {
            const vf v = v_load(x + i + j * SMS_LANES);
            acc[j] += v * v;
        }
    }
    float sum = v_sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static float sms_inverse_rms(const float *x, int64_t dim, float eps) {
    return 1.0f / sqrtf(sms_sum_of_squares(x, dim) / (float)dim + eps);
}

static void sms_rmsnorm(const float *x, int64_t ldx, const float *gamma, float *y, int64_t ldy, int64_t rows,
                        int64_t dim, float eps) {
    for (int64_t r = 0; r < rows; r++) {
        const float *from = x + r * ldx;
        float *to = y + r * ldy;
        const float inverse = sms_inverse_rms(from, dim, eps);
        for (int64_t i = 0; i < dim; i++)
            to[i] = from[i] * inverse * gamma[i];
    }
}

static void sms_add(const float *a, const float *b, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void sms_copy(const float *x, float *y, int64_t n) { memcpy(y, x, (size_t)n * sizeof *x); }

/* Some vectors of the result at a time, so that it is written once, however many rows there are. */
static void sms_weighted_sum(const float *x, int64_t ldx, const int32_t *rows, const float *weights, int64_t count,
                             float *y, int64_t n) {
    enum { CHAINS = 4 };
    int64_t i = 0;
    for (; i + CHAINS * SMS_LANES <= n; i += CHAINS * SMS_LANES) {
        vf acc[CHAINS];
        SMS_UNROLL(4)
        for (int j = 0; j < CHAINS; j++)
            acc[j] = v_set(0.0f);
        for (int64_t r = 0; r < count; r++) {
            const float *from = x + rows[r] * ldx + i;
            SMS_UNROLL(4)
            for (int j = 0; j < CHAINS; j++)
                acc[j] += v_load(from + j * SMS_LANES) * weights[r];
        }
        SMS_UNROLL(4)
        for (int j = 0; j < CHAINS; j++)
            v_store(y + i + j * SMS_LANES, acc[j]);
    }
    for (; i < n; i++) {
        float sum = 0.0f;
        for (int64_t r = 0; r < count; r++)
            sum += x[rows[r] * ldx + i] * weights[r];
        y[i] = sum;
    }
}

SMS_INLINE vf sms_silu_times(vf gate, vf up) { return gate / (1.0f + v_exp(-gate)) * up; }

static void sms_swiglu(const float *gate, const float *up, float *y, int64_t n) {
    int64_t i = 0;
    for (; i + SMS_LANES <= n; i += SMS_LANES)
        v_store(y + i, sms_silu_times(v_load(gate + i), v_load(up + i)));
    if (i < n) {
        const size_t bytes = (size_t)(n - i) * sizeof *y;
        float gate_tail[SMS_LANES] = {0}, up_tail[SMS_LANES] = {0};
        memcpy(gate_tail, gate + i, bytes);
        memcpy(up_tail, up + i, bytes);
        v_store(gate_tail, sms_silu_times(v_load(gate_tail), v_load(up_tail)));
        memcpy(y + i, gate_tail, bytes);
    }
}

static void sms_rope(float *x, int64_t ldx, int64_t rows, int64_t heads, int64_t head_dim,
                     const float *cosine, const float *sine, int64_t position) {
    const int64_t half = head_dim / 2;
    for (int64_t r = 0; r < rows; r++) {
        const float *c = cosine + (position + r) * half, *s = sine + (position + r) * half;
        for (int64_t h = 0; h < heads; h++) {
            float *restrict low = x + r * ldx + h * head_dim;
            float *restrict high = low + half;
            for (int64_t j = 0; j < half; j++) {
                const float a = low[j], b = high[j];
                low[j] = a * c[j] - b * s[j];
                high[j] = b * c[j] + a * s[j];
            }
        }
    }
}

static void sms_embed_rows(const int32_t *ids, int64_t rows, const float *table, int64_t ldt, int64_t dim,
                           float *y, int64_t ldy) {
    for (int64_t r = 0; r < rows; r++)
        sms_copy(table + ids[r] * ldt, y + r * ldy, dim);
}

static void sms_embed_rhs(const int32_t *ids, int64_t rows, const float *table, int64_t dim, float *y,
                          int64_t ldy) {
    for (int64_t r = 0; r < rows; r++) {
        const float *from = table + sms_rhs_offset(ids[r], 0, dim);
        for (int64_t i = 0; i < dim; i++)
            y[r * ldy + i] = from[i * SMS_NR];
    }
}

/* Minus infinity of nothing; NaN is passed over. */
static float sms_largest(const float *x, int64_t n) {
    enum { CHAINS = 4 };
    vf largest[CHAINS];
    for (int j = 0; j < CHAINS; j++)
        largest[j] = v_set(-INFINITY);
    int64_t i = 0;
    for (; i + CHAINS * SMS_LANES <= n; i += CHAINS * SMS_LANES) {
        SMS_UNROLL(4)
        for (int j = 0; j < CHAINS; j++)
            largest[j] = v_max(v_load(x + i + j * SMS_LANES), largest[j]);
    }
    float peak = v_largest(v_max(v_max(largest[0], largest[1]), v_max(largest[2], largest[3])));
    for (; i < n; i++)
        peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static int64_t sms_argmax(const float *x, int64_t n) {
    const float peak = sms_largest(x, n);
    for (int64_t i = 0; peak > -INFINITY && i < n; i++)
        if (x[i] == peak)
            return i;
    return -1;
}

#endif

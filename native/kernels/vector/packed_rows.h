/* Norm and activation that write the left factor of a product: strips as pack_lhs makes them, and the same bits, but the
 * rows never lie in memory unpacked. A few columns of all rows of a strip are computed in registers and interleaved
 * there. */
#ifndef SMESIM_PACKED_ROWS_H
#define SMESIM_PACKED_ROWS_H

#include "interleave.h"
#include "pack.h"
#include "rows.h"

/* `height` rows of a strip whose columns lie `stride` apart. */
SMS_INLINE void sms_rmsnorm_rows(const int height, const float *x, int64_t ldx, const float *gamma, int64_t dim,
                                 float eps, float *out, const int64_t stride) {
    float inverse[SMS_TALLEST];
    vf row[SMS_TALLEST];
    for (int r = 0; r < height; r++)
        inverse[r] = sms_inverse_rms(x + r * ldx, dim, eps);
    int64_t i = 0;
    for (; i + SMS_LANES <= dim; i += SMS_LANES) {
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++)
            row[r] = v_load(x + r * ldx + i) * inverse[r] * v_load(gamma + i);
        sms_interleave(height, row, out + i * stride, stride);
    }
    for (; i < dim; i++)
        for (int r = 0; r < height; r++)
            out[i * stride + r] = x[r * ldx + i] * inverse[r] * gamma[i];
}

SMS_INLINE void sms_swiglu_rows(const int height, const float *gate, int64_t ldg, const float *up, int64_t ldu,
                                int64_t n, float *out, const int64_t stride) {
    vf row[SMS_TALLEST];
    int64_t i = 0;
    for (; i + SMS_LANES <= n; i += SMS_LANES) {
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++)
            row[r] = sms_silu_times(v_load(gate + r * ldg + i), v_load(up + r * ldu + i));
        sms_interleave(height, row, out + i * stride, stride);
    }
    float tail[SMS_LANES];
    for (int r = 0; i < n && r < height; r++) {
        sms_swiglu(gate + r * ldg + i, up + r * ldu + i, tail, n - i);
        for (int64_t c = i; c < n; c++)
            out[c * stride + r] = tail[c - i];
    }
}

static void sms_rmsnorm_packed(const float *x, int64_t ldx, const float *gamma, int64_t m, int64_t dim, float eps,
                               int64_t mr, int64_t strip0, int64_t strip1, float *out) {
    const int64_t strips = sms_lhs_strips(m, mr);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row0 = sms_lhs_strip_row(strip, m, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, m, strips) - row0;
        const float *from = x + row0 * ldx;
        float *to = out + row0 * dim;
#define SMS_THESE_ROWS(rows, row, stride) \
    sms_rmsnorm_rows(rows, from + (row) * ldx, ldx, gamma, dim, eps, to + (row), stride)
        SMS_STRIP_ROWS(height)
#undef SMS_THESE_ROWS
    }
}

static void sms_swiglu_packed(const float *gate, int64_t ldg, const float *up, int64_t ldu, int64_t m, int64_t n,
                              int64_t mr, int64_t strip0, int64_t strip1, float *out) {
    const int64_t strips = sms_lhs_strips(m, mr);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row0 = sms_lhs_strip_row(strip, m, strips);
        const int64_t height = sms_lhs_strip_row(strip + 1, m, strips) - row0;
        const float *gates = gate + row0 * ldg, *ups = up + row0 * ldu;
        float *to = out + row0 * n;
#define SMS_THESE_ROWS(rows, row, stride) \
    sms_swiglu_rows(rows, gates + (row) * ldg, ldg, ups + (row) * ldu, ldu, n, to + (row), stride)
        SMS_STRIP_ROWS(height)
#undef SMS_THESE_ROWS
    }
}

#endif

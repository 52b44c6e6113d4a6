/* Products with one vector. No weight is used twice, so the memory sets the pace. The loop reads several
 * panels side by side: that keeps enough misses in flight for the prefetchers of the hardware to reach what
 * the memory gives, and asking ahead in software only got in their way (measured on Zen 3: 4 streams 31 GB/s,
 * 2 streams 28, 1 stream 24; with prefetches 1 KiB ahead each lost a tenth). */
#ifndef SMESIM_GEMV_H
#define SMESIM_GEMV_H

#include "gemm.h"

enum { SMS_GEMV_STREAMS = 4 };

SMS_INLINE void sms_gemv_panels(const int streams, const float *x, const float *b, int64_t k,
                                const float *bias, float *y, int64_t columns) {
    enum { V = SMS_PANEL_VECTORS };
    vf acc[SMS_GEMV_STREAMS][V];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            acc[s][j] = v_set(0.0f);
    }
    for (int64_t i = 0; i < k; i++) {
        SMS_UNROLL(16)
        for (int s = 0; s < streams; s++) {
            SMS_UNROLL(16)
            for (int j = 0; j < V; j++)
                acc[s][j] += v_load(b + (s * k + i) * SMS_NR + j * SMS_LANES) * x[i];
        }
    }
    float sums[SMS_GEMV_STREAMS * SMS_NR];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            v_store(sums + s * SMS_NR + j * SMS_LANES, acc[s][j]);
    }
    for (int64_t j = 0; j < columns; j++)
        y[j] = bias ? bias[j] + sums[j] : sums[j];
}

static void sms_gemv(const float *x, const float *rhs, int64_t n, int64_t k, const float *bias, float *y,
                     int64_t panel0, int64_t panel1) {
    for (int64_t panel = panel0; panel < panel1;) {
        const int64_t streams = panel1 - panel < SMS_GEMV_STREAMS ? 1 : SMS_GEMV_STREAMS;
        const int64_t column = panel * SMS_NR;
        const int64_t columns = n - column < streams * SMS_NR ? n - column : streams * SMS_NR;
        const float *b = rhs + column * k, *column_bias = bias ? bias + column : NULL;
        if (streams == 1)
            sms_gemv_panels(1, x, b, k, column_bias, y + column, columns);
        else
            sms_gemv_panels(SMS_GEMV_STREAMS, x, b, k, column_bias, y + column, columns);
        panel += streams;
    }
}

#endif

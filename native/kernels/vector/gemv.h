/* Products with one vector. */
#ifndef SMESIM_GEMV_H
#define SMESIM_GEMV_H

#include "streams.h"

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
    sms_streams_end(streams, acc, bias, y, columns);
}

static void sms_gemv(const float *x, const float *rhs, int64_t n, int64_t k, const float *bias, float *y,
                     int64_t panel0, int64_t panel1) {
    for (int64_t panel = panel0, streams; panel < panel1; panel += streams) {
        streams = sms_streams(panel, panel1);
        const int64_t column = panel * SMS_NR, columns = sms_stream_columns(panel, streams, n);
        const float *b = rhs + column * k, *column_bias = bias ? bias + column : NULL;
        if (streams == 1)
            sms_gemv_panels(1, x, b, k, column_bias, y + column, columns);
        else
            sms_gemv_panels(SMS_GEMV_STREAMS, x, b, k, column_bias, y + column, columns);
    }
}

#endif

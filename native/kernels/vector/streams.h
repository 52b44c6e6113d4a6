/* Products with one vector, of f32 and of low precision. No weight is used twice, so the memory sets the pace. Several
 * panels are read side by side: that keeps enough misses in flight for the prefetchers of the hardware to reach what
 * the memory gives, and asking ahead in software only got in their way (measured on Zen 3: 4 streams 31 GB/s,
 * 2 streams 28, 1 stream 24; with prefetches 1 KiB ahead each lost a tenth). */
#ifndef SMESIM_STREAMS_H
#define SMESIM_STREAMS_H

#include "blocking.h"

enum { SMS_GEMV_STREAMS = 4 };

/* How many panels to take side by side from here, and how many of their columns there are. */
SMS_INLINE int64_t sms_streams(int64_t panel, int64_t panel1) {
    return panel1 - panel < SMS_GEMV_STREAMS ? 1 : SMS_GEMV_STREAMS;
}

SMS_INLINE int64_t sms_stream_columns(int64_t panel, int64_t streams, int64_t n) {
    const int64_t left = n - panel * SMS_NR;
    return left < streams * SMS_NR ? left : streams * SMS_NR;
}

/* The sums of the columns that there are, plus their bias, to y. */
SMS_INLINE void sms_streams_end(const int streams, vf sum[][SMS_PANEL_VECTORS], const float *bias, float *y,
                                int64_t columns) {
    float sums[SMS_GEMV_STREAMS * SMS_NR];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < SMS_PANEL_VECTORS; j++)
            v_store(sums + s * SMS_NR + j * SMS_LANES, sum[s][j]);
    }
    for (int64_t j = 0; j < columns; j++)
        y[j] = bias ? bias[j] + sums[j] : sums[j];
}

#endif

/* Loops that find the limits of a machine: what its multiply-add pipes and its memory can do at best. */
#ifndef SMESIM_MEASURE_H
#define SMESIM_MEASURE_H

#include "peak.h"
#include "vec.h"

/* The vectors of a tile's rows; of f64 as many bytes. */
enum {
    SMS_FMA_VECTORS = SMS_NR * SMS_PANELS / SMS_LANES,
    SMS_FMA_VECTORS_F64 = SMS_FMA_VECTORS * sizeof(vf) / sizeof(vd),
};

SMS_INLINE vf sms_peak_column(const float *b, int j) { return v_load(b + j * SMS_LANES); }
SMS_INLINE float sms_peak_row(const float *a, int r) { return a[r]; }
SMS_INLINE vf sms_peak_fma(vf sum, vf column, float row) { return sum + column * row; }

SMS_INLINE vf sms_peak_add(vf a, vf b) { return a + b; }

SMS_INLINE vd sms_peak_column_f64(const double *b, int j) {
    vd column;
    memcpy(&column, b + j * (int)(sizeof column / sizeof *b), sizeof column);
    return column;
}
SMS_INLINE double sms_peak_row_f64(const double *a, int r) { return a[r]; }
SMS_INLINE vd sms_peak_fma_f64(vd sum, vd column, double row) { return sum + column * row; }
SMS_INLINE vd sms_peak_add_f64(vd a, vd b) { return a + b; }

SMS_PEAK(sms_sum_f32, vf, float, SMS_MR, SMS_FMA_VECTORS, sms_peak_column, sms_peak_row, sms_peak_fma,
         sms_peak_add)
SMS_PEAK(sms_sum_f64, vd, double, SMS_MR, SMS_FMA_VECTORS_F64, sms_peak_column_f64, sms_peak_row_f64,
         sms_peak_fma_f64, sms_peak_add_f64)

static float sms_fma_peak(int64_t iterations) { return v_sum(sms_sum_f32(1.0f, iterations)); }

static double sms_fma_peak_f64(int64_t iterations) {
    const vd sum = sms_sum_f64(1.0, iterations);
    double lanes[sizeof sum / sizeof(double)], total = 0.0;
    memcpy(lanes, &sum, sizeof sum);
    for (size_t j = 0; j < sizeof sum / sizeof(double); j++)
        total += lanes[j];
    return total;
}

/* Reads as gemv does: 4 streams, each within its quarter of a block. */
static float sms_read_once(const float *x, int64_t n) {
    enum { STREAMS = 4, LINE = 16, VECTORS = LINE / SMS_LANES, BLOCK_LINES = 1024 };
    vf acc[STREAMS][VECTORS];
    for (int s = 0; s < STREAMS; s++)
        for (int j = 0; j < VECTORS; j++)
            acc[s][j] = v_set(0.0f);
    int64_t left = n;
    while (left >= STREAMS * LINE) {
        const int64_t lines = left / (STREAMS * LINE) < BLOCK_LINES ? left / (STREAMS * LINE) : BLOCK_LINES;
        for (int64_t i = 0; i < lines; i++) {
            SMS_UNROLL(16)
            for (int s = 0; s < STREAMS; s++) {
                SMS_UNROLL(16)
                for (int j = 0; j < VECTORS; j++)
                    acc[s][j] += v_load(x + (s * lines + i) * LINE + j * SMS_LANES);
            }
        }
        x += lines * STREAMS * LINE;
        left -= lines * STREAMS * LINE;
    }
    float sum = 0.0f;
    for (int s = 0; s < STREAMS; s++)
        for (int j = 0; j < VECTORS; j++)
            sum += v_sum(acc[s][j]);
    for (int64_t i = 0; i < left; i++)
        sum += x[i];
    return sum;
}

/* Many passes in one call: what fits into a near cache is read faster than it could be asked for again. */
static float sms_read_bandwidth(const float *x, int64_t n, int64_t passes) {
    float sum = 0.0f;
    for (int64_t pass = 0; pass < passes; pass++) {
        __asm__ volatile("" : "+r"(x) : : "memory"); /* the compiler must not know that a pass repeats the last */
        sum += sms_read_once(x, n);
    }
    return sum;
}

static void sms_write_bandwidth(float *y, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        y[i] = value;
}

static void sms_triad(const float *a, const float *b, float scale, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + scale * b[i];
}

#endif

/* Loops that find the limits of a machine: what its multiply-add pipes and its memory can do at best. */
#ifndef SMESIM_MEASURE_H
#define SMESIM_MEASURE_H

#include "vec.h"

enum { SMS_FMA_CHAINS = SMS_MR * SMS_NR * SMS_PANELS / SMS_LANES };

/* As many independent chains as the largest tile has accumulators. */
static float sms_fma_peak(int64_t iterations) {
    vf acc[SMS_FMA_CHAINS];
    for (int j = 0; j < SMS_FMA_CHAINS; j++)
        acc[j] = v_set((float)j);
    vf shrink = v_set(0.9999f), shift = v_set(1.0e-4f);
    for (int64_t i = 0; i < iterations; i++) {
        SMS_UNROLL(64)
        for (int j = 0; j < SMS_FMA_CHAINS; j++)
            acc[j] = acc[j] * shrink + shift;
    }
    vf sum = v_set(0.0f);
    for (int j = 0; j < SMS_FMA_CHAINS; j++)
        sum += acc[j];
    return v_sum(sum);
}

/* The same with half as many lanes of twice the width. */
static double sms_fma_peak_f64(int64_t iterations) {
    vd acc[SMS_FMA_CHAINS];
    for (int j = 0; j < SMS_FMA_CHAINS; j++)
        acc[j] = (double)j - (vd){0};
    const vd shrink = 0.9999 - (vd){0}, shift = 1.0e-4 - (vd){0};
    for (int64_t i = 0; i < iterations; i++) {
        SMS_UNROLL(64)
        for (int j = 0; j < SMS_FMA_CHAINS; j++)
            acc[j] = acc[j] * shrink + shift;
    }
    vd sum = acc[0];
    for (int j = 1; j < SMS_FMA_CHAINS; j++)
        sum += acc[j];
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

/* Packing, and random weights in either layout. Plain loops: the compiler makes vectors of the inner ones. */
#ifndef SMESIM_PACK_H
#define SMESIM_PACK_H

#include "interleave.h"
#include "smesim/layout.h"
#include "vec.h"

/* `height` rows of x, one element of each after another; `stride` elements from one k to the next. */
SMS_INLINE void sms_pack_rows(const int height, const float *x, int64_t ldx, int64_t k, float *out,
                              const int64_t stride) {
    for (int64_t i = 0; i < k; i++) {
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++)
            out[i * stride + r] = x[r * ldx + i];
    }
}

/* The same, through registers. */
SMS_INLINE void sms_pack_vectors(const int height, const float *x, int64_t ldx, int64_t k, float *out,
                                 const int64_t stride) {
    vf row[SMS_TALLEST];
    int64_t i = 0;
    for (; i + SMS_LANES <= k; i += SMS_LANES) {
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++)
            row[r] = v_load(x + r * ldx + i);
        sms_interleave(height, row, out + i * stride, stride);
    }
    sms_pack_rows(height, x + i, ldx, k - i, out + i * stride, stride);
}

static void sms_pack_strip(int64_t height, const float *x, int64_t ldx, int64_t k, float *out) {
#define SMS_THESE_ROWS(rows, row, stride) sms_pack_vectors(rows, x + (row) * ldx, ldx, k, out + (row), stride)
    SMS_STRIP_ROWS(height)
#undef SMS_THESE_ROWS
}

static void sms_pack_lhs(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                         int64_t strip1, float *out) {
    const int64_t strips = sms_lhs_strips(m, mr);
    for (int64_t strip = strip0; strip < strip1; strip++) {
        const int64_t row = sms_lhs_strip_row(strip, m, strips);
        sms_pack_strip(sms_lhs_strip_row(strip + 1, m, strips) - row, x + row * ldx, ldx, k, out + row * k);
    }
}

static void sms_pack_rhs(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                         float *out) {
    for (int64_t panel = panel0; panel < panel1; panel++) {
        const int64_t row = panel * SMS_NR, rows = n - row < SMS_NR ? n - row : SMS_NR;
        float *to = out + row * k;
        if (rows == SMS_NR) {
            sms_pack_rows(SMS_NR, w + row * ldw, ldw, k, to, SMS_NR);
            continue;
        }
        for (int64_t i = 0; i < k; i++)
            for (int64_t r = 0; r < SMS_NR; r++)
                to[i * SMS_NR + r] = r < rows ? w[(row + r) * ldw + i] : 0.0f;
    }
}

static void sms_unpack_rhs(const float *packed, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                           float *w, int64_t ldw) {
    const int64_t end = panel1 * SMS_NR < n ? panel1 * SMS_NR : n;
    for (int64_t row = panel0 * SMS_NR; row < end; row++)
        for (int64_t i = 0; i < k; i++)
            w[row * ldw + i] = packed[sms_rhs_offset(row, i, k)];
}

/* The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
 * 2014). */
SMS_INLINE uint64_t sms_row_key(uint64_t seed, int64_t row) {
    uint64_t z = seed + ((uint64_t)row + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A 32-bit mixer with low bias (C. Wellons, "Prospecting for hash functions", 2018), the two halves of the
 * row's key entering before and between its rounds; its upper 24 bits are the number. */
SMS_INLINE float sms_uniform(uint32_t low, uint32_t high, uint32_t k, float step) {
    uint32_t x = k + low;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x ^= high;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    return (float)((int32_t)x >> 8) * step;
}

#define SMS_UNIFORM_STEPS 8388608.0f /* 2^23 steps of a 24-bit signed number from 0 to 1 */

static void sms_fill_rhs(float *packed, int64_t n, int64_t k, int64_t panel0, int64_t panel1, uint64_t seed,
                         float scale) {
    const float step = scale / SMS_UNIFORM_STEPS;
    for (int64_t panel = panel0; panel < panel1; panel++) {
        float *restrict to = packed + panel * SMS_NR * k;
        uint32_t low[SMS_NR], high[SMS_NR];
        float steps[SMS_NR];
        for (int r = 0; r < SMS_NR; r++) {
            const int64_t row = panel * SMS_NR + r;
            const uint64_t key = sms_row_key(seed, row);
            low[r] = (uint32_t)key;
            high[r] = (uint32_t)(key >> 32);
            steps[r] = row < n ? step : 0.0f;
        }
        for (int64_t i = 0; i < k; i++)
            for (int r = 0; r < SMS_NR; r++)
                to[i * SMS_NR + r] = sms_uniform(low[r], high[r], (uint32_t)i, steps[r]);
    }
}

static void sms_fill_rows(float *w, int64_t ldw, int64_t k, int64_t row0, int64_t row1, uint64_t seed,
                          float scale) {
    const float step = scale / SMS_UNIFORM_STEPS;
    for (int64_t row = row0; row < row1; row++) {
        const uint64_t key = sms_row_key(seed, row);
        const uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
        float *restrict to = w + row * ldw;
        for (int64_t i = 0; i < k; i++)
            to[i] = sms_uniform(low, high, (uint32_t)i, step);
    }
}

#endif

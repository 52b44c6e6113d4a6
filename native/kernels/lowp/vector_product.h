/* Products with one vector, several panels side by side. bf16 and f16 weights are widened to f32 on every ISA: the
 * memory sets the pace, and x need not be rounded. */
#ifndef SMESIM_VECTOR_PRODUCT_H
#define SMESIM_VECTOR_PRODUCT_H

#include "../vector/streams.h"
#include "product.h"

SMS_INLINE void sms_gemv_float_panels(const enum sms_number number, const int streams, const float *x,
                                      const sms_word *b, int64_t k, const float *bias, float *y,
                                      int64_t columns) {
    enum { V = SMS_PANEL_VECTORS };
    const int64_t depth = sms_ceil_div(k, w_group(number)), pairs = k / w_group(number);
    vf acc[SMS_GEMV_STREAMS][V];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            acc[s][j] = v_set(0.0f);
    }
    for (int64_t i = 0; i < pairs; i++) {
        SMS_UNROLL(16)
        for (int s = 0; s < streams; s++) {
            SMS_UNROLL(16)
            for (int j = 0; j < V; j++) {
                const vi words = w_load(b + (s * depth + i) * SMS_NR + j * SMS_LANES);
                acc[s][j] += w_widened(number, words, 0) * x[2 * i];
                acc[s][j] += w_widened(number, words, 1) * x[2 * i + 1];
            }
        }
    }
    for (int64_t i = pairs; i < depth; i++) /* the last of an odd number of k */
        for (int s = 0; s < streams; s++)
            for (int j = 0; j < V; j++) {
                const vi words = w_load(b + (s * depth + i) * SMS_NR + j * SMS_LANES);
                acc[s][j] += w_widened(number, words, 0) * x[2 * i];
            }
    sms_streams_end(streams, acc, bias, y, columns);
}

SMS_INLINE void sms_gemv_s8_panels(const int streams, const sms_word *x, float x_scale, const sms_word *b,
                                   int64_t depth, const float *column_scale, const float *bias, float *y,
                                   int64_t columns) {
    enum { V = SMS_PANEL_VECTORS };
    vi acc[SMS_GEMV_STREAMS][V], excess[SMS_GEMV_STREAMS][V];
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++)
            acc[s][j] = excess[s][j] = w_set(0);
    }
    for (int64_t i = 0; i < depth; i++) {
        const vi a = w_set(w_offset(SMS_S8) ? x[i] ^ SMS_OFFSET_BYTES : x[i]);
        SMS_UNROLL(16)
        for (int s = 0; s < streams; s++) {
            SMS_UNROLL(16)
            for (int j = 0; j < V; j++) {
                const vi words = w_load(b + (s * depth + i) * SMS_NR + j * SMS_LANES);
                SMS_UNROLL(2)
                for (int part = 0; part < w_parts(SMS_S8); part++)
                    acc[s][j] = w_dot_s8(acc[s][j], w_part(SMS_S8, words, part), w_part(SMS_S8, a, part));
                if (w_offset(SMS_S8))
                    excess[s][j] = w_dot_s8(excess[s][j], words, w_set(SMS_OFFSET_BYTES));
            }
        }
    }
    float scale[SMS_GEMV_STREAMS * SMS_NR] = {0}, begin[SMS_GEMV_STREAMS * SMS_NR] = {0};
    sms_copy_columns(column_scale, 0, scale, 0, 1, columns);
    if (bias)
        sms_copy_columns(bias, 0, begin, 0, 1, columns);
    SMS_UNROLL(16)
    for (int s = 0; s < streams; s++) {
        SMS_UNROLL(16)
        for (int j = 0; j < V; j++) {
            float *at = begin + s * SMS_NR + j * SMS_LANES;
            const vi sum = w_offset(SMS_S8) ? w_subtract(acc[s][j], excess[s][j]) : acc[s][j];
            v_store(at, w_scaled(sum, x_scale, v_load(scale + (at - begin)), v_load(at)));
        }
    }
    sms_copy_columns(begin, 0, y, 0, 1, columns);
}

SMS_INLINE void sms_gemv_float(const enum sms_number number, const float *x, const uint16_t *rhs, int64_t n,
                               int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) {
    const int64_t depth = sms_ceil_div(k, w_group(number));
    for (int64_t panel = panel0, streams; panel < panel1; panel += streams) {
        streams = sms_streams(panel, panel1);
        const int64_t column = panel * SMS_NR, columns = sms_stream_columns(panel, streams, n);
        const sms_word *b = (const sms_word *)rhs + column * depth;
        const float *column_bias = bias ? bias + column : NULL;
        if (streams == 1)
            sms_gemv_float_panels(number, 1, x, b, k, column_bias, y + column, columns);
        else
            sms_gemv_float_panels(number, SMS_GEMV_STREAMS, x, b, k, column_bias, y + column, columns);
    }
}

static void sms_gemv_bf16(const float *x, const uint16_t *rhs, int64_t n, int64_t k, const float *bias,
                          float *y, int64_t panel0, int64_t panel1) {
    sms_gemv_float(SMS_BF16, x, rhs, n, k, bias, y, panel0, panel1);
}

static void sms_gemv_f16(const float *x, const uint16_t *rhs, int64_t n, int64_t k, const float *bias, float *y,
                         int64_t panel0, int64_t panel1) {
    sms_gemv_float(SMS_F16, x, rhs, n, k, bias, y, panel0, panel1);
}

static void sms_gemv_s8(const int8_t *x, float x_scale, const int8_t *rhs, const float *column_scale,
                        int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1) {
    const int64_t depth = sms_ceil_div(k, SMS_S8_GROUP);
    const sms_word *words = (const sms_word *)x;
    for (int64_t panel = panel0, streams; panel < panel1; panel += streams) {
        streams = sms_streams(panel, panel1);
        const int64_t column = panel * SMS_NR, columns = sms_stream_columns(panel, streams, n);
        const sms_word *b = (const sms_word *)rhs + column * depth;
        const float *scale = column_scale + column, *column_bias = bias ? bias + column : NULL;
        if (streams == 1)
            sms_gemv_s8_panels(1, words, x_scale, b, depth, scale, column_bias, y + column, columns);
        else
            sms_gemv_s8_panels(SMS_GEMV_STREAMS, words, x_scale, b, depth, scale, column_bias, y + column,
                               columns);
    }
}

#endif

/* Packing from f32: a piece of each row is made into words, and the words of the rows are interleaved as floats are
 * (../vector/interleave.h). Making words are plain loops: the compiler makes vectors of the inner ones. */
#ifndef SMESIM_CONVERT_H
#define SMESIM_CONVERT_H

#include "../vector/interleave.h"
#include "smesim/layout_lowp.h"
#include "words.h"

enum {
    SMS_PIECE_WORDS = 64,
    SMS_PIECE_LINE = 16, /* floats of a cache line */
    SMS_F32_MAGNITUDE = 0x7fffffff,
    SMS_F32_INFINITY = 0x7f800000,
};

/* To nearest, ties to even; a NaN keeps its sign and upper bits and is made quiet. */
SMS_INLINE uint16_t sms_bf16(float x) {
    enum { QUIET = 0x40, BELOW_HALF = 0x7fff };
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = (bits + BELOW_HALF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & SMS_F32_MAGNITUDE) > SMS_F32_INFINITY ? bits >> 16 | QUIET : nearest);
}

/* As sms_bf16, to f16; what rounds beyond the largest becomes an infinity. Below the normal numbers the sum with a
 * half rounds: its last bit is worth the smallest f16. */
SMS_INLINE uint16_t sms_f16(float x) {
    enum {
        DROPPED_BITS = 13,
        BELOW_HALF = 0xfff,
        LEAST_NORMAL = 0x38800000,  /* 2^-14 as f32 */
        LEAST_INFINITE = 0x477ff000, /* halfway from the largest f16 to what would follow */
        EXPONENT_SHIFT = 0x38000000,
        HALF = 0x3f000000,
        INFINITE = 0x7c00,
        QUIET_NAN = 0x7e00,
        SIGN = 0x8000,
    };
    int32_t bits, small;
    memcpy(&bits, &x, sizeof bits);
    const int32_t size = bits & SMS_F32_MAGNITUDE;
    float sum;
    memcpy(&sum, &size, sizeof sum);
    sum += 0.5f;
    memcpy(&small, &sum, sizeof small);
    const int32_t normal = (size - EXPONENT_SHIFT + BELOW_HALF + (size >> DROPPED_BITS & 1)) >> DROPPED_BITS;
    const int32_t finite = size < LEAST_NORMAL ? small - HALF : normal;
    const int32_t number = size < LEAST_INFINITE ? finite : INFINITE;
    const int32_t not_a_number = QUIET_NAN | (size >> DROPPED_BITS & (INFINITE - 1));
    return (uint16_t)((bits >> 16 & SIGN) | (size > SMS_F32_INFINITY ? not_a_number : number));
}

/* The ratio is at most some 190, and that only of denormals, whose scale is coarse. Integers are compared because
 * a compiler may not compare floats ahead of time, and so makes no vectors of it. */
SMS_INLINE int8_t sms_s8(float x, float scale) {
    const float ROUND_TO_INTEGER = 12582912.0f; /* 1.5 * 2^23: its last bit is worth one */
    enum { ROUND_TO_INTEGER_BITS = 0x4b400000, MOST = 127 };
    const float shifted = x / scale + ROUND_TO_INTEGER;
    int32_t nearest;
    memcpy(&nearest, &shifted, sizeof nearest);
    nearest -= ROUND_TO_INTEGER_BITS;
    nearest = nearest < MOST ? nearest : MOST;
    return (int8_t)(nearest > -MOST ? nearest : -MOST);
}

/* `count` elements of x as words, the last one filled up with zeros. With scale zero or NaN, all are zeros. */
SMS_INLINE void sms_words_float(const enum sms_number number, const float *restrict x, int64_t count,
                                sms_word *words) {
    uint16_t numbers[SMS_PIECE_WORDS * SMS_BF16_GROUP];
    if (number == SMS_F16)
        for (int64_t i = 0; i < count; i++)
            numbers[i] = sms_f16(x[i]);
    else
        for (int64_t i = 0; i < count; i++)
            numbers[i] = sms_bf16(x[i]);
    if (count % SMS_BF16_GROUP)
        numbers[count] = 0;
    memcpy(words, numbers, (size_t)sms_grouped_depth(count, SMS_BF16_GROUP) * sizeof *numbers);
}

static void sms_words_s8(const float *restrict x, int64_t count, float scale, sms_word *words) {
    int8_t numbers[SMS_PIECE_WORDS * SMS_S8_GROUP] = {0};
    if (scale > 0.0f)
        for (int64_t i = 0; i < count; i++)
            numbers[i] = sms_s8(x[i], scale);
    memcpy(words, numbers, (size_t)sms_grouped_depth(count, SMS_S8_GROUP));
}

/* The largest magnitude over 127; NaN where that is not finite. Magnitudes are compared as integers, where a NaN
 * is the largest of all. */
static float sms_s8_scale(const float *x, int64_t k) {
    int32_t largest = 0;
    for (int64_t i = 0; i < k; i++) {
        int32_t magnitude;
        memcpy(&magnitude, &x[i], sizeof magnitude);
        magnitude &= SMS_F32_MAGNITUDE;
        largest = magnitude > largest ? magnitude : largest;
    }
    float value;
    memcpy(&value, &largest, sizeof value);
    return largest < SMS_F32_INFINITY ? value / 127.0f : NAN;
}

enum { SMS_WORD_ROWS = 16 }; /* rows that are made into words together */

/* `count` words of each of some rows, word i of row r to out[i * stride + r]. */
SMS_INLINE void sms_interleave_rows(const int rows, const sms_word (*words)[SMS_PIECE_WORDS], int64_t count,
                                    sms_word *out, const int64_t stride) {
    vf row[SMS_TALLEST];
    int64_t i = 0;
    for (; i + SMS_LANES <= count; i += SMS_LANES) {
        SMS_UNROLL(16)
        for (int r = 0; r < rows; r++)
            row[r] = v_of_bits(w_load(words[r] + i));
        sms_interleave(rows, row, (float *)(out + i * stride), stride);
    }
    for (; i < count; i++)
        for (int r = 0; r < rows; r++)
            out[i * stride + r] = words[r][i];
}

SMS_INLINE void sms_interleave_words(const sms_word (*words)[SMS_PIECE_WORDS], int64_t height, int64_t count,
                                     sms_word *out) {
#define SMS_THESE_ROWS(rows, row, stride) sms_interleave_rows(rows, words + (row), count, out + (row), stride)
    SMS_STRIP_ROWS(height)
#undef SMS_THESE_ROWS
}

/* `rows` rows of x, one word of each after another; `stride` words from one group of k to the next. int8 rows are
 * scaled, and their scales go to scale[rows]. */
SMS_INLINE void sms_pack_words(const enum sms_number number, const float *x, int64_t ldx, int64_t rows,
                               int64_t k, sms_word *out, int64_t stride, float *scale) {
    const int64_t group = w_group(number), piece = SMS_PIECE_WORDS * group;
    for (int64_t row0 = 0; row0 < rows; row0 += SMS_WORD_ROWS) {
        const int64_t count = rows - row0 < SMS_WORD_ROWS ? rows - row0 : SMS_WORD_ROWS;
        if (number == SMS_S8)
            for (int64_t r = row0; r < row0 + count; r++)
                scale[r] = sms_s8_scale(x + r * ldx, k);
        for (int64_t k0 = 0; k0 < k; k0 += piece) {
            const int64_t depth = k - k0 < piece ? k - k0 : piece, length = sms_ceil_div(depth, group);
            sms_word words[SMS_WORD_ROWS][SMS_PIECE_WORDS];
            for (int64_t r = 0; r < count; r++) {
                const float *from = x + (row0 + r) * ldx + k0;
                /* Many rows at a time, each for a short way, is nothing that the hardware sees coming. */
                for (int64_t i = 0; i < piece; i += SMS_PIECE_LINE)
                    __builtin_prefetch(from + piece + i);
                if (number == SMS_S8)
                    sms_words_s8(from, depth, scale[row0 + r], words[r]);
                else
                    sms_words_float(number, from, depth, words[r]);
            }
            sms_word *to = out + k0 / group * stride + row0;
            if (count == stride) {
                sms_interleave_words((const sms_word(*)[SMS_PIECE_WORDS])words, count, length, to);
                continue;
            }
            for (int64_t i = 0; i < length; i++)
                for (int64_t r = 0; r < count; r++)
                    to[i * stride + r] = words[r][i];
        }
    }
}

#endif

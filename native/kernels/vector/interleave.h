/* From rows to columns in registers: vectors of several rows become a piece of a packed strip (layout.h).
 *
 * Neighbouring rows are interleaved first. A strip of even height is then a row of such pairs, column after column, and
 * any four floats of it are two pairs. All shuffles stay within four lanes, where they are cheap on every ISA. */
#ifndef SMESIM_INTERLEAVE_H
#define SMESIM_INTERLEAVE_H

#include "vec.h"

enum { SMS_TALLEST = 16 }; /* rows that are worked on together, at most */

/* All rows of a strip, by SMS_THESE_ROWS(rows, first row, elements from one column to the next): at once for each height
 * that a table has micro-kernels for; of a higher strip four at a time, the last ones alone. */
#define SMS_CASE_OF_HEIGHT(rows)       \
    case rows:                         \
        SMS_THESE_ROWS(rows, 0, rows); \
        break;
#define SMS_STRIP_ROWS(height)                                  \
    switch (height) {                                           \
        SMS_HEIGHTS(SMS_CASE_OF_HEIGHT)                         \
    default:                                                    \
        for (int64_t end = 4; end <= height; end += 4)          \
            SMS_THESE_ROWS(4, end - 4, height);                 \
        for (int64_t row = height / 4 * 4; row < height; row++) \
            SMS_THESE_ROWS(1, row, height);                     \
    }

#if SMS_LANES > 1

/* Of each four lanes of x (0 to 3) and of y (4 to 7), those with the given numbers. */
#define SMS_FROM(four, i) ((i) < 4 ? 4 * (four) + (i) : SMS_LANES + 4 * (four) + (i)-4)
#define SMS_FOUR(four, a, b, c, d) SMS_FROM(four, a), SMS_FROM(four, b), SMS_FROM(four, c), SMS_FROM(four, d)
#if SMS_LANES == 4
#define SMS_FOURS(...) SMS_FOUR(0, __VA_ARGS__)
#elif SMS_LANES == 8
#define SMS_FOURS(...) SMS_FOUR(0, __VA_ARGS__), SMS_FOUR(1, __VA_ARGS__)
#else
#define SMS_FOURS(...) \
    SMS_FOUR(0, __VA_ARGS__), SMS_FOUR(1, __VA_ARGS__), SMS_FOUR(2, __VA_ARGS__), SMS_FOUR(3, __VA_ARGS__)
#endif
#if defined(__clang__)
#define SMS_SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SMS_SHUFFLE(x, y, ...) __builtin_shuffle(x, y, (vi){__VA_ARGS__})
#endif

/* The pairs of columns 0 and 1, or of 2 and 3, of each four. */
SMS_INLINE vf sms_first_pairs(vf x, vf y) { return SMS_SHUFFLE(x, y, SMS_FOURS(0, 4, 1, 5)); }
SMS_INLINE vf sms_last_pairs(vf x, vf y) { return SMS_SHUFFLE(x, y, SMS_FOURS(2, 6, 3, 7)); }

/* One pair of x and one of y; `second` says of which whether it is the four's second. */
SMS_INLINE vf sms_two_pairs(vf x, const int second_of_x, vf y, const int second_of_y) {
    if (second_of_x)
        return SMS_SHUFFLE(x, y, SMS_FOURS(2, 3, 6, 7));
    return second_of_y ? SMS_SHUFFLE(x, y, SMS_FOURS(0, 1, 6, 7)) : SMS_SHUFFLE(x, y, SMS_FOURS(0, 1, 4, 5));
}

/* The i-th four lanes of x go to out + i * stride, those of y `gap` behind them. */
SMS_INLINE void sms_store_fours(float *out, vf x, vf y, const int64_t gap, const int64_t stride) {
#if SMS_LANES == 8
    if (gap == 4) {
        v_store(out, SMS_SHUFFLE(x, y, 0, 1, 2, 3, 8, 9, 10, 11));
        v_store(out + stride, SMS_SHUFFLE(x, y, 4, 5, 6, 7, 12, 13, 14, 15));
        return;
    }
#endif
    SMS_UNROLL(4)
    for (int i = 0; i < SMS_LANES / 4; i++) {
        memcpy(out + i * stride, (const float *)&x + 4 * i, 4 * sizeof(float));
        memcpy(out + i * stride + gap, (const float *)&y + 4 * i, 4 * sizeof(float));
    }
}

/* Strips of even height; of height 4 also as rows of a higher one. */
SMS_INLINE void sms_interleave_pairs(const int height, const vf *row, float *out, const int64_t stride) {
    const int pairs = height / 2;
    const int64_t gap = height == 4 ? stride : 4;
    vf pair[2][SMS_TALLEST / 2];
    SMS_UNROLL(8)
    for (int p = 0; p < pairs; p++) {
        pair[0][p] = sms_first_pairs(row[2 * p], row[2 * p + 1]);
        pair[1][p] = sms_last_pairs(row[2 * p], row[2 * p + 1]);
    }
    SMS_UNROLL(8)
    for (int two = 0; two < height; two += 2) {
        vf piece[2];
        SMS_UNROLL(2)
        for (int j = 0; j < 2; j++) {
            const int first = 2 * (two + j), second = first + 1;
            const int column = first / pairs, next = second / pairs;
            piece[j] = sms_two_pairs(pair[column / 2][first % pairs], column % 2, pair[next / 2][second % pairs],
                                     next % 2);
        }
        sms_store_fours(out + two * gap, piece[0], piece[1], gap, 4 * stride);
    }
}

#endif

/* Column c of the rows goes to out[c * stride]. */
SMS_INLINE void sms_interleave(const int height, const vf *row, float *out, const int64_t stride) {
#if SMS_LANES > 1
    if ((height % 2 == 0 && stride == height) || height == 4) {
        sms_interleave_pairs(height, row, out, stride);
        return;
    }
#endif
    float block[SMS_TALLEST * SMS_LANES];
    SMS_UNROLL(16)
    for (int r = 0; r < height; r++)
        v_store(block + r * SMS_LANES, row[r]);
    SMS_UNROLL(16)
    for (int c = 0; c < SMS_LANES; c++) {
        SMS_UNROLL(16)
        for (int r = 0; r < height; r++)
            out[c * stride + r] = block[r * SMS_LANES + c];
    }
}

#endif

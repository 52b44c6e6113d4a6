/* The kernels of block-quantised weights: integers of 4 or 8 bits with one f16 scale for each 32 neighbouring k of
 * a row, as GGUF's Q4_0, Q8_0 and Q4_1 have them; one table per instruction set.
 *
 * The rules are those of kernels.h; the layouts are in layout_blocks.h, and every table reads the same ones. Weights
 * are integers of [-8, 7] (q4) or of any byte (q8), activations of [-127, 127], all times the scale of their block.
 * A number y of the product is, over the blocks b in ascending order,
 *
 *     y = bias or 0; y = fma((float)sum[b], x_scale[b] * w_scale[b], y)
 *
 * with the exact sum of a block's 32 integer products, and the product of the scales rounded to f32: the same bits
 * from every table, from gemm and from gemv, for any range. Weights of q4_1 are integers of [0, 15] times their scale
 * plus the least number of their block, so there after each block, with the sum of its activations' integers,
 *
 *     y = fma((float)x_sum[b], x_scale[b] * w_least[b], y)
 */
#ifndef SMESIM_BLOCKS_H
#define SMESIM_BLOCKS_H

#include <stdint.h>

#include "smesim/layout_blocks.h"

struct sms_blocks {
    const char *isa;
    int32_t lanes;     /* 32-bit elements of one vector */
    int32_t mr;        /* rows of the highest micro-kernel: strips of this height suit the table best */
    int32_t nr;        /* columns of a panel, SMS_NR */
    int32_t panels;    /* panels that one micro-kernel takes together */
    int32_t kc_blocks; /* depth of a piece of the product, in blocks */
    int32_t test_only; /* instructions acted out by others, to check their numbers; never the best */
    int32_t matrix;    /* drives a matrix unit: for the workers of a plan that do; never the best of a core */
    int32_t stand_in;  /* narrower than need be: for cores beside wider kernels that stand in for a matrix unit; never
                        * the best */

    /* Packing from f32. A block of x has scale = max |x| / 127 and the numbers nearest(x / scale), ties to even,
     * held to [-127, 127]. A block of zeros has scale 0; one with an infinity or a NaN has scale NaN and zeros. */
    void (*quantize_lhs_q8)(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                            int64_t strip1, int8_t *out, float *scale);
    /* As llama.cpp does with FMA, and the scale is rounded to f16 last. Of 4 bits, d is the first number of largest
     * magnitude / -8, and q = min(15, trunc(fma(w, 1 / d, 8.5))) - 8; of 8 bits, d = max |w| / 127, and
     * q = w * (1 / d) to nearest, ties away from zero. Where 1 / d is infinite it counts as 0. A block with an
     * infinity or a NaN has scale NaN and zeros. */
    void (*pack_rhs_q4)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                        uint8_t *out, uint16_t *scale);
    void (*pack_rhs_q8)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                        int8_t *out, uint16_t *scale);
    /* Packing from rows of GGUF's blocks, k a multiple of 32, each row row_bytes behind the one before. A block of
     * Q4_0 is an f16 scale and 16 bytes, the low nibbles k 0 .. 15 and the high ones k 16 .. 31, all offset by 8;
     * one of Q8_0 an f16 scale and 32 int8. Scales and integers are kept as they are. */
    void (*repack_rhs_q4)(const uint8_t *rows, int64_t row_bytes, int64_t n, int64_t k, int64_t panel0,
                          int64_t panel1, uint8_t *out, uint16_t *scale);
    void (*repack_rhs_q8)(const uint8_t *rows, int64_t row_bytes, int64_t n, int64_t k, int64_t panel0,
                          int64_t panel1, int8_t *out, uint16_t *scale);

    /* The same of 4 bits with a least number: d = (most - least) / 15 and q = min(15, trunc(fma(w - least, 1 / d, 0.5))),
     * 0 where 1 / d counts as 0; a block of Q4_1 is an f16 scale, the f16 least number, and 16 bytes as in Q4_0 without an offset. `scale` has both
     * of each block (layout_blocks.h). */
    void (*pack_rhs_q4_1)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                          uint8_t *out, uint16_t *scale);
    void (*repack_rhs_q4_1)(const uint8_t *rows, int64_t row_bytes, int64_t n, int64_t k, int64_t panel0,
                            int64_t panel1, uint8_t *out, uint16_t *scale);

    /* For caches of keys and values, k a multiple of 32. One row as pack_rhs_q8 quantises it, numbers[k] and scales
     * [k / 32] in their order; then numbers times their scales, which f32 holds exactly: panels of packed weights as
     * rhs_f32_n16; and n such rows, the scales of all in another array, as the rhs_f32_n16 of their transpose, [k][n]. */
    void (*quantize_row_q8)(const float *x, int64_t k, int8_t *out, uint16_t *scale);
    void (*widen_rhs_q8)(const int8_t *rhs, const uint16_t *scale, int64_t k, int64_t panel0, int64_t panel1,
                         float *out);
    void (*widen_rows_q8)(const int8_t *rows, const uint16_t *scale, int64_t n, int64_t k, float *out);

    /* c[m][n] = lhs * rhs^T + bias; bias[n] may be NULL. */
    void (*gemm_q4)(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,
                    const uint8_t *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias, float *c,
                    int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1);
    void (*gemm_q8)(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,
                    const int8_t *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias, float *c,
                    int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1);
    void (*gemm_q4_1)(const int8_t *lhs, const float *lhs_scale, int64_t m, int64_t k, int64_t mr,
                      const uint8_t *rhs, const uint16_t *rhs_scale, int64_t n, const float *bias, float *c,
                      int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1);
    /* y[n] = x[k] * rhs^T + bias, at the rate the memory gives; x as quantize_lhs_q8 packs one row. */
    void (*gemv_q4)(const int8_t *x, const float *x_scale, const uint8_t *rhs, const uint16_t *rhs_scale,
                    int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1);
    void (*gemv_q8)(const int8_t *x, const float *x_scale, const int8_t *rhs, const uint16_t *rhs_scale,
                    int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1);
    void (*gemv_q4_1)(const int8_t *x, const float *x_scale, const uint8_t *rhs, const uint16_t *rhs_scale,
                      int64_t n, int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1);
};

/* Compiled-in tables, fastest first, NULL past the last; some may need a CPU that this one is not. */
const struct sms_blocks *sms_blocks_at(int32_t index);
/* 1 if this CPU and its operating system can run the table. */
int32_t sms_blocks_supported(const struct sms_blocks *blocks);
/* The table of that name, NULL if it is not compiled in or not supported here. */
const struct sms_blocks *sms_blocks_find(const char *isa);
/* The fastest table of a core that is supported here; there always is one. */
const struct sms_blocks *sms_blocks_best(void);

#endif

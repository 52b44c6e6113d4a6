/* The kernels of low precision: products of bf16, f16 and int8 numbers, one table per instruction set.
 *
 * The rules are those of kernels.h; the layouts are in layout_lowp.h, and every table reads the same ones. bf16
 * and f16 numbers are held in uint16_t. Products of both are summed in f32; a table may flush denormals of bf16
 * where its instructions do (VDPBF16PS, BFMMLA, BFMOPA); those of f16 count everywhere. Products of int8 are summed
 * in int32 without error, for depths up to 133,000, and every table gives the same bits. */
#ifndef SMESIM_LOWP_H
#define SMESIM_LOWP_H

#include <stdint.h>

#include "smesim/layout_lowp.h"

struct sms_lowp {
    const char *isa;
    int32_t lanes;          /* 32-bit elements of one vector */
    int32_t mr;             /* rows of the highest micro-kernel: strips of this height suit the table best */
    int32_t nr;             /* columns of a panel, SMS_NR */
    int32_t panels;         /* panels that one micro-kernel takes together */
    int32_t kc_groups;      /* depth of a block, in groups of k */
    int32_t test_only;      /* instructions acted out by others, to check their numbers; never the best */
    int32_t matrix;         /* drives a matrix unit: for the workers of a plan that do; never the best of a core */
    int32_t stand_in;  /* narrower than need be: for cores beside wider kernels that stand in for a matrix unit; never
                        * the best */
    int32_t bf16_peak_flop; /* FLOP of one iteration of bf16_peak */
    int32_t f16_peak_flop;
    int32_t s8_peak_op;     /* operations of one iteration of s8_peak; a multiply-add is 2 */

    /* Packing from f32, to the nearest bf16 (ties to even; a NaN stays one). Strips are at most `mr` rows high. */
    void (*pack_lhs_bf16)(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                          int64_t strip1, uint16_t *out);
    void (*pack_rhs_bf16)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                          uint16_t *out);

    /* The same to the nearest f16; what is too large becomes an infinity. */
    void (*pack_lhs_f16)(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                         int64_t strip1, uint16_t *out);
    void (*pack_rhs_f16)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                         uint16_t *out);

    /* Packing from f32, each row by its own scale = max |x| / 127, as nearest(x / scale), ties to even, held to
     * [-127, 127]. A row of zeros has scale 0; a row with an infinity or a NaN has scale NaN and zeros.
     * row_scale[m] and column_scale[n] are written in the range of rows that is packed. */
    void (*quantize_lhs_s8)(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                            int64_t strip1, int8_t *out, float *row_scale);
    void (*pack_rhs_s8)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                        int8_t *out, float *column_scale);

    /* n numbers to the nearest f16, as above; and f16 as f32, which is exact. */
    void (*narrow_f16)(const float *x, int64_t n, uint16_t *y);
    void (*widen_f16)(const uint16_t *x, int64_t n, float *y);
    /* kv_append and kv_pack of kernels.h to caches of f16 (layout_kv.h), rounded as narrow_f16 rounds. */
    void (*kv_append_f16)(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past,
                          int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, uint16_t *k_cache,
                          uint16_t *v_cache);
    void (*kv_pack_f16)(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past,
                        int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, uint16_t *k_cache,
                        uint16_t *v_cache);

    /* c[m][n] = lhs * rhs^T + bias; bias[n] may be NULL. */
    void (*gemm_bf16)(const uint16_t *lhs, int64_t m, int64_t k, int64_t mr, const uint16_t *rhs, int64_t n,
                      const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1,
                      int64_t panel0, int64_t panel1);
    void (*gemm_f16)(const uint16_t *lhs, int64_t m, int64_t k, int64_t mr, const uint16_t *rhs, int64_t n,
                     const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,
                     int64_t panel1);
    /* c[m][n] = fma((float)sum, row_scale[m] * column_scale[n], bias[n]), sum that of the integers. */
    void (*gemm_s8)(const int8_t *lhs, const float *row_scale, int64_t m, int64_t k, int64_t mr,
                    const int8_t *rhs, const float *column_scale, int64_t n, const float *bias, float *c,
                    int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0, int64_t panel1);
    /* y[n] = x[k] * rhs^T + bias, at the rate the memory gives: of bf16 and f16 with x in f32, of int8 with x as
     * quantize_lhs_s8 packs one row; this gives the bits of gemm_s8. Infinite bf16 times numbers
     * below 2^-86 may give NaN. */
    void (*gemv_bf16)(const float *x, const uint16_t *rhs, int64_t n, int64_t k, const float *bias, float *y,
                      int64_t panel0, int64_t panel1);
    void (*gemv_f16)(const float *x, const uint16_t *rhs, int64_t n, int64_t k, const float *bias, float *y,
                     int64_t panel0, int64_t panel1);
    void (*gemv_s8)(const int8_t *x, float x_scale, const int8_t *rhs, const float *column_scale, int64_t n,
                    int64_t k, const float *bias, float *y, int64_t panel0, int64_t panel1);

    /* Loops that measure the multiply-add pipes: what a tile of the product would take, its operands at hand. */
    float (*bf16_peak)(int64_t iterations);
    float (*f16_peak)(int64_t iterations);
    int32_t (*s8_peak)(int64_t iterations);
};

/* Compiled-in tables, fastest first, NULL past the last; some may need a CPU that this one is not. */
const struct sms_lowp *sms_lowp_at(int32_t index);
/* 1 if this CPU and its operating system can run the table. */
int32_t sms_lowp_supported(const struct sms_lowp *lowp);
/* The table of that name, NULL if it is not compiled in or not supported here. */
const struct sms_lowp *sms_lowp_find(const char *isa);
/* The fastest table of a core that is supported here; there always is one. */
const struct sms_lowp *sms_lowp_best(void);

#endif

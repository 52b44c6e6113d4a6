/* The compute kernels: one table of pure leaves per instruction set.
 *
 * A leaf computes, and nothing else: no threads, no allocation, no state. What it needs beyond its operands
 * is scratch that the caller passes in. Matrices are cut by strips of rows (lhs) and panels of columns (rhs),
 * see layout.h; a leaf takes half-open ranges of them, so that a task is a leaf with a range and tasks of one
 * operator share nothing but their inputs. Output columns and rows outside the range are never written.
 *
 * All numbers are f32; pointers need the alignment of float (64 bytes is faster); sizes and leading
 * dimensions count elements. Inputs and outputs must not overlap unless it is said. */
#ifndef SMESIM_KERNELS_H
#define SMESIM_KERNELS_H

#include <stdint.h>

#include "smesim/layout.h"

/* Query rows of one KV head, as the attention leaves see them: row r is head r % group of the token at
 * absolute position `position + r / group`, and sees the keys 0 .. that position. */
struct sms_attention_rows {
    int64_t rows;
    int64_t group;
    int64_t position;
    int64_t head_dim;
    int64_t capacity; /* positions that the K and V caches have room for */
};

struct sms_kernels {
    const char *isa;
    int32_t lanes;     /* f32 elements of one vector */
    int32_t mr;        /* rows of the highest micro-kernel: strips of this height suit the table best */
    int32_t nr;        /* columns of a panel, SMS_NR */
    int32_t panels;    /* panels that one micro-kernel takes together */
    int32_t kc;        /* depth of a block */
    int32_t test_only; /* wide code on narrow hardware, to check its numbers; never the best */
    int32_t matrix;    /* drives a matrix unit: for the workers of a plan that do; never the best of a core */
    int32_t stand_in;  /* narrower than need be: for cores beside wider kernels that stand in for a matrix unit; never
                        * the best */
    int32_t fma_flop;  /* FLOP of one iteration of fma_peak */
    int32_t fma_flop_f64;

    /* Packing. Strips are at most `mr` rows high, whatever the table's own mr is. */
    void (*pack_lhs)(const float *x, int64_t ldx, int64_t m, int64_t k, int64_t mr, int64_t strip0,
                     int64_t strip1, float *out);
    void (*pack_rhs)(const float *w, int64_t ldw, int64_t n, int64_t k, int64_t panel0, int64_t panel1,
                     float *out);
    void (*unpack_rhs)(const float *packed, int64_t n, int64_t k, int64_t panel0, int64_t panel1, float *w,
                       int64_t ldw);

    /* Uniform numbers in [-scale, scale) that depend on (seed, n, k) alone: the same bits in either layout,
     * for every range and on every ISA. */
    void (*fill_rhs)(float *packed, int64_t n, int64_t k, int64_t panel0, int64_t panel1, uint64_t seed,
                     float scale);
    void (*fill_rows)(float *w, int64_t ldw, int64_t k, int64_t row0, int64_t row1, uint64_t seed,
                      float scale);

    /* c[m][n] = lhs * rhs^T + bias; bias[n] may be NULL. lhs is packed in strips of at most `mr` rows. */
    void (*gemm)(const float *lhs, int64_t m, int64_t k, int64_t mr, const float *rhs, int64_t n,
                 const float *bias, float *c, int64_t ldc, int64_t strip0, int64_t strip1, int64_t panel0,
                 int64_t panel1);
    /* y[n] = x[k] * rhs^T + bias: reads each weight once, from memory at the rate the memory gives. */
    void (*gemv)(const float *x, const float *rhs, int64_t n, int64_t k, const float *bias, float *y,
                 int64_t panel0, int64_t panel1);

    /* y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * gamma; y may be x. */
    void (*rmsnorm)(const float *x, int64_t ldx, const float *gamma, float *y, int64_t ldy, int64_t rows,
                    int64_t dim, float eps);
    /* y = a + b; y may be a or b. */
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    /* y = silu(gate) * up; y may be gate or up. */
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    /* The same of whole rows, y[m][..] written as pack_lhs packs it, in the strips strip0 .. strip1: the bits that the
     * plain leaf and pack_lhs give. out must not overlap the inputs. */
    void (*rmsnorm_packed)(const float *x, int64_t ldx, const float *gamma, int64_t m, int64_t dim, float eps,
                           int64_t mr, int64_t strip0, int64_t strip1, float *out);
    void (*swiglu_packed)(const float *gate, int64_t ldg, const float *up, int64_t ldu, int64_t m, int64_t n,
                          int64_t mr, int64_t strip0, int64_t strip1, float *out);
    void (*copy)(const float *x, float *y, int64_t n);
    /* y[n] = sum over i < count, in that order, of weights[i] * x[rows[i]][n]. */
    void (*weighted_sum)(const float *x, int64_t ldx, const int32_t *rows, const float *weights, int64_t count,
                         float *y, int64_t n);
    /* Rotates x[rows][heads][head_dim] in place, element j with j + head_dim / 2, as Hugging Face does. Row r
     * is at position `position + r` of the tables cosine, sine [positions][head_dim / 2]. */
    void (*rope)(float *x, int64_t ldx, int64_t rows, int64_t heads, int64_t head_dim, const float *cosine,
                 const float *sine, int64_t position);
    /* y[r] = table[ids[r]], from a row-major table or from an rhs_f32_n16 one (tied embeddings). */
    void (*embed_rows)(const int32_t *ids, int64_t rows, const float *table, int64_t ldt, int64_t dim,
                       float *y, int64_t ldy);
    void (*embed_rhs)(const int32_t *ids, int64_t rows, const float *table, int64_t dim, float *y,
                      int64_t ldy);
    /* Index of the first largest number, NaN passed over; -1 where none is above minus infinity. */
    int64_t (*argmax)(const float *x, int64_t n);

    /* One batch element's heads head0 .. head1 of k and v[tokens][kv_heads * head_dim] go to the positions
     * past .. past + tokens of the caches, whose heads follow one another from head 0. */
    void (*kv_append)(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past,
                      int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, float *k_cache,
                      float *v_cache);
    /* The same bits by what packs for products: of a table that drives a matrix unit by that, else by kv_append. */
    void (*kv_pack)(const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t tokens, int64_t past,
                    int64_t head0, int64_t head1, int64_t head_dim, int64_t capacity, float *k_cache,
                    float *v_cache);
    /* Causal, online softmax, for one KV head and the query tokens token0 .. token1. q and out are
     * [tokens][ld] and point at the first of the `group` heads that share the KV head; k_cache and v_cache at
     * that head's cache. Token t is at absolute position past + t, and the cache holds all positions up to
     * past + token1 - 1. */
    void (*attention)(const float *q, int64_t ldq, const float *k_cache, const float *v_cache, float *out,
                      int64_t ldo, int64_t token0, int64_t token1, int64_t past, int64_t group,
                      int64_t head_dim, int64_t capacity, float *scratch);
    /* Scratch of attention, in elements. */
    int64_t (*attention_scratch)(int64_t group, int64_t head_dim);

    /* Stages of attention, for pipelines, on scores[rows][lds] of the keys key0 .. key0 + keys, key0 a multiple
     * of 16. qk_block takes q[rows][head_dim] already scaled. softmax_block turns scores into exp(score - peak),
     * zero where a row does not see a key that the last row does; peak[rows] and total[rows] are the running maximum
     * and sum, and shrink[rows] is by what all that a row gathered before shrinks as its peak grows, 1 where it does
     * not. pv_block adds scores * V to acc[rows][head_dim], whose rows scale_rows has multiplied by shrink. So the
     * softmax of one block does not wait for the values of the block before, and the stages of a block may be of
     * different tables. */
    void (*qk_block)(const struct sms_attention_rows *at, const float *q, const float *k_cache, int64_t key0,
                     int64_t keys, float *scores, int64_t lds);
    void (*softmax_block)(const struct sms_attention_rows *at, int64_t key0, int64_t keys, float *scores,
                          int64_t lds, float *peak, float *total, float *shrink);
    void (*pv_block)(const struct sms_attention_rows *at, const float *scores, int64_t lds,
                     const float *v_cache, int64_t key0, int64_t keys, float *acc);
    void (*scale_rows)(float *x, int64_t rows, int64_t dim, const float *factors);
    /* What comes before the first block and after the last: queries of the rows' tokens, [ldq] apart, become scaled
     * rows; and acc / total becomes the tokens' outputs, [ldo] apart. */
    void (*attention_begin)(const struct sms_attention_rows *at, const float *q, int64_t ldq, float *scaled);
    void (*attention_end)(const struct sms_attention_rows *at, const float *acc, const float *total, float *out,
                          int64_t ldo);

    /* Attention to a part of the past, for one token's rows: what the keys key0 .. key0 + keys, key0 a multiple of 16,
     * contribute, as acc[rows][head_dim], peak[rows] and total[rows], one after the other in `part`. Scratch as for
     * attention. attention_combine makes the output of the parts, which follow one another; they are taken in their
     * order. */
    void (*attention_part)(const struct sms_attention_rows *at, const float *q, int64_t ldq, const float *k_cache,
                           const float *v_cache, int64_t key0, int64_t keys, float *part, float *scratch);
    void (*attention_combine)(const struct sms_attention_rows *at, const float *parts, int64_t n_parts, int64_t stride,
                              float *out, int64_t ldo);

    /* Loops that measure the machine. Each does work that the compiler cannot drop. */
    float (*fma_peak)(int64_t iterations);
    double (*fma_peak_f64)(int64_t iterations);
    float (*read_bandwidth)(const float *x, int64_t n, int64_t passes); /* returns the sum over all passes */
    void (*write_bandwidth)(float *y, int64_t n, float value);
    void (*triad)(const float *a, const float *b, float scale, float *y, int64_t n); /* y = a + scale * b */
};

/* Compiled-in tables, fastest first, NULL past the last; some may need a CPU that this one is not. */
const struct sms_kernels *sms_kernels_at(int32_t index);
/* 1 if this CPU and its operating system can run the table. */
int32_t sms_kernels_supported(const struct sms_kernels *kernels);
/* The table of that name, NULL if it is not compiled in or not supported here. */
const struct sms_kernels *sms_kernels_find(const char *isa);
/* The fastest table of a core that is supported here; there always is one. */
const struct sms_kernels *sms_kernels_best(void);

#endif

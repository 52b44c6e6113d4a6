/* Products with one vector, by SME2's multiply-adds of four vectors into four vectors of ZA. The weights set the pace:
 * each is read once, with nothing but loads of four vectors, and four panels side by side are four streams.
 *
 * A panel is taken as the row of words that it is in memory. Four vectors of it are some k of 16 columns each: at
 * SVL 512 four, one a vector. They are multiplied by four vectors that hold each factor for its 16 columns, which serve
 * all panels; what belongs to one column is added up at the end.
 *
 * A word of weights takes one factor if it is an f32 or four int8: a word of x. f16 are widened, for they cannot hold
 * the range of x, and the two of a word take two numbers of x. A pair of bf16 takes three, of the bf16 that x is split
 * into, a piece of the depth at a time; y holds the sums between pieces. Factors of a word lie side by side. */
#ifndef SMESIM_SME_GEMV_H
#define SMESIM_SME_GEMV_H

#include <stddef.h>

#include "split.h"

enum {
    SMS_GEMV_STREAMS = 4,
    SMS_GEMV_VECTORS = 4,
    SMS_GEMV_LONGEST = SMS_GEMV_VECTORS * 2048 / 32,
    SMS_GEMV_PIECE_WORDS = 1024,
};

SMS_INLINE int sms_factors(const enum sms_number number) SMS_ANY_MODE {
    return number == SMS_BF16 ? SMS_SPLIT_PARTS : number == SMS_F16 ? SMS_BF16_GROUP : 1;
}

struct sms_gemv_operands {
    const float *x, *rhs; /* x as the leaf has it; words */
    int64_t n, k, depth;  /* as long as x, of int8 in words; in words */
    const float *bias;
    float x_scale;
    const float *column_scale;
    float *y;
    int64_t panel0, panel1;
};

/* One piece of the depth: factors, and where the words of neighbouring panels lie. */
struct sms_gemv_piece {
    const float *x;
    int64_t factors, depth, b_panel;
};

/* Factor `at` for a vector's first word, and where it is `parts` words long those of the others. Factors are zero
 * behind the last, as the weights are there; `whole` promises that nothing is. */
SMS_INLINE svfloat32_t sms_gemv_factor(const enum sms_number number, const int parts, const int whole, const float *x,
                                       int64_t at, int64_t factors) __arm_streaming {
    svfloat32_t factor = svdup_f32(whole || at < factors ? x[at] : 0.0f);
    for (int part = 1; part < parts; part++) {
        const int64_t next = at + part * sms_factors(number);
        const svfloat32_t rest = svdup_f32(whole || next < factors ? x[next] : 0.0f);
        factor = svsel_f32(sms_lanes_until(0, part * SMS_NR), factor, rest);
    }
    return factor;
}

/* Factor number `which` of the words that four vectors begin with. */
SMS_INLINE svfloat32x4_t sms_gemv_factors(const enum sms_number number, const int64_t lanes, const int parts,
                                          const int whole, const float *x, int which,
                                          int64_t factors) __arm_streaming {
    const int64_t every = sms_factors(number);
    return svcreate4_f32(
        sms_gemv_factor(number, parts, whole, x, which, factors),
        sms_gemv_factor(number, parts, whole, x, lanes / SMS_NR * every + which, factors),
        sms_gemv_factor(number, parts, whole, x, 2 * lanes / SMS_NR * every + which, factors),
        sms_gemv_factor(number, parts, whole, x, 3 * lanes / SMS_NR * every + which, factors));
}

SMS_INLINE void sms_gemv_add(const enum sms_number number, uint32_t stream, svfloat32x4_t words,
                             svfloat32x4_t factors) SMS_IN_ZA {
    if (number == SMS_BF16)
        svdot_za32_bf16_vg1x4(stream, svreinterpret_bf16_f32_x4(words), svreinterpret_bf16_f32_x4(factors));
    else if (number == SMS_S8)
        svdot_za32_s8_vg1x4(stream, svreinterpret_s8_f32_x4(words), svreinterpret_s8_f32_x4(factors));
    else
        svmla_za32_f32_vg1x4(stream, words, factors);
}

/* The next four vectors of one panel or four, of which `words` words are there, with `factors` factors at x; `whole`
 * promises that all are. Vectors are few: the weights of all panels are at hand while their factors come and go, but of
 * f16 the factors while weights are widened. */
SMS_INLINE void sms_gemv_step(const enum sms_number number, const int64_t lanes, const int parts, const int streams,
                              const int whole, const float *x, int64_t factors, const float *const b[],
                              int64_t words) SMS_IN_ZA {
    const svcount_t all = whole ? svptrue_c32() : svwhilelt_c32_s64(0, words, SMS_GEMV_VECTORS);
    if (number == SMS_F16) {
        const svfloat32x4_t even = sms_gemv_factors(number, lanes, parts, whole, x, 0, factors);
        const svfloat32x4_t odd = sms_gemv_factors(number, lanes, parts, whole, x, 1, factors);
        SMS_UNROLL(4)
        for (int s = 0; s < streams; s++) {
            const svfloat32x4_t pairs = svld1_f32_x4(all, b[s]);
            sms_gemv_add(number, (uint32_t)s, sms_widened_f16(pairs, 0), even);
            sms_gemv_add(number, (uint32_t)s, sms_widened_f16(pairs, 1), odd);
        }
        return;
    }
    const svfloat32x4_t first = svld1_f32_x4(all, b[0]), second = streams > 1 ? svld1_f32_x4(all, b[1]) : first;
    const svfloat32x4_t third = streams > 1 ? svld1_f32_x4(all, b[2]) : first;
    const svfloat32x4_t fourth = streams > 1 ? svld1_f32_x4(all, b[3]) : first;
    SMS_UNROLL(4)
    for (int which = 0; which < sms_factors(number); which++) {
        const svfloat32x4_t factor = sms_gemv_factors(number, lanes, parts, whole, x, which, factors);
        sms_gemv_add(number, 0, first, factor);
        if (streams > 1) {
            sms_gemv_add(number, 1, second, factor);
            sms_gemv_add(number, 2, third, factor);
            sms_gemv_add(number, 3, fourth, factor);
        }
    }
}

SMS_INLINE void sms_gemv_depth(const enum sms_number number, const int64_t lanes, const int parts, const int streams,
                               const struct sms_gemv_piece *piece, const float *panels) SMS_IN_ZA {
    const int64_t step = SMS_GEMV_VECTORS * lanes / SMS_NR;
    const float *x = piece->x, *b[SMS_GEMV_STREAMS];
    SMS_UNROLL(4)
    for (int s = 0; s < streams; s++)
        b[s] = panels + s * piece->b_panel;
    /* An odd number of x leaves a word of f16 with a factor too few. */
    int64_t i = 0;
    for (const int64_t whole = piece->factors / sms_factors(number); i + step <= whole; i += step) {
        sms_gemv_step(number, lanes, parts, streams, 1, x, 0, b, 0);
        x += step * sms_factors(number);
        SMS_ONE_REGISTER(x);
        SMS_UNROLL(4)
        for (int s = 0; s < streams; s++) {
            b[s] += SMS_GEMV_VECTORS * lanes;
            SMS_ONE_REGISTER(b[s]);
        }
    }
    if (i < piece->depth)
        sms_gemv_step(number, lanes, parts, streams, 0, x, piece->factors - i * sms_factors(number), b,
                      (piece->depth - i) * SMS_NR);
}

/* Adds up what four vectors of ZA hold for each of the 16 columns, and stores as many as there are; `begin` is what
 * they are added to. */
SMS_INLINE void sms_gemv_end(const enum sms_number number, const struct sms_gemv_operands *g, uint32_t stream,
                             const float *begin, int64_t column) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw(), width = sms_smaller(lanes, SMS_NR);
    const int64_t columns = sms_smaller(g->n - column, SMS_NR);
    float words[SMS_GEMV_LONGEST];
    /* The four vectors of a group lie a quarter of ZA apart. (svread_za32_f32_vg1x4 would say the same, but clang 22
     * reads a constant slice through a register that it never set.) */
    for (int64_t j = 0; j < SMS_GEMV_VECTORS; j++)
        svstr_za(stream + (uint32_t)(j * lanes), words + j * lanes);
    for (int64_t j = 0; j < columns; j += width) {
        const svbool_t present = sms_lanes_until(j, sms_smaller(j + width, columns));
        svfloat32_t sum = begin ? svld1_f32(present, begin + column + j) : svdup_f32(0.0f);
        if (number == SMS_S8) {
            svint32_t count = svdup_s32(0);
            for (int64_t i = j; i < SMS_GEMV_VECTORS * lanes; i += SMS_NR)
                count = svadd_s32_x(present, count, svreinterpret_s32_f32(svld1_f32(present, words + i)));
            const svfloat32_t column_scale = svld1_f32(present, g->column_scale + column + j);
            sum = sms_scaled(svcvt_f32_s32_x(present, count), svmul_n_f32_x(present, column_scale, g->x_scale), sum);
        } else {
            for (int64_t i = j; i < SMS_GEMV_VECTORS * lanes; i += SMS_NR)
                sum = svadd_f32_x(present, sum, svld1_f32(present, words + i));
        }
        svst1_f32(present, g->y + column + j, sum);
    }
}

SMS_INLINE void sms_gemv_panels(const enum sms_number number, const int streams, const struct sms_gemv_operands *g,
                                const struct sms_gemv_piece *piece, const float *b, const float *begin,
                                int64_t panel) SMS_IN_ZA {
    const int64_t lanes = (int64_t)svcntw();
    svzero_za();
    if (lanes == SMS_NR) /* a constant from here on */
        sms_gemv_depth(number, SMS_NR, 1, streams, piece, b);
    else if (lanes < SMS_NR)
        sms_gemv_depth(number, lanes, 1, streams, piece, b);
    else if (lanes == 2 * SMS_NR)
        sms_gemv_depth(number, lanes, 2, streams, piece, b);
    else
        sms_gemv_depth(number, lanes, 4, streams, piece, b);
    for (int64_t s = 0; s < streams; s++)
        sms_gemv_end(number, g, (uint32_t)s, begin, (panel + s) * SMS_NR);
}

SMS_INLINE void sms_gemv_words(const enum sms_number number, const struct sms_gemv_operands *g) SMS_IN_ZA {
    const int64_t depth = g->depth;
    const int64_t pieces = number == SMS_BF16 && depth > 0 ? sms_ceil_div(depth, SMS_GEMV_PIECE_WORDS) : 1;
    float split[SMS_SPLIT_PARTS * SMS_GEMV_PIECE_WORDS];
    for (int64_t pc = 0; pc < pieces; pc++) {
        const int64_t k0 = pc * depth / pieces, k1 = (pc + 1) * depth / pieces;
        struct sms_gemv_piece piece = {.x = g->x, .factors = g->k, .depth = k1 - k0, .b_panel = SMS_NR * depth};
        const float *begin = k0 > 0 ? g->y : g->bias;
        if (number == SMS_BF16) {
            const int64_t x0 = k0 * SMS_BF16_GROUP, x1 = sms_smaller(k1 * SMS_BF16_GROUP, g->k);
            sms_split(g->x + x0, x1 - x0, split);
            piece.x = split;
            piece.factors = SMS_SPLIT_PARTS * piece.depth;
        }
        for (int64_t panel = g->panel0; panel < g->panel1;) {
            const float *b = g->rhs + panel * SMS_NR * depth + k0 * SMS_NR;
            if (g->panel1 - panel >= SMS_GEMV_STREAMS) {
                sms_gemv_panels(number, SMS_GEMV_STREAMS, g, &piece, b, begin, panel);
                panel += SMS_GEMV_STREAMS;
            } else {
                sms_gemv_panels(number, 1, g, &piece, b, begin, panel);
                panel++;
            }
        }
    }
}

#endif

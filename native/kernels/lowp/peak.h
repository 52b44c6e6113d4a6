/* Loops that find what the multiply-add pipes give for words: the inner loop of a tile, its parts made before and
 * read from the nearest cache. Operands are read anew each time because the products of constants are constants,
 * which a compiler would compute once. */
#ifndef SMESIM_PEAK_H
#define SMESIM_PEAK_H

#include "product.h"

enum { SMS_PEAK_CHAINS = SMS_MR * SMS_PANELS * SMS_PANEL_VECTORS };

#define SMS_WORD_PEAK(name, vector, zero, dot, add)                                              \
    static vector name(sms_word ones, int64_t iterations) {                                      \
        enum { V = SMS_PANELS * SMS_PANEL_VECTORS };                                             \
        sms_word rhs[SMS_TILE_COLUMNS], lhs[SMS_MR];                                             \
        for (int j = 0; j < SMS_TILE_COLUMNS; j++)                                               \
            rhs[j] = ones;                                                                       \
        for (int r = 0; r < SMS_MR; r++)                                                         \
            lhs[r] = ones;                                                                       \
        vector acc[SMS_MR][V];                                                                   \
        SMS_UNROLL(16)                                                                           \
        for (int r = 0; r < SMS_MR; r++) {                                                       \
            SMS_UNROLL(16)                                                                       \
            for (int j = 0; j < V; j++)                                                          \
                acc[r][j] = zero;                                                                \
        }                                                                                        \
        const sms_word *a = lhs, *b = rhs;                                                       \
        for (int64_t i = 0; i < iterations; i++) {                                               \
            __asm__ volatile("" : "+r"(a), "+r"(b));                                             \
            SMS_UNROLL(16)                                                                       \
            for (int r = 0; r < SMS_MR; r++) {                                                   \
                SMS_UNROLL(16)                                                                   \
                for (int j = 0; j < V; j++)                                                      \
                    acc[r][j] = dot(acc[r][j], w_load(b + j * SMS_LANES), w_set(a[r]));          \
            }                                                                                    \
        }                                                                                        \
        vector done[SMS_PEAK_CHAINS];                                                            \
        SMS_UNROLL(16)                                                                           \
        for (int r = 0; r < SMS_MR; r++) {                                                       \
            SMS_UNROLL(16)                                                                       \
            for (int j = 0; j < V; j++)                                                          \
                done[r * V + j] = acc[r][j];                                                     \
        }                                                                                        \
        __asm__ volatile("" : : "r"(done) : "memory");                                           \
        vector total = zero;                                                                     \
        for (int i = 0; i < SMS_PEAK_CHAINS; i++)                                                \
            total = add(total, done[i]);                                                         \
        return total;                                                                            \
    }
SMS_WORD_PEAK(sms_sum_bf16, vf, v_set(0.0f), w_dot_bf16, v_add)
SMS_WORD_PEAK(sms_count_s8, vi, w_set(0), w_dot_s8, w_add)

/* The sum of all products of 1 and 1. */
static float sms_bf16_peak(int64_t iterations) {
    const sms_word two_bf16 = 0x3f803f80, f32 = 0x3f800000;
    return v_sum(sms_sum_bf16(SMS_BF16_DOT ? two_bf16 : f32, iterations));
}

static int32_t sms_s8_peak(int64_t iterations) {
    const sms_word four_int8 = 0x01010101, two_int16 = 0x00010001;
    sms_word lanes[SMS_LANES];
    w_store(lanes, sms_count_s8(SMS_S8_DOT ? four_int8 : two_int16, iterations));
    uint32_t total = 0;
    for (int lane = 0; lane < SMS_LANES; lane++)
        total += (uint32_t)lanes[lane];
    return (int32_t)total;
}

#endif

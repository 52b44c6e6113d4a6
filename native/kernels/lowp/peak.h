/* Loops that find what the multiply-add pipes give for words: the inner loop of a tile, its operands made before and
 * read from the nearest cache. They are read anew each time because the products of constants are constants, which
 * a compiler would compute once. */
#ifndef SMESIM_PEAK_H
#define SMESIM_PEAK_H

#include "product.h"

enum {
    SMS_PEAK_CHAINS = SMS_MR * SMS_PANELS * SMS_PANEL_VECTORS,
    SMS_MOST_OPERANDS = 2 * (SMS_MR > SMS_TILE_COLUMNS ? SMS_MR : SMS_TILE_COLUMNS),
};

/* What is multiplied by all columns: one word of a row, or the block of two rows. */
SMS_INLINE vi sms_peak_word(const sms_word *a, int row) { return w_set(a[row]); }
SMS_INLINE vi sms_peak_block(const sms_word *a, int row) { return w_load(a + row * SMS_LANES); }

/* rows x vectors chains of dot(sum, columns, row). */
#define SMS_PEAK(name, vector, zero, rows, vectors, row_operand, dot, add)                       \
    static vector name(sms_word ones, int64_t iterations) {                                      \
        sms_word rhs[SMS_MOST_OPERANDS], lhs[SMS_MOST_OPERANDS];                                 \
        for (int i = 0; i < SMS_MOST_OPERANDS; i++)                                              \
            rhs[i] = lhs[i] = ones;                                                              \
        vector acc[rows][vectors];                                                               \
        SMS_UNROLL(16)                                                                           \
        for (int r = 0; r < (rows); r++) {                                                       \
            SMS_UNROLL(16)                                                                       \
            for (int j = 0; j < (vectors); j++)                                                  \
                acc[r][j] = zero;                                                                \
        }                                                                                        \
        const sms_word *a = lhs, *b = rhs;                                                       \
        for (int64_t i = 0; i < iterations; i++) {                                               \
            __asm__ volatile("" : "+r"(a), "+r"(b));                                             \
            SMS_UNROLL(16)                                                                       \
            for (int r = 0; r < (rows); r++) {                                                   \
                SMS_UNROLL(16)                                                                   \
                for (int j = 0; j < (vectors); j++)                                              \
                    acc[r][j] = dot(acc[r][j], w_load(b + j * SMS_LANES), row_operand(a, r));    \
            }                                                                                    \
        }                                                                                        \
        vector done[SMS_PEAK_CHAINS];                                                            \
        SMS_UNROLL(16)                                                                           \
        for (int r = 0; r < (rows); r++) {                                                       \
            SMS_UNROLL(16)                                                                       \
            for (int j = 0; j < (vectors); j++)                                                  \
                done[r * (vectors) + j] = acc[r][j];                                             \
        }                                                                                        \
        __asm__ volatile("" : : "r"(done) : "memory");                                           \
        vector total = zero;                                                                     \
        for (int i = 0; i < SMS_PEAK_CHAINS; i++)                                                \
            total = add(total, done[i]);                                                         \
        return total;                                                                            \
    }
#define SMS_WORD_PEAK(name, vector, zero, dot, add) \
    SMS_PEAK(name, vector, zero, SMS_MR, SMS_PANELS *SMS_PANEL_VECTORS, sms_peak_word, dot, add)
#define SMS_BLOCK_PEAK(name, vector, zero, dot, add) \
    SMS_PEAK(name, vector, zero, SMS_BLOCK_ROWS, SMS_BLOCK_COLUMNS, sms_peak_block, dot, add)

SMS_WORD_PEAK(sms_sum_widened, vf, v_set(0.0f), w_dot_widened, v_add)
#if SMS_BLOCKS
SMS_BLOCK_PEAK(sms_sum_bf16, vf, v_set(0.0f), isa_block_bf16, v_add)
SMS_BLOCK_PEAK(sms_count_s8, vi, w_set(0), isa_block_s8, w_add)
#else
SMS_WORD_PEAK(sms_count_s8, vi, w_set(0), w_dot_s8, w_add)
#if SMS_BF16_DOT
SMS_WORD_PEAK(sms_sum_bf16, vf, v_set(0.0f), isa_dot_bf16, v_add)
#endif
#endif

/* The sum of all products of 1 and 1. */
static float sms_f16_peak(int64_t iterations) {
    const sms_word f32 = 0x3f800000;
    return v_sum(sms_sum_widened(f32, iterations));
}

static float sms_bf16_peak(int64_t iterations) {
#if SMS_BF16_DOT || SMS_BLOCKS
    const sms_word two_bf16 = 0x3f803f80;
    return v_sum(sms_sum_bf16(two_bf16, iterations));
#else
    return sms_f16_peak(iterations); /* widened, they are the same */
#endif
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

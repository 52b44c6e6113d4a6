/* What the multiply-add pipes give for words. */
#ifndef SMESIM_LOWP_PEAK_H
#define SMESIM_LOWP_PEAK_H

#include "../vector/peak.h"
#include "product.h"

enum { SMS_PEAK_VECTORS = SMS_PANELS * SMS_PANEL_VECTORS, SMS_PEAK_CHAINS = SMS_MR * SMS_PEAK_VECTORS };

SMS_INLINE vi sms_peak_column(const sms_word *b, int j) { return w_load(b + j * SMS_LANES); }

#define SMS_WORD_PEAK(name, vector, dot, add) \
    SMS_PEAK(name, vector, sms_word, SMS_MR, SMS_PEAK_VECTORS, sms_peak_column, w_row, dot, add)

SMS_WORD_PEAK(sms_sum_widened, vf, w_dot_widened, v_add)
#if SMS_BLOCKS
SMS_INLINE vi sms_peak_rows(const sms_word *a, int r) { return w_load(a + r * SMS_LANES); }

#define SMS_BLOCK_PEAK(name, vector, dot, add) \
    SMS_PEAK(name, vector, sms_word, SMS_BLOCK_ROWS, SMS_BLOCK_COLUMNS, sms_peak_column, sms_peak_rows, dot, add)
SMS_BLOCK_PEAK(sms_sum_bf16, vf, isa_block_bf16, v_add)
SMS_BLOCK_PEAK(sms_count_s8, vi, isa_block_s8, w_add)
#else
SMS_WORD_PEAK(sms_count_s8, vi, w_dot_s8, w_add)
#if SMS_BF16_DOT
SMS_WORD_PEAK(sms_sum_bf16, vf, isa_dot_bf16, v_add)
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
